"""Own pictures become train and test of the course, and are searched for as held-out queries."""

import json
import shutil
import unicodedata

import numpy as np
import pytest
from PIL import Image

from imgret import ImageLibrary, Retriever, build_index, load_image
from imgret.evaluate import PRECISIONS, EvaluationError, evaluate_held_out
from imgret.images import pixel_vector
from imgret.metrics import METRICS, best_first
from imgret.prepare import PrepareError, prepare_folder
from tests.conftest import LIBRARY
from tests.test_check import imgret


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """Three classes of 12, 10 and 1 pictures, and what should be left out."""
    folder = tmp_path_factory.mktemp("own") / "pictures"
    for name, label, count in (
        ("cats", "animals/mammals", 12),
        ("birds", "animals/birds", 10),
        ("one", "food/fruit", 1),
    ):
        (folder / name).mkdir(parents=True)
        for path in sorted((LIBRARY / label).rglob("*.webp"))[:count]:
            shutil.copy(path, folder / name / path.name)
    first = sorted((folder / "cats").iterdir())[0]
    shutil.copy(first, folder / "birds" / "z_copy.webp")
    load_image(first).resize((150, 150)).save(folder / "cats" / "z_smaller.jpg")
    Image.new("RGB", (300, 49), "red").save(folder / "cats" / "tiny.png")
    (folder / "cats" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n nothing")
    Image.new("RGB", (90, 90), "blue").save(folder / "loose.png")
    return folder


def files_of(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def prepared(own, cache, tmp_path_factory):
    out = tmp_path_factory.mktemp("prepared") / "data"
    return prepare_folder(own, out, test=0.1, cache=cache), out


def test_bad_tiny_and_repeated_pictures_are_left_out_and_the_source_stays(own, prepared):
    found, out = prepared
    before = files_of(own)
    first = sorted(name for name in before if name.startswith("cats/") and name.endswith(".webp"))[0]
    assert [id for id, _ in found.undecodable] == ["cats/broken.png"]
    assert found.small == ("cats/tiny.png",)
    assert found.unclassed == ("loose.png",)
    assert {id for id, _ in found.duplicates} | {kept for _, kept in found.duplicates} == {
        "birds/z_copy.webp",
        "cats/z_smaller.jpg",
        first,
    }
    assert len(found.train) + len(found.test) == 23
    kept = files_of(out)
    assert set(kept) == {*(f"train/{id}" for id in found.train), *(f"test/{id}" for id in found.test)}
    assert all(data == before[name.partition("/")[2]] for name, data in kept.items())


def test_the_split_is_by_class_and_the_same_each_time(own, prepared, cache, tmp_path):
    found, _ = prepared
    by_class = [id.split("/")[0] for id in found.test]
    assert sorted(by_class) == ["birds", "cats"]  # of twelve and of ten one each, of one none
    assert "one" in {id.split("/")[0] for id in found.train}
    assert prepare_folder(own, tmp_path / "again", test=0.1, cache=cache) == found
    other = prepare_folder(own, tmp_path / "other", test=0.1, seed=3, cache=cache)
    assert other.test != found.test
    assert sorted(other.train + other.test) == sorted(found.train + found.test)
    assert not prepare_folder(own, tmp_path / "none", test=0, cache=cache).test


def test_what_cannot_be_prepared_is_a_sentence_and_leaves_nothing(own, cache, tmp_path, monkeypatch):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for out, options, said in (
        (tmp_path / "full", {}, "is there already"),
        (own / "data", {}, "not to be changed"),
        (tmp_path / "out", {"test": 1}, "from 0 to below 1"),
        (tmp_path / "out", {"min_side": -1}, "at least 0"),
        (tmp_path / "out", {"min_side": 5000}, "No picture of"),
    ):
        with pytest.raises(PrepareError, match=said):
            prepare_folder(own, out, cache=cache, **options)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("imgret.prepare.shutil.copyfile", full)
    with pytest.raises(PrepareError, match="No space left"):
        prepare_folder(own, tmp_path / "out", cache=cache)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


def test_names_and_tables_of_a_folder_stay_as_they_are(own, cache, tmp_path):
    source = tmp_path / "source"
    pictures = sorted((own / "cats").glob("*.webp"))[:8]
    decomposed = unicodedata.normalize("NFD", "mèo")
    for folder, some in ((decomposed, pictures[:4]), ("chó", pictures[4:])):
        (source / folder).mkdir(parents=True)
        for number, path in enumerate(some):
            shutil.copy(path, source / folder / unicodedata.normalize("NFD", f"ảnh {number}.webp"))
    (source / "metadata.csv").write_text(f"file_name,label\n{decomposed}/none.webp,other\n", encoding="utf-8")
    found = prepare_folder(source, tmp_path / "data", test=0.25, cache=cache)
    assert len(found.train) == 6
    classes = sorted(unicodedata.normalize("NFC", name.split("/")[0]) for name in found.test)
    assert classes == ["chó", "mèo"]
    assert found.other == ("metadata.csv",)
    assert set(files_of(tmp_path / "data")) == {
        *(f"train/{id}" for id in found.train),
        *(f"test/{id}" for id in found.test),
    }


def test_a_folder_that_is_split_already_is_refused(own, cache, tmp_path):
    for part in ("train", "test"):
        shutil.copytree(own / "birds", tmp_path / "source" / part / "birds")
    with pytest.raises(PrepareError, match="split already"):
        prepare_folder(tmp_path / "source", tmp_path / "data", cache=cache)
    assert prepare_folder(tmp_path / "source" / "train", tmp_path / "data", cache=cache).train
    (tmp_path / "empty").mkdir()
    with pytest.raises(PrepareError, match="no pictures"):
        prepare_folder(tmp_path / "empty", tmp_path / "more", cache=cache)


def test_held_out_queries_are_measured_as_their_definitions_say(prepared, cache, tmp_path):
    _, out = prepared
    index = build_index(ImageLibrary.load(out / "train"), tmp_path / "index", "starter", 16, cache=cache)
    retriever, labels = Retriever(index, cache=cache), index.column("label")
    shutil.copytree(out / "test", tmp_path / "test")
    (tmp_path / "test" / "unseen").mkdir()
    shutil.copy(next(LIBRARY.rglob("*.webp")), tmp_path / "test" / "unseen" / "x.webp")
    found = evaluate_held_out(retriever, ImageLibrary.load(tmp_path / "test"))
    assert (found.queries, found.unknown) == (2, 1)
    assert list(found.methods) == [*METRICS, "clip"]
    for metric in METRICS:
        rows = []
        for path in sorted((out / "test").rglob("*.*")):
            order = best_first(METRICS[metric](pixel_vector(load_image(path), 16), index.pixels.vectors), metric)
            right = np.array([labels[row] == path.parent.name for row in order])
            at = np.flatnonzero(right)
            rows.append([*(right[:k].mean() for k in PRECISIONS), np.mean((np.arange(len(at)) + 1) / (at + 1))])
        np.testing.assert_allclose(list(found.methods[metric].values()), np.mean(rows, axis=0))
    printed = imgret("evaluate", tmp_path / "index", "--held-out", tmp_path / "test", "--method", "l1", "--json")
    answer = json.loads(printed.stdout)
    assert answer["held_out"]["methods"]["l1"] == pytest.approx(found.methods["l1"])
    assert list(answer["methods"]) == ["l1"]
    with pytest.raises(EvaluationError, match="has a label of the index"):
        evaluate_held_out(retriever, ImageLibrary.load(LIBRARY / "food"))


def test_the_command_says_what_it_left_out(own, cache, tmp_path):
    printed = imgret("prepare", own, "--out", tmp_path / "data", "--test", 0.1).stdout
    assert "21 pictures in train, 2 in test" in printed
    assert "left out, a side below 50 pixels: 1: cats/tiny.png" in printed
    assert "left out, cannot be decoded: 1: cats/broken.png" in printed
    answer = json.loads(imgret("prepare", own, "--out", tmp_path / "json", "--test", 0.1, "--json").stdout)
    assert len(answer["duplicates"]) == 2
