"""A demo that is killed, or has no room left, loses nothing and says what is wrong."""

import os
import shutil
import signal
import subprocess
import threading
import time

import httpx
import pytest

from tests.conftest import QUERIES, free_port, serving
from tests.raw import ask, upload

TIGER = QUERIES / "tiger.webp"


def ids(answer):
    assert answer[0] == "complete", answer
    return [hit["id"] for hit in answer[1]["hits"]]


def files_of(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_demo_that_is_killed_under_load_is_ready_again_in_seconds_with_its_index_intact(
    index_folder, cache, tmp_path, retriever
):
    index = tmp_path / "index"
    shutil.copytree(index_folder, index)
    before, port, stop = files_of(index), free_port(), threading.Event()
    with serving(index, cache, tmp_path, port) as first:

        def visit():
            while not stop.is_set():
                try:
                    file = {"path": upload(first.address, TIGER.read_bytes())}
                    ask(first.address, "/compare", [file, 5])
                except (httpx.HTTPError, ValueError, KeyError):  # what a killed server answers
                    time.sleep(0.05)

        visitors = [threading.Thread(target=visit) for _ in range(6)]
        for visitor in visitors:
            visitor.start()
        time.sleep(3)
        first.process.send_signal(signal.SIGKILL)
        first.process.wait(10)
        started = time.monotonic()
        with serving(index, cache, tmp_path, port) as second:
            stop.set()
            for visitor in visitors:
                visitor.join(60)
            file = {"path": upload(second.address, TIGER.read_bytes())}
            assert ids(ask(second.address, "/search_pixels", [file, "l2", 5])) == [
                hit.id for hit in retriever.by_pixels(TIGER, "l2", 5)
            ]
            assert ids(ask(second.address, "/search_clip", [file, None, None, 0.5, None, 5])) == [
                hit.id for hit in retriever.by_clip(TIGER, k=5)
            ]
            assert time.monotonic() - started < 60
    assert files_of(index) == before


@pytest.fixture
def small_disk(tmp_path):
    """A disk of three megabytes."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "none", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("a file system of a given size can be mounted by root only")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_an_upload_that_finds_the_disk_full_is_refused_and_the_rest_goes_on(index_folder, cache, tmp_path, small_disk):
    with serving(index_folder, cache, tmp_path, GRADIO_TEMP_DIR=str(small_disk), TMPDIR=str(small_disk)) as served:
        file = {"path": upload(served.address, TIGER.read_bytes())}
        (small_disk / "full").write_bytes(b"0" * (shutil.disk_usage(small_disk).free - 4096))
        answer = httpx.post(
            f"{served.address}/gradio_api/upload", files={"files": ("a.png", os.urandom(900_000))}, timeout=30
        )
        assert answer.status_code >= 500
        assert len(ids(ask(served.address, "/search_pixels", [file, "l2", 5]))) == 5
        assert len(ids(ask(served.address, "/search_clip", [None, "a red flower", None, 0.5, None, 5]))) == 5
        (small_disk / "full").unlink()
        file = {"path": upload(served.address, (QUERIES / "dog.webp").read_bytes())}
        assert len(ids(ask(served.address, "/search_pixels", [file, "l2", 5]))) == 5
