"""A file in parts is the file: an index whose files were cut answers as the one in whole files, to the byte."""

import gc
import mmap
import os
import re
import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from imgret import ImageLibrary, Index, Retriever, build_index
from imgret.files.npy import forget_pages, open_array
from imgret.files.split_files import cut, mapped
from imgret.images import load_image, pixel_vector
from imgret.metrics import METRICS
from imgret.pixels import PixelIndex
from tests.conftest import LIBRARY, QUERIES
from tests.hub import Hub
from tests.test_hostile_index import data_of, refused, signed
from tests.test_hub import Client

PAGE = mmap.PAGESIZE
SMALL = 16 * PAGE
CUT = ("records.arrow", "thumbnails.bin", "embeddings.npy", "pixels/vectors.npy", "pixels/sketch.npy")
TIGER = QUERIES / "tiger.webp"


@pytest.fixture
def small_parts(monkeypatch):
    """Parts of SMALL bytes, and sketches also of a small matrix, so that there is a file of them to cut."""
    monkeypatch.setattr("imgret.files.split_files.SHARD", SMALL)
    monkeypatch.setattr("imgret.pixels.exact.SMALL_ROWS", 0)


@pytest.fixture(scope="module")
def cut_folder(tmp_path_factory, cache):
    """The index of the embedded library, as `index_folder`, but sketched, and with every long file in SMALL parts."""
    folder = tmp_path_factory.mktemp("cut") / "index"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imgret.files.split_files.SHARD", SMALL)
        patch.setattr("imgret.pixels.exact.SMALL_ROWS", 0)
        build_index(ImageLibrary.load(LIBRARY), folder, "starter", cache=cache).close()
    return folder


@pytest.fixture
def folder(cut_folder, tmp_path, small_parts):
    """A copy of it, to be changed."""
    return shutil.copytree(cut_folder, tmp_path / "index")


def parts_of(path):
    """The parts that are there, in order."""
    return sorted(path.parent.glob(f"{path.name}*"), key=lambda part: (len(part.name), part.name))


def joined(path):
    return b"".join(part.read_bytes() for part in parts_of(path))


def picture_vectors(count):
    """Pixel vectors (count, 12288) uint8 of the embedded library."""
    paths = sorted(LIBRARY.rglob("*.webp"))[:count]
    return np.stack([pixel_vector(load_image(path), 64) for path in paths])


@settings(deadline=None)
@given(st.integers(0, 6 * PAGE), st.integers(0, 2**32))
@example(0, 0)
@example(2 * PAGE, 0)
@example(2 * PAGE + 1, 0)
@example(6 * PAGE, 0)
def test_whatever_is_cut_is_read_as_it_was(size, seed):
    content = np.random.default_rng(seed).bytes(size)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("imgret.files.split_files.SHARD", 2 * PAGE)
        path = Path(folder) / "file.bin"
        path.write_bytes(content)
        cut(path)
        count = max(1, -(-size // (2 * PAGE)))
        assert [part.name for part in parts_of(path)] == ["file.bin", "file.bin.1", "file.bin.2"][:count]
        assert [part.stat().st_size for part in parts_of(path)[:-1]] == [2 * PAGE] * (count - 1)
        assert joined(path) == content
        whole = mapped(path)
        assert (whole.dtype, whole.shape) == (np.uint8, (size,))
        assert whole.tobytes() == content
        assert size == 0 or not whole.flags.writeable


def test_what_is_mapped_outlives_a_cut_in_its_place_and_then_its_memory_is_let_go_of(tmp_path, small_parts):
    path, draw = tmp_path / "file.bin", np.random.default_rng(0)
    older, newer = draw.bytes(5 * SMALL), draw.bytes(2 * SMALL + 1)

    def maps():
        return Path("/proc/self/maps").read_text().count(str(path))

    path.write_bytes(older)
    cut(path)
    whole = mapped(path)
    last = whole[-10:]
    assert maps() == 5
    (tmp_path / "new").write_bytes(newer)
    (tmp_path / "new").replace(path)
    cut(path)
    assert len(parts_of(path)) == 3
    assert mapped(path).tobytes() == newer
    assert whole.tobytes() == older
    del whole
    gc.collect()
    assert maps() == 5  # a piece of it keeps all of it
    assert last.tobytes() == older[-10:]
    del last
    gc.collect()
    assert maps() == 0


def test_pages_of_all_parts_are_forgotten_and_read_again(tmp_path, small_parts):
    path = tmp_path / "vectors.npy"
    vectors = picture_vectors(20)
    np.save(path, vectors)
    cut(path)

    def resident():
        found = Path("/proc/self/smaps").read_text()
        return sum(int(kb) for kb in re.findall(rf"{re.escape(str(path))}.*\n(?:.*\n)*?Rss: *(\d+) kB", found))

    array = open_array(path)
    assert (array == vectors).all()
    assert resident() * 1024 >= vectors.nbytes
    forget_pages(array)
    assert resident() == 0
    assert (array == vectors).all()


BROKEN = {
    "the first is missing": lambda path: path.unlink(),
    "one is missing": lambda path: path.with_name("file.bin.2").unlink(),
    "a number is odd": lambda path: path.with_name("file.bin.2").rename(path.with_name("file.bin.02")),
    "the first is short": lambda path: os.truncate(path, SMALL - PAGE),
    "the first is long": lambda path: os.truncate(path, 2 * SMALL),
    "one is short": lambda path: os.truncate(path.with_name("file.bin.1"), SMALL - 1),
    "the last is long": lambda path: os.truncate(path.with_name("file.bin.3"), SMALL + 1),
    "the last is empty": lambda path: os.truncate(path.with_name("file.bin.3"), 0),
}


@pytest.mark.parametrize("change", BROKEN)
def test_parts_that_make_no_file_are_refused(tmp_path, small_parts, change):
    path = tmp_path / "file.bin"
    path.write_bytes(bytes(3 * SMALL + 5))
    cut(path)
    BROKEN[change](path)
    with pytest.raises(FileNotFoundError if change == "the first is missing" else ValueError, match=r"file\.bin"):
        mapped(path)


def test_a_system_that_cannot_map_parts_as_one_says_so_and_maps_whole_files(tmp_path, small_parts, monkeypatch):
    monkeypatch.delattr(mmap, "PROT_READ")
    path = tmp_path / "file.bin"
    path.write_bytes(bytes(SMALL))
    cut(path)
    assert len(mapped(path)) == SMALL
    path.write_bytes(bytes(SMALL + 1))
    assert len(mapped(path)) == SMALL + 1  # a whole file of an earlier release
    cut(path)
    with pytest.raises(ValueError, match="2 parts, which this system cannot map"):
        mapped(path)


def test_a_pixel_index_in_parts_answers_as_one_in_memory_and_is_saved_anew_over_itself(tmp_path, small_parts):
    vectors = picture_vectors(60)
    index = PixelIndex.fit(vectors)
    index.save(tmp_path)
    assert len(parts_of(tmp_path / "vectors.npy")) > 2
    assert len(parts_of(tmp_path / "sketch.npy")) > 1
    loaded = PixelIndex.load(tmp_path)
    for metric in METRICS:
        for found, expected in zip(
            loaded.search(vectors[7], metric, 9), index.search(vectors[7], metric, 9), strict=True
        ):
            np.testing.assert_array_equal(found, expected)
    before = [path.stat().st_ino for path in sorted(tmp_path.iterdir())]
    loaded.save(tmp_path)
    assert [path.stat().st_ino for path in sorted(tmp_path.iterdir())] == before
    # A part of the matrix, saved where the matrix lies, is read from it meanwhile and leaves none of its parts.
    PixelIndex.fit(loaded.vectors[30:50]).save(tmp_path)
    assert (PixelIndex.load(tmp_path).vectors == vectors[30:50]).all()
    assert len(joined(tmp_path / "vectors.npy")) == 20 * 12288 + 128
    assert (loaded.vectors == vectors).all()


def test_an_index_in_parts_has_the_bytes_and_the_answers_of_the_one_in_whole_files(
    cut_folder, index_folder, retriever, cache, small_parts
):
    for name in CUT:
        assert len(parts_of(data_of(cut_folder) / name)) > 1
        assert max(part.stat().st_size for part in parts_of(data_of(cut_folder) / name)) == SMALL
        assert len(parts_of(data_of(index_folder) / name)) == 1
        if name != "pixels/sketch.npy":
            assert joined(data_of(cut_folder) / name) == joined(data_of(index_folder) / name)
    index = Index.open(cut_folder, cache=cache)
    cut_retriever = Retriever(index, cache=cache)
    for query in sorted(QUERIES.glob("*.webp")):
        for metric in METRICS:
            assert cut_retriever.by_pixels(query, metric, 20) == retriever.by_pixels(query, metric, 20)
    assert cut_retriever.by_clip(image=TIGER, k=3) == retriever.by_clip(image=TIGER, k=3)
    for row in range(len(index)):
        assert index.record(row) == retriever.index.record(row)
        assert index.thumbnail(row) == retriever.index.thumbnail(row)
    for found, expected in zip(index.map, retriever.index.map, strict=True):
        np.testing.assert_array_equal(found, expected)
    index.close()


def test_a_rebuild_takes_its_rows_from_the_parts_of_the_index_there_was(folder, tmp_path, retriever, cache):
    library = shutil.copytree(LIBRARY, tmp_path / "library")
    gone = sorted(library.rglob("*.webp"))[100].relative_to(library).as_posix()
    (library / gone).unlink()
    told = []

    def progress(stage, done, total):
        told.append(stage)

    index = build_index(ImageLibrary.load(library), folder, "starter", progress=progress, cache=cache)
    old = retriever.index
    rows = [row for row in range(len(old)) if old.record(row).id != gone]
    assert [index.record(row) for row in range(len(index))] == [old.record(row) for row in rows]
    assert (index.pixels.vectors == old.pixels.vectors[rows]).all()
    assert (index.embeddings == old.embeddings[rows]).all()
    assert [index.thumbnail(row) for row in range(len(index))] == [old.thumbnail(row) for row in rows]
    assert len(parts_of(data_of(folder) / "pixels/vectors.npy")) > 1
    index.close()


@pytest.mark.parametrize("name", CUT)
@pytest.mark.parametrize("whoever", ["the disk", "a stranger"])
@pytest.mark.parametrize("harm", ["missing", "short", "extra"])
def test_an_index_with_a_wrong_part_is_refused(folder, name, whoever, harm):
    first, *_, last = parts_of(data_of(folder) / name)
    if harm == "missing":
        first.with_name(f"{first.name}.1").unlink()
    elif harm == "short":
        os.truncate(first, SMALL // 2)
    else:
        os.truncate(last, SMALL)
        first.with_name(f"{first.name}.{len(parts_of(first))}").write_bytes(bytes(10))
    if whoever == "a stranger":  # who has the manifest say so, too
        signed(folder)
    if name == "thumbnails.bin" and (whoever, harm) == ("a stranger", "extra"):
        Index.open(folder).close()  # more than the records speak of is only never read
    else:
        assert "build it anew" in refused(folder)


PUBLISH_AND_FETCH = f"""
import json, sys
from pathlib import Path
import imgret.pixels.exact, imgret.files.split_files
imgret.files.split_files.SHARD, imgret.pixels.exact.SMALL_ROWS = {SMALL}, 0
from imgret import Index, Retriever
from imgret.hub import fetch, publish
publish(Path(sys.argv[1]), "org/index", create=True)
index = Index.open(fetch("org/index").folder, cache=Path(sys.argv[2]))
print(json.dumps([[hit.id, hit.score] for hit in Retriever(index).by_pixels(sys.argv[3], "l1", 5)]))
"""


def test_an_index_in_parts_goes_to_the_hub_and_comes_back(cut_folder, tmp_path, retriever, cache):
    with Hub() as hub:
        found = Client(hub, tmp_path / "home", cache).run(
            PUBLISH_AND_FETCH, cut_folder, cache, TIGER, token="can-write"
        )
        names = hub.repo("models", "org/index").files
    assert any(name.endswith("/pixels/vectors.npy.7") for name in names)
    assert found == [[hit.id, hit.score] for hit in retriever.by_pixels(TIGER, "l1", 5)]
