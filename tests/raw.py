"""Requests as no well-behaved client makes them: plain HTTP against Gradio's routes."""

import json

import httpx


def upload(server, data, name="query.webp"):
    """The path that an upload of `data` answers."""
    return httpx.post(f"{server}/gradio_api/upload", files={"files": (name, data)}, timeout=30).json()[0]


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


def listen(server, endpoint, event):
    """The end of an event that was asked for."""
    kind = None
    with httpx.stream("GET", f"{server}/gradio_api/call{endpoint}/{event}", timeout=60) as stream:
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
