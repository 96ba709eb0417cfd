"""What a Space reads of this project agrees with itself, and the demo works where a Space or a proxy puts it."""

import os
import shlex
import socket
import subprocess
import sys
import threading
import time

import httpx
import pytest
import uvicorn
import yaml
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse
from gradio_client import Client, handle_file

from imgret.cli import deploy, parser
from imgret.settings import SPACE_ENCODER, SPACE_LIBRARY
from tests.conftest import QUERIES, ROOT, free_port


@pytest.fixture
def block():
    """The YAML block of README.md, which is the configuration of the Space."""
    return yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def test_what_the_space_is_told_to_do_can_be_done_by_every_copy_of_it(block):
    assert (block["sdk"], block["app_file"]) == ("gradio", "app.py")
    assert (ROOT / block["app_file"]).is_file()
    assert "preload_from_hub" not in block  # a repo that is missing, or private, fails the build of the Space
    assert block["python_version"] == "3.12"
    assert block["datasets"] == [SPACE_LIBRARY]
    assert f"hf-hub:{block['models'][0]}" == SPACE_ENCODER


def test_the_workflow_runs_a_command_that_there_is():
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "index.yml").read_text())
    lines = [step["run"] for step in workflow["jobs"]["deploy"]["steps"] if step.get("run", "").startswith("imgret ")]
    options = parser().parse_args(shlex.split(lines[0])[1:])
    assert (options.run, options.space, options.library) == (deploy.run, "$SPACE", "$LIBRARY")


def proxy_to(address):
    """A reverse proxy that serves what is at `address` under /demo, as nginx does with a prefix that it strips."""
    app = FastAPI(openapi_url=None)
    asking = httpx.AsyncClient(base_url=address, timeout=60)

    @app.api_route("/demo/{path:path}", methods=["GET", "HEAD", "POST"])
    async def forward(path: str, request: Request):
        headers = [(name, value) for name, value in request.headers.items() if name not in ("host", "content-length")]
        headers += [("host", request.headers["host"])]
        asked = asking.build_request(
            request.method, f"/{path}?{request.url.query}", headers=headers, content=await request.body()
        )
        answer = await asking.send(asked, stream=True)
        left_out = ("content-length", "transfer-encoding", "connection")
        told = {name: value for name, value in answer.headers.items() if name not in left_out}
        return StreamingResponse(answer.aiter_raw(), answer.status_code, told)

    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True).start()
    return server, f"http://127.0.0.1:{listener.getsockname()[1]}/demo/"


def test_the_demo_answers_behind_a_reverse_proxy(index_folder, cache, retriever, tmp_path):
    port = free_port()
    environment = os.environ | {
        "IMGRET_CACHE": str(cache), "GRADIO_ROOT_PATH": "/demo", "GRADIO_TEMP_DIR": str(tmp_path),
        "GRADIO_SERVER_PORT": str(port), "IMGRET_INDEX": str(index_folder),
    }  # fmt: skip
    app = subprocess.Popen([sys.executable, "app.py"], env=environment, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    server, address = proxy_to(f"http://127.0.0.1:{port}")
    try:
        for _ in range(600):
            try:
                page = httpx.get(address, timeout=5)
                if page.status_code == 200:
                    break
            except httpx.HTTPError:
                pass
            assert app.poll() is None, app.stderr.read()
            time.sleep(0.2)
        assert f'"root":"{address.rstrip("/")}"' in page.text  # where the page's own requests go
        client = Client(address, verbose=False)
        tiger = str(QUERIES / "tiger.webp")
        answer = client.predict(image=handle_file(tiger), k=3, api_name="/search_pixels")
        assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in retriever.by_pixels(tiger, k=3)]
    finally:
        app.terminate()
        app.wait(30)
        server.should_exit = True
