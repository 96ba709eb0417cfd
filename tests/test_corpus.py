"""What nobody sends by mistake becomes a picture or one sentence, in little memory and time; alone and in a library."""

import os
import subprocess
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from imgret import ImageLibrary, Retriever, build_index
from tests import corpus
from tests.conftest import QUERIES, ROOT


def test_every_kind_of_bad_picture_is_taken_or_refused_within_bounds():
    done = subprocess.run(
        [sys.executable, "-m", "tests.corpus", "--sample"], cwd=ROOT, capture_output=True, text=True, timeout=600
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 not as they should be" in done.stdout


@pytest.fixture(scope="module")
def bad():
    """A few inputs of every kind, each once, by name."""
    quick = (given for given in corpus.sample() if given.kind != "bomb" or "exif" in given.name)
    return {given.name: given.make() for number, given in enumerate(quick) if number % 9 == 0}


def test_a_library_of_bad_pictures_is_built_and_searched_and_says_what_it_left_out(bad, tmp_path, cache):
    folder = tmp_path / "library"
    for number, (name, data) in enumerate(bad.items()):
        path = folder / ("one", b"\xfftwo".decode("utf-8", "surrogateescape"))[number % 2] / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    good = corpus.encoded(corpus.picture(), "PNG")
    for name in corpus.NAMES:
        (folder / "one" / name).write_bytes(good)

    os.mkfifo(folder / "one" / "pipe.png")
    (folder / "one" / "link.png").symlink_to("/etc/hostname")
    (folder / "one" / "round.png").symlink_to("round.png")
    expected = {name for name, data in bad.items() if corpus.take(data)[0] == "picture"}

    index = build_index(ImageLibrary.load(folder), tmp_path / "index", "starter", cache=cache)
    ids = index.column("id")
    assert {Path(id).stem for id in ids} >= expected
    assert len(ids) == len(expected) + len(corpus.NAMES)
    skipped = dict(index.manifest.skipped)
    assert index.manifest.skipped_count == len(skipped) == len(bad) - len(expected) + 3
    assert "outside of the library" in skipped["one/link.png"]
    assert all(reason and "\n" not in reason for reason in skipped.values())
    hits = Retriever(index, cache=cache).by_pixels(QUERIES / "tiger.webp", k=len(corpus.NAMES))
    assert {Path(hit.id).name for hit in hits} & set(corpus.NAMES[:5])
    index.close()


def test_hostile_rows_of_a_data_set_reach_only_our_decoder_and_no_file_of_this_machine(bad, tmp_path, monkeypatch):
    good, private = corpus.encoded(corpus.picture(), "PNG"), tmp_path / "private.png"
    private.write_bytes(good)
    (tmp_path / "shared").mkdir()
    rows = [{"bytes": data, "path": None} for data in [good, *list(bad.values())[:30], None]]
    rows += [{"bytes": None, "path": str(private)}, {"bytes": None, "path": "../private.png"}]
    table = pa.table({"image": pa.array(rows, pa.struct({"bytes": pa.binary(), "path": pa.string()}))})
    pq.write_table(table, tmp_path / "shared" / "rows.parquet")

    def decoded(*_):
        raise AssertionError("datasets decoded a picture")

    monkeypatch.setattr(datasets.Image, "decode_example", decoded)
    library = ImageLibrary.load(tmp_path / "shared" / "rows.parquet")
    records = list(library)
    assert records[0].image.size == corpus.picture().size
    assert len(records) + len(library.skipped) == len(rows)
    assert [name for name, _ in library.skipped][-3:] == [str(number) for number in range(len(rows) - 3, len(rows))]


def test_a_file_above_the_limit_is_not_read(tmp_path):
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(10**12)  # a sparse file: reading it would take more memory than there is
    (tmp_path / "good.png").write_bytes(corpus.encoded(corpus.picture(), "PNG"))
    library = ImageLibrary.load(tmp_path)
    assert [record.id for record in library] == ["good.png"]
    ((name, reason),) = library.skipped
    assert name == "large.png"
    assert "at most 32 MB" in reason
