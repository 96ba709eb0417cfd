"""What the tests share: the embedded library, one index built over it, and no way to the Hub."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

# Before anything imports huggingface_hub: a closed port, so that whatever reached for the Hub would fail at once.
os.environ["HF_ENDPOINT"] = "http://127.0.0.1:9"
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
if "PYTEST_XDIST_WORKER" in os.environ:  # a worker for each core: products in threads would wait for each other
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
for name in [name for name in os.environ if name.startswith("IMGRET_") or name == "SPACE_ID"]:
    del os.environ[name]

# A shell that starts the tests in the background has them, and all that they start, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest
from filelock import FileLock

from imgret.build import build_index
from imgret.cli import main
from imgret.index import Index
from imgret.library import ImageLibrary
from imgret.search import Retriever
from imgret.settings import EXAMPLES

SLOWEST = (
    "hub", "page", "server", "ray", "private", "reports", "notebooks", "cli", "onnx", "strangers", "build", "filters",
    "prepare", "corpus", "startup", "pixels", "docs",
)  # fmt: skip
"""The tests that take longest, by file: they start first, so that no worker has one left when the others have ended."""


def pytest_collection_modifyitems(items):
    ranks = {f"test_{name}": rank for rank, name in enumerate(SLOWEST)}
    items.sort(key=lambda item: ranks.get(item.path.stem, len(ranks)))


ROOT = EXAMPLES.parent
LIBRARY = EXAMPLES / "library"
QUERIES = EXAMPLES / "queries"


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """A folder with the index of the embedded library, `index`, and what its build left in the cache, `cache`: made
    once, for the tests in all processes.
    """
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder = shared / "built"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            half = shared / "half-built"
            build_index(ImageLibrary.load(LIBRARY), half / "index", "starter", cache=half / "cache").close()
            half.rename(folder)
    return folder


@pytest.fixture(scope="session")
def cache(built, tmp_path_factory):
    """A cache folder for the tests of a process, in which the encoder is put together and exported."""
    folder = tmp_path_factory.mktemp("cache")
    for path in (built / "cache").glob("starter-*"):
        shutil.copytree(path, folder / path.name, copy_function=os.link)
    return folder


@pytest.fixture(scope="session")
def index_folder(built):
    """The index of the embedded library; tests that change it work on a copy."""
    return built / "index"


@pytest.fixture(scope="session")
def retriever(index_folder, cache):
    index = Index.open(index_folder, cache=cache)
    yield Retriever(index, cache=cache)
    index.close()


@pytest.fixture(scope="session")
def small_library(tmp_path_factory):
    """Forty pictures of the embedded library in class folders, as a user would lay them out."""
    folder = tmp_path_factory.mktemp("small")
    for label in ("animals/birds", "animals/insects", "food/fruit", "vehicles"):
        for picture in sorted((LIBRARY / label).rglob("*.webp"))[:10]:
            target = folder / label.rpartition("/")[2] / picture.name
            target.parent.mkdir(exist_ok=True)
            shutil.copy(picture, target)
    return folder


@pytest.fixture
def imgret(cache, capfd, monkeypatch):
    """Runs a command of the command line within this process, which has imported its parts already."""

    def run(*arguments, **variables):
        capfd.readouterr()  # what was printed before is not the command's
        with monkeypatch.context() as patched:
            for name, value in ({"IMGRET_CACHE": str(cache)} | variables).items():
                patched.setenv(name, value)
            try:
                code = main([str(argument) for argument in arguments])
            except SystemExit as end:
                code = end.code
        printed = capfd.readouterr()
        return subprocess.CompletedProcess(arguments, code or 0, printed.out, printed.err)

    return run


def run_imgret(*arguments, **variables):
    """Runs a command of the command line as a process."""
    command = [sys.executable, "-m", "imgret", *map(str, arguments)]
    environment = os.environ | variables
    return subprocess.run(command, env=environment, capture_output=True, text=True, encoding="utf-8", timeout=120)


@pytest.fixture
def imgret_process(cache):
    """The same, with the cache of the tests."""
    return partial(run_imgret, IMGRET_CACHE=str(cache))


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@dataclass(frozen=True)
class Served:
    """A demo that runs: its address, its process, the folder of its uploads, its log."""

    address: str
    process: subprocess.Popen
    uploads: Path
    log: Path


@contextmanager
def serving(index_folder, cache, folder, port=None, planted="", **variables):
    """The demo as `imgret serve` starts it, over an index, with uploads and log in `folder`; `planted` runs before."""
    port, log, uploads = port or free_port(), folder / "log", folder / "uploads"
    uploads.mkdir(parents=True, exist_ok=True)
    environment = os.environ | {
        "IMGRET_CACHE": str(cache),
        "IMGRET_MAX_UPLOAD_MB": "1",
        "GRADIO_TEMP_DIR": str(uploads),
        **variables,
    }
    door = f"import sys\n{planted}\nfrom imgret.cli import main\nsys.exit(main())"
    command = [sys.executable, "-c", door, "serve", str(index_folder), "--port", str(port)]
    with log.open("a") as file:
        process = subprocess.Popen(command, env=environment, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT)
    address = f"http://127.0.0.1:{port}"
    for _ in range(600):
        try:
            urllib.request.urlopen(address, timeout=5).close()
            break
        except OSError:
            assert process.poll() is None, log.read_text()
            time.sleep(0.2)
    try:
        yield Served(address, process, uploads, log)
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="session")
def served(index_folder, cache, tmp_path_factory):
    """The demo over the shared index."""
    with serving(index_folder, cache, tmp_path_factory.mktemp("server")) as served:
        yield served


@pytest.fixture(scope="module")
def chroma_server(tmp_path_factory):
    """A Chroma server for the tests of a file, which only add to it."""
    from tests.chroma import Chroma  # which takes its port from here

    server = Chroma(tmp_path_factory.mktemp("chroma")).start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def server(served):
    """The address of the demo over the shared index."""
    return served.address
