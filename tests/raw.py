"""Requests by plain HTTP against Gradio's routes, for what a well-behaved client would not send or not wait for."""

import json

import httpx


def upload(server, data, name="query.webp", client=httpx):
    """The path that an upload of `data` answers."""
    answer = client.post(f"{server}/gradio_api/upload", files={"files": (name, data)}, timeout=120)
    return answer.raise_for_status().json()[0]


def ask(server, endpoint, arguments):
    """What an endpoint answers to a list of arguments: ("complete", value), ("error", sentence or None), or ("refused",
    status) where the request itself is not taken.
    """
    url = f"{server}/gradio_api/call{endpoint}"
    body = json.dumps({"data": arguments}) if not isinstance(arguments, bytes) else arguments
    answer = httpx.post(url, content=body, headers={"Content-Type": "application/json"}, timeout=30)
    if answer.status_code != 200:
        return "refused", answer.status_code
    return listen(server, endpoint, answer.json()["event_id"])


def listen(server, endpoint, event, client=httpx):
    """The end of an event that was asked for."""
    kind = None
    with client.stream("GET", f"{server}/gradio_api/call{endpoint}/{event}", timeout=120) as stream:
        for line in stream.iter_lines():
            name, _, value = line.partition(": ")
            if name == "event":
                kind = value
            elif name == "data" and kind in ("complete", "error"):
                value = json.loads(value)
                if kind == "complete":
                    return kind, value[0]
                return kind, value.get("error") if isinstance(value, dict) else value
    return "closed", None
