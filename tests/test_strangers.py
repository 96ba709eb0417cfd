"""Whatever is asked from outside is answered with a result or a sentence, and opens no way in."""

import asyncio
import json
import math
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import pytest
from starlette.exceptions import HTTPException

from imgret.startup import ReadyIndex, Startup, StartupError
from imgret.ui.middleware import RequestLimits
from imgret.ui.thumbnails import Thumbnails
from tests.conftest import LIBRARY, QUERIES, ROOT
from tests.raw import ask, listen, upload

TIGER = QUERIES / "tiger.webp"
PICTURE = object()
"""Stands for an uploaded picture."""

ODD = (
    None, "", "\0", "\u202ecat\u202c", "a" * 3000, 0, -1, 1.5, math.nan, math.inf, 10**30, True, [],
    [[]], {}, {"path": None}, {"path": "/etc/hostname"}, {"path": "\0"}, {"path": "../" * 30 + "etc/hostname"},
    {"path": "/proc/self/environ", "meta": {"_type": "gradio.FileData"}},
    ["animals/birds"] * 100, "🦜" * 500, "cat'; DROP TABLE x; --",
)  # fmt: skip

LARGE = ("x" * 2**20, [f"label {number}" for number in range(10_000)])

WHOLE = {
    "/search_pixels": [PICTURE, "l2", 3],
    "/search_clip": [PICTURE, "a cat", "a dog", 0.5, ["animals/birds"], 3],
    "/compare": [PICTURE, 3],
    "/library": [],
}


@pytest.fixture(scope="module")
def picture(server):
    path = upload(server, TIGER.read_bytes())
    return {"path": path, "meta": {"_type": "gradio.FileData"}}


@pytest.mark.parametrize("endpoint", WHOLE)
def test_odd_arguments_are_answered_or_refused_and_never_fail(served, picture, endpoint):
    whole = [picture if argument is PICTURE else argument for argument in WHOLE[endpoint]]
    cases = [[*whole[:place], odd, *whole[place + 1 :]] for place in range(len(whole)) for odd in ODD]
    cases += [[], whole[:1], [*whole, "more"], whole * 50]
    cases += [[odd if argument is not picture else argument for argument in whole] for odd in LARGE]
    written = served.log.stat().st_size

    def one(arguments):
        started = time.monotonic()
        return ask(served.address, endpoint, arguments), time.monotonic() - started

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(one, cases))
    assert max(seconds for _, seconds in answers) < 20
    for arguments, ((kind, value), _) in zip(cases, answers, strict=True):
        assert kind in ("complete", "error", "refused"), arguments
        assert "log of the demo" not in str(value), f"{endpoint} failed on {str(arguments)[:300]}"
    assert "failed: " not in served.log.read_text()[written:]
    assert ask(served.address, endpoint, whole)[0] == "complete"


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"{", b'{"data": 3}', b'{"data": null}', b"\xff\xfe", b"[" * 50_000]
)
def test_a_body_that_is_no_request_is_refused(server, body):
    assert ask(server, "/search_pixels", body)[0] in ("refused", "error")
    assert ask(server, "/library", [])[0] == "complete"


def test_a_body_larger_than_any_picture_is_refused_however_it_is_sent(server):
    parts = [("files", (f"{number}.png", b"0" * 900_000)) for number in range(4)]
    answer = httpx.post(f"{server}/gradio_api/upload", files=parts, timeout=30)
    assert (answer.status_code, answer.text) == (413, "At most 1 MB are taken, so send a smaller copy.")

    def endless():
        for _ in range(80):
            yield b" " * 65_536

    url = f"{server}/gradio_api/call/search_clip"
    assert httpx.post(url, content=endless(), timeout=30).status_code == 413
    assert ask(server, "/search_clip", [None, "x" * 4_000_000, None, 0.5, None, 3]) == ("refused", 413)
    one = httpx.post(f"{server}/gradio_api/upload", files={"files": ("a.png", b"0" * 1_100_000)}, timeout=30)
    assert one.status_code == 413


def test_uploads_fill_no_disk(served):
    def held():
        return sum(path.stat().st_size for path in served.uploads.rglob("*") if path.is_file())

    most = 0
    for number in range(75):
        upload(served.address, number.to_bytes(4, "big") * 250_000)
        most = max(most, held())
        if number % 25 == 24:
            time.sleep(2)
    upload(served.address, b"the last one")
    assert most < 80 * 2**20
    assert held() <= 50 * 2**20 + 2**20
    file = {"path": upload(served.address, TIGER.read_bytes())}
    assert ask(served.address, "/search_pixels", [file, "l2", 3])[0] == "complete"


def test_no_file_of_the_machine_is_served(server, index_folder, cache):
    targets = [
        "/etc/hostname", "/proc/self/environ", "/proc/self/cwd/pyproject.toml", ROOT / "pyproject.toml",
        ROOT / "app.py",
        ROOT / "imgret/settings.py", index_folder / "manifest.json", *index_folder.glob("data-*/*"),
        LIBRARY / "metadata.csv",
        *[path for path in cache.rglob("*.json") if path.parent.name != "shown"][:2],
    ]  # fmt: skip
    inside = f"{QUERIES}/.."
    spelled = [str(target) for target in targets]
    spelled += [f"{inside}/..{'/..' * 12}/etc/hostname", f"{inside}/library/metadata.csv"]
    spelled += [text.replace("/", "%2f") for text in spelled] + [text.replace("..", "%2e%2e") for text in spelled[-4:]]
    spelled += [f"file://{ROOT}/app.py", "//etc/hostname", "..%5c..%5cetc%5chostname", "%00", f"{ROOT}/app.py%00.webp"]
    with httpx.Client(timeout=30) as client:
        for text in spelled:
            for route in (
                "/gradio_api/file=",
                "/file=",
                "/gradio_api/file/",
                "/static/",
                "/assets/",
                "/gradio_api/custom_component/",
            ):
                answer = client.get(httpx.URL(server).copy_with(raw_path=(route + text).encode()))
                assert (
                    answer.status_code in (400, 403, 404, 405, 422, 500) or "<!doctype html>" in answer.text.lower()
                ), text
                assert "imgret" not in answer.text.lower() or answer.status_code != 200, text
        assert client.get(f"{server}/gradio_api/file={TIGER}").content == TIGER.read_bytes()


@pytest.fixture
def canary():
    """A server on loopback that nobody may be sent to, and who came nevertheless."""
    visits = []

    class Canary(BaseHTTPRequestHandler):
        def do_GET(self):
            visits.append(self.path)
            self.send_response(200)
            self.end_headers()
            self.wfile.write(TIGER.read_bytes())

        def log_message(self, *arguments):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Canary) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield listening.server_port, visits
        listening.shutdown()


def test_nobody_is_sent_to_an_address_that_is_not_public(server, canary):
    port, visits = canary
    for host in ("127.0.0.1", "localhost", "0.0.0.0", "[::1]", "2130706433", "0x7f.1", "127.1", "[::ffff:127.0.0.1]"):
        url = f"http://{host}:{port}/x.png"
        for file in ({"path": url}, {"path": url, "meta": {"_type": "gradio.FileData"}}, {"path": "x.png", "url": url}):
            kind, said = ask(server, "/search_pixels", [file, "l2", 3])
            assert kind == "error"
            assert "log of the demo" not in str(said)
        for route in ("file=", "proxy=", "file=%68ttp" + url[4:] + "?"):
            assert httpx.get(f"{server}/gradio_api/{route}{url}", timeout=30).status_code in (400, 403, 404)
    assert visits == []


def test_a_full_queue_says_so_and_answers_whom_it_took(server, picture):
    with httpx.Client(timeout=60) as client:

        def join(_):
            body = {"data": [picture, 10]}
            return client.post(f"{server}/gradio_api/call/compare", json=body)

        answers, busy = [], []
        with ThreadPoolExecutor(32) as pool:
            while not busy and len(answers) < 2500:  # as many as it takes: a quick machine answers while it is asked
                answers += pool.map(join, range(250))
                busy = [answer for answer in answers if answer.status_code == 503]
    assert busy
    assert all("Queue is full" in answer.text for answer in busy)
    taken = [answer.json()["event_id"] for answer in answers if answer.status_code == 200]
    assert len(taken) + len(busy) == len(answers)
    with ThreadPoolExecutor(16) as pool:
        ends = list(pool.map(lambda event: listen(server, "/compare", event)[0], taken[-40:]))
    assert set(ends) == {"complete"}


def test_clients_that_vanish_free_their_places(server, picture):
    for _ in range(40):  # asked, and nobody listens
        httpx.post(f"{server}/gradio_api/call/compare", json={"data": [picture, 10]}, timeout=30)
    for _ in range(10):  # the line is cut in the middle of an upload
        slow = httpx.Client()
        with pytest.raises(httpx.HTTPError):
            slow.post(
                f"{server}/gradio_api/upload",
                content=cut_off(),
                headers={"Content-Type": "multipart/form-data; boundary=x"},
            )
    started = time.monotonic()
    assert ask(server, "/compare", [picture, 3])[0] == "complete"
    assert time.monotonic() - started < 20


def cut_off():
    yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.png"\r\n\r\n' + b"0" * 1000
    raise httpx.WriteError("gone")


def test_a_body_that_does_not_come_to_its_end_is_cut_off(monkeypatch):
    monkeypatch.setattr("imgret.ui.middleware.BODY_SECONDS", 0.3)
    parts = [{"type": "http.request", "body": b"0" * 1000, "more_body": True}]

    async def receive():
        if parts:
            return parts.pop()
        await asyncio.sleep(60)

    async def read_all(scope, receive, send):
        while (await receive()).get("more_body"):
            pass

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/call/compare", "headers": []}
    with pytest.raises(HTTPException) as error:
        asyncio.run(RequestLimits(read_all, 1000)(scope, receive, None))
    assert error.value.status_code == 408
    assert "did not arrive within" in error.value.detail


def test_a_client_may_listen_for_as_long_as_it_likes(monkeypatch):
    monkeypatch.setattr("imgret.ui.middleware.BODY_SECONDS", 0.3)
    messages = [{"type": "http.disconnect"}, {"type": "http.request", "body": b""}]

    async def receive():
        if len(messages) == 1:
            await asyncio.sleep(0.6)
        return messages.pop()

    heard = []

    async def listen_on(scope, receive, send):
        heard.extend([await receive(), await receive()])

    scope = {"type": "http", "method": "GET", "path": "/gradio_api/queue/data", "headers": []}
    asyncio.run(RequestLimits(listen_on, 1000)(scope, receive, None))
    assert heard[1]["type"] == "http.disconnect"


def test_thumbnails_fill_no_disk(retriever, tmp_path, monkeypatch):
    monkeypatch.setattr("imgret.ui.thumbnails.MAX_FILES", 20)
    monkeypatch.setattr("imgret.ui.thumbnails.BETWEEN_SWEEPS", 5)
    thumbnails = Thumbnails(tmp_path)
    for row in range(100):
        path = thumbnails.path(retriever, row)
        os.utime(path, (row, row))
    left = {thumbnails.row_of(retriever, path) for path in thumbnails.folder.iterdir()}
    assert set(range(80, 100)) <= left <= set(range(75, 100))
    assert thumbnails.path(retriever, 3).read_bytes() == retriever.index.thumbnail(3)


def test_the_log_has_a_line_a_request_and_nothing_of_what_was_asked(served, picture):
    written = served.log.stat().st_size
    ask(served.address, "/search_clip", [None, "a very secret walrus", None, 0.5, None, 3])
    ask(served.address, "/search_clip", [None, "a walrus", None, 7, None, 3])
    assert ask(served.address, "/search_pixels", []) == ("error", "0 arguments were given; 3 are needed.")
    assert ask(served.address, "/search_clip", [None, "a walrus"])[0] == "complete"  # the rest has defaults
    text = served.log.read_text()[written:]
    lines = [json.loads(line[line.index("{") :]) for line in text.splitlines() if '"request"' in line]
    assert [(line["method"], line["outcome"]) for line in lines] == [
        ("search_clip", "answered"),
        ("search_clip", "refused: SearchError"),
        ("search_clip", "answered"),
    ]
    assert all(line["ms"] >= 0 and len(line["request"]) == 12 for line in lines)
    assert "walrus" not in text


def test_the_health_route_says_ready_warming_or_degraded_and_why(server, retriever):
    answer = httpx.get(f"{server}/gradio_api/health", timeout=30)
    for _ in range(100):
        if answer.json()["status"] != "warming":
            break
        time.sleep(0.2)
        answer = httpx.get(f"{server}/gradio_api/health", timeout=30)
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "reason": None})
    go = threading.Event()

    def slow(progress):
        progress("embedding", 3, 10)
        go.wait()
        return ReadyIndex(retriever, "here", "It is not the one that was asked for.")

    start = Startup(slow)
    time.sleep(0.2)
    assert (start.health().status, start.health().searchable) == ("warming", False)
    assert "embedding" in start.health().reason
    go.set()
    start.wait()
    assert (start.health().status, start.health().reason) == ("degraded", "It is not the one that was asked for.")

    def broken(progress):
        raise StartupError("Nothing is here.")

    failed = Startup(broken)
    with pytest.raises(StartupError):
        failed.wait()
    assert (failed.health().status, failed.health().reason, failed.health().searchable) == (
        "degraded",
        "Nothing is here.",
        False,
    )
