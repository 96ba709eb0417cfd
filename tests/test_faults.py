"""A full disk, no memory, a wrong clock: one sentence, and the old index answers as before."""

import json
import os
import resource
import shutil
import sqlite3
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from imgret import BuildError, ImageLibrary, Index, Retriever, build_index
from imgret.vectors import VectorError, VectorStore
from tests.conftest import QUERIES, ROOT

TIGER = QUERIES / "tiger.webp"
FUTURE = 2_500_000_000


@pytest.fixture(scope="module")
def small_index(tmp_path_factory, small_library, cache):
    folder = tmp_path_factory.mktemp("faults") / "index"
    build_index(ImageLibrary.load(small_library), folder, "starter", cache=cache).close()
    return folder


@pytest.fixture
def disk(tmp_path):
    """A disk of its own, of 8 MB."""
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", place], capture_output=True).returncode != 0:
        pytest.skip("only root can mount a disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def answers(folder, cache):
    index = Index.open(folder, cache=cache)
    retriever = Retriever(index, cache=cache)
    found = [retriever.by_pixels(TIGER, metric, 5) for metric in ("l1", "correlation")]
    found.append(retriever.by_clip(image=TIGER, k=5))
    index.close()
    return found


def grown(library, folder):
    """The library with more pictures, so that building it writes everything anew."""
    copy = shutil.copytree(library, folder)
    for number, path in enumerate(sorted(QUERIES.iterdir())[:8]):
        shutil.copy(path, copy / f"new-{number}{path.suffix}")
    return copy


def limited(folder, library, cache, **limits):
    """`imgret build` with less of something than it needs."""

    def limit():
        for name, value in limits.items():
            resource.setrlimit(getattr(resource, name), (value, value))

    command = [sys.executable, "-m", "imgret.cli", "build", str(library), "--out", str(folder)]
    environment = os.environ | {"IMGRET_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, preexec_fn=limit
    )


@pytest.mark.parametrize("room", [100_000, 300_000])
def test_a_file_system_that_takes_no_more_leaves_the_old_index(small_index, small_library, tmp_path, cache, room):
    folder = shutil.copytree(small_index, tmp_path / "index")
    before = answers(folder, cache)
    done = limited(folder, grown(small_library, tmp_path / "more"), cache, RLIMIT_FSIZE=room)
    assert done.returncode == 2, done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("imgret: ")
    assert "Traceback" not in done.stderr
    assert answers(folder, cache) == before


@pytest.mark.parametrize("left", [0, 200_000, 1_500_000])
def test_a_full_disk_ends_a_build_in_a_sentence_and_leaves_the_old_index(
    small_index, small_library, disk, tmp_path, cache, left
):
    folder = shutil.copytree(small_index, disk / "index", ignore=shutil.ignore_patterns("encoder"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if "/encoder/" not in name}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    before = answers(folder, cache)
    room = shutil.disk_usage(disk).free
    with (disk / "other").open("wb") as other:
        other.write(bytes(room - left))
    with pytest.raises((BuildError, VectorError, ValueError)) as refusal:
        build_index(ImageLibrary.load(grown(small_library, tmp_path / "more")), folder, "starter", cache=cache)
    assert "\n" not in str(refusal.value)
    assert answers(folder, cache) == before


def test_a_read_only_index_answers_and_cannot_be_built_anew(small_index, small_library, disk, tmp_path, cache):
    folder = shutil.copytree(small_index, disk / "index", ignore=shutil.ignore_patterns("encoder"))
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"] = {name: entry for name, entry in manifest["files"].items() if "/encoder/" not in name}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    before = answers(folder, cache)
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    assert answers(folder, cache) == before
    with pytest.raises(BuildError, match="Read-only file system"):
        build_index(ImageLibrary.load(grown(small_library, tmp_path / "more")), folder, "starter", cache=cache)
    assert answers(folder, cache) == before


def test_no_memory_left_ends_a_build_and_leaves_the_old_index(small_index, small_library, tmp_path, cache):
    folder = shutil.copytree(small_index, tmp_path / "index")
    before = answers(folder, cache)
    done = limited(folder, grown(small_library, tmp_path / "more"), cache, RLIMIT_AS=700 * 2**20)
    assert done.returncode != 0
    assert answers(folder, cache) == before


def test_a_clock_set_back_costs_nothing(small_index, small_library, tmp_path, cache):
    folder = shutil.copytree(small_index, tmp_path / "index")
    before = answers(folder, cache)
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (FUTURE, FUTURE))
    assert answers(folder, cache) == before
    index = build_index(ImageLibrary.load(small_library), folder, "starter", cache=cache)
    assert len(index) == 40
    index.close()
    assert answers(folder, cache) == before


def test_a_collection_that_another_process_has_locked_is_read_all_the_same(small_index, tmp_path, cache):
    folder = shutil.copytree(small_index, tmp_path / "index")
    before = answers(folder, cache)
    (database,) = folder.rglob("chroma.sqlite3")
    holder = sqlite3.connect(database)
    holder.execute("BEGIN EXCLUSIVE")
    assert answers(folder, cache) == before
    holder.rollback()
    holder.close()


def test_processes_that_serve_one_index_answer_alike(small_index, cache):
    command = [sys.executable, "-m", "imgret.cli", "search", str(small_index), "--image", str(TIGER), "--json"]
    environment = os.environ | {"IMGRET_CACHE": str(cache)}

    def ask(metric):
        answer = subprocess.run(
            [*command, "--metric", metric], cwd=ROOT, env=environment, capture_output=True, check=True
        )
        return json.loads(answer.stdout)

    index = Index.open(small_index, cache=cache)
    index.vectors.query(index.embeddings[0], 1)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(ask, ["clip", "clip"])
    assert first == second
    expected = Retriever(index, cache=cache).by_clip(image=TIGER)
    assert [hit["id"] for hit in first["hits"]] == [hit.id for hit in expected]
    index.close()


def test_a_disk_that_fills_while_chroma_writes_is_told_in_a_sentence(disk):
    rows = np.random.default_rng(0).standard_normal((3000, 512)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    with pytest.raises(VectorError, match="cannot be stored"):
        VectorStore.create(disk / "db", rows, [None] * len(rows))
