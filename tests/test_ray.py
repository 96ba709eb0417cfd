"""A build on Ray makes the index that a plain build makes, whatever dies on the way, or says why it cannot."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import datasets
import numpy as np
import pytest

from imgret import ImageLibrary, Index, build_index
from imgret.build.ray import ClusterError, on_ray
from tests.conftest import LIBRARY, ROOT, free_port

# Ray listens on all interfaces, whatever it is told; in a network of its own there is none but the loopback.
LOOPBACK_UP = """
import fcntl, os, socket, struct, sys
with socket.socket() as any_socket:
    fcntl.ioctl(any_socket, 0x8914, struct.pack("16sh14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execv(sys.argv[1], sys.argv[1:])
"""
ALONE = ["unshare", "--map-root-user", "--net", sys.executable, "-c", LOOPBACK_UP]


@pytest.fixture(scope="module")
def alone(cache):
    """Starts a Python program in a network of its own."""
    if (
        shutil.which("unshare") is None
        or subprocess.run([*ALONE, shutil.which("true")], capture_output=True).returncode
    ):
        pytest.skip("this system lets nobody make a network namespace, and Ray would listen on all interfaces")
    environment = os.environ | {"IMGRET_CACHE": str(cache), "PYTHONPATH": str(ROOT), "HF_DATASETS_OFFLINE": "1"}

    def start(*arguments):
        command = [*ALONE, sys.executable, *map(str, arguments)]
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return start


@pytest.fixture
def library(small_library, tmp_path):
    """Pictures, and two files that are none."""
    folder = shutil.copytree(small_library, tmp_path / "library")
    broken = sorted(folder.rglob("*.webp"))[13]
    broken.write_bytes(broken.read_bytes()[:200])
    (folder / "page.jpg").write_text("<html>")
    return folder


def assert_equal(one, other, cache):
    """That two folders hold the same index, but for the rounding of embeddings."""
    first, second = Index.open(one, cache=cache), Index.open(other, cache=cache)
    for name in ("data", "library", "encoder", "count", "labels", "skipped_count", "skipped"):
        assert getattr(first.manifest, name) == getattr(second.manifest, name)
    for name in ("records.arrow", "thumbnails.bin", "pixels/vectors.npy"):
        files = [index.folder / index.manifest.data / name for index in (first, second)]
        assert files[0].read_bytes() == files[1].read_bytes()
    np.testing.assert_allclose(first.embeddings, second.embeddings, atol=1e-5)
    first.close(), second.close()


def test_the_index_is_that_of_a_plain_build(alone, library, tmp_path, cache):
    build_index(ImageLibrary.load(library), tmp_path / "plain", cache=cache).close()
    build = alone("-m", "imgret.cli", "build", library, "--out", tmp_path / "ray", "--engine", "ray")
    printed, errors = build.communicate(timeout=120)
    assert build.returncode == 0, errors
    assert "39 pictures, 4 labels, 2 skipped" in printed
    assert_equal(tmp_path / "plain", tmp_path / "ray", cache)


KILLING = """
import os, signal, sys
from pathlib import Path
import datasets
from imgret import ImageLibrary, build_index
from imgret.build.ray import on_ray

def kill_the_actors(stage, done, total):
    if (stage, done) == ("pictures", 1):
        for process in Path("/proc").glob("[0-9]*"):
            try:
                here = os.readlink(process / "ns" / "net") == os.readlink("/proc/self/ns/net")
                if here and (process / "cmdline").read_bytes().startswith(b"ray::MapWorker"):
                    os.kill(int(process.name), signal.SIGKILL)
                    print("killed one")
            except OSError:  # it has ended meanwhile
                continue

shards, out, cache = sys.argv[1:]
table = datasets.load_dataset(shards, split="train", streaming=True)
build_index(ImageLibrary.load(table), out, progress=kill_the_actors, cache=Path(cache), engine=on_ray()).close()
"""


def test_shards_are_read_in_order_and_the_work_of_killed_actors_is_done_again(alone, tmp_path, cache):
    pictures = sorted(LIBRARY.rglob("*.webp"))[::5]
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["a", "b"])})
    (tmp_path / "shards").mkdir()
    for number in range(3):
        rows = [{"bytes": path.read_bytes(), "path": None} for path in pictures[number::3]]
        rows[7]["bytes"] = b"no picture"
        shard = datasets.Dataset.from_dict({"image": rows, "label": [number % 2] * len(rows)}, features)
        shard.to_parquet(tmp_path / "shards" / f"train-{number:05}-of-00003.parquet")
    build = alone("-c", KILLING, tmp_path / "shards", tmp_path / "ray", cache)
    table = datasets.load_dataset(str(tmp_path / "shards"), split="train", streaming=True)
    build_index(ImageLibrary.load(table), tmp_path / "plain", cache=cache).close()
    printed, errors = build.communicate(timeout=120)
    assert build.returncode == 0, errors
    assert "killed one" in printed
    assert_equal(tmp_path / "plain", tmp_path / "ray", cache)
    index = Index.open(tmp_path / "ray", cache=cache)
    assert [name for name, _ in index.manifest.skipped] == ["7", "44", "80"]
    index.close()


def network_of(process):
    return os.readlink(f"/proc/{process}/ns/net")


def names_in(network):
    """The command lines of the processes in a network."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile
            if network_of(process.name) == network:
                found.append((process / "cmdline").read_bytes())
    return found


def test_control_c_leaves_the_index_that_was_there_and_no_process(alone, library, tmp_path, cache):
    build_index(ImageLibrary.load(library, limit=3), tmp_path / "index", cache=cache).close()
    before = (tmp_path / "index" / "manifest.json").read_bytes()
    build = alone("-m", "imgret.cli", "build", library, "--out", tmp_path / "index", "--engine", "ray")
    while not any(name.startswith(b"ray::MapWorker") for name in names_in(network_of(build.pid))):
        assert build.poll() is None, build.communicate()
        time.sleep(0.05)
    network = network_of(build.pid)
    build.send_signal(signal.SIGINT)
    printed, errors = build.communicate(timeout=60)
    assert (build.returncode, printed) == (130, ""), errors
    deadline = time.monotonic() + 60
    while left := names_in(network):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    assert (tmp_path / "index" / "manifest.json").read_bytes() == before
    Index.open(tmp_path / "index", cache=cache).close()


def test_without_the_package_a_build_on_ray_says_how_to_have_it(library, tmp_path, cache, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ClusterError, match=r"pip install imgret\[ray\]"):
        build_index(ImageLibrary.load(library), tmp_path / "index", cache=cache, engine=on_ray())


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("127.0.0.1:{closed}", "No Ray cluster answers at 127.0.0.1:"),
        ("127.0.0.1:{silent}", "No Ray cluster answers at 127.0.0.1:"),
        ("cluster", "'cluster' is no address of a Ray cluster; host:port is"),
        ("ray://cluster:10001", "'ray://cluster:10001' is no address of a Ray cluster; host:port is"),
    ],
)
def test_an_address_where_no_cluster_is_is_refused_at_once(library, tmp_path, cache, address, says):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        given = address.format(closed=free_port(), silent=silent.getsockname()[1])
        started = time.monotonic()
        with pytest.raises(ClusterError, match=says) as refusal:
            build_index(ImageLibrary.load(library), tmp_path / "index", cache=cache, engine=on_ray(given))
    assert time.monotonic() - started < 30
    assert "\n" not in str(refusal.value)


def test_an_address_needs_the_engine(library, tmp_path):
    command = [sys.executable, "-m", "imgret.cli", "build", library, "--out", tmp_path / "index", "--address", "auto"]
    refused = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "imgret: An address is that of a Ray cluster, so it needs --engine ray.\n"
