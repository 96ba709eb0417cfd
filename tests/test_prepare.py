"""Own pictures become train and test of the course, and are searched for as held-out queries."""

import json
import shutil
import unicodedata
from dataclasses import asdict
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from PIL import Image

from imgret import ImageLibrary, Retriever, build_index, load_image
from imgret.evaluate import PRECISIONS, EvaluationError, evaluate_held_out
from imgret.held_out import spread
from imgret.images import pixel_vector
from imgret.index import Index
from imgret.metrics import METRICS, best_first
from imgret.prepare import PrepareError, prepare_folder
from tests.browser import open_browser
from tests.conftest import LIBRARY, serving
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
    printed = imgret("evaluate", tmp_path / "index", "--queries", tmp_path / "test", "--method", "l1", "--json")
    answer = json.loads(printed.stdout)
    assert answer["held_out"]["methods"]["l1"] == pytest.approx(found.methods["l1"])
    assert list(answer["methods"]) == ["l1"]
    with pytest.raises(EvaluationError, match="has a label of the index"):
        evaluate_held_out(retriever, ImageLibrary.load(LIBRARY / "food"))


def test_the_test_split_of_a_folder_is_measured_kept_and_shown_by_the_build(prepared, cache, tmp_path):
    source = tmp_path / "data"
    shutil.copytree(prepared[1], source)
    library = ImageLibrary.load(source)
    assert [entry.id for entry in library.held_out.entries()] == [*prepared[0].test]
    index = build_index(library, tmp_path / "index", "starter", 16, cache=cache)
    found = index.evaluation["held_out"]
    assert found == asdict(evaluate_held_out(Retriever(index, cache=cache), library.held_out))
    assert [picture.id for picture in index.held_out] == [*prepared[0].test]
    for picture in index.held_out:
        shown, original = load_image(picture.picture), load_image(source / "test" / picture.id)
        assert max(shown.size) == min(512, max(original.size))
        assert np.abs(pixel_vector(shown, 8).astype(int) - pixel_vector(original, 8)).mean() < 3
    printed = imgret("evaluate", tmp_path / "index", "--json").stdout
    assert json.loads(printed)["held_out"]["methods"] == found["methods"]
    assert build_index(ImageLibrary.load(source), tmp_path / "index", "starter", 16, cache=cache).manifest.data == (
        index.manifest.data
    )
    (source / "test" / prepared[0].test[0]).unlink()
    index = build_index(ImageLibrary.load(source), tmp_path / "index", "starter", 16, cache=cache)
    assert (len(index.held_out), index.evaluation["held_out"]["queries"]) == (1, 1)
    assert ImageLibrary.load(source, split="test").held_out is None
    assert ImageLibrary.load(source / "train").held_out is None


def test_a_build_takes_queries_from_another_folder(prepared, cache, tmp_path):
    out = prepared[1]
    printed = imgret("build", out / "train", "--out", tmp_path / "index", "--queries", out, "--pixel-size", 16).stdout
    assert "held out: 2 queries; 0 more" in printed
    assert len(Index.open(tmp_path / "index", cache=cache).held_out) == 2
    missing = imgret("evaluate", tmp_path / "index", "--queries", tmp_path / "none", code=2)
    assert "no folder" in missing.stderr
    unknown = tmp_path / "other" / "unknown"
    unknown.mkdir(parents=True)
    shutil.copy(next(out.rglob("*.webp")), unknown)
    printed = imgret(
        "build", out / "train", "--out", tmp_path / "b", "--queries", tmp_path / "other", "--pixel-size", 16
    )
    assert "no picture has a label of the library" in printed.stdout


def test_examples_are_spread_over_the_labels():
    labels = [("a",)] * 30 + [("b",)] * 2 + [("c",)]
    assert spread(labels, 5) == [0, 1, 30, 31, 32]
    assert spread(labels, 7) == [0, 1, 2, 3, 30, 31, 32]
    assert spread(labels, 100) == list(range(33))


def test_the_page_shows_the_held_out_pictures_as_examples(prepared, cache, tmp_path):
    build_index(ImageLibrary.load(prepared[1]), tmp_path / "index", "starter", 16, cache=cache).close()
    first = sorted(prepared[0].test)[0]
    with serving(tmp_path / "index", cache, tmp_path) as served, open_browser() as browser:
        page = browser.new_page(locale="en")
        page.goto(f"{served.address}/?tab=clip&method=clip-l1&example={first}")
        page.locator("#clip-hits img").first.wait_for()
        assert page.locator("#example-gallery .thumbnail-item").count() == 2
        page.locator("#example-gallery .thumbnail-item").nth(1).click()
        page.wait_for_function("first => !window.location.search.includes(encodeURIComponent(first))", arg=first)
        second = parse_qs(urlsplit(page.url).query)["example"]
        assert second == [sorted(prepared[0].test)[1]]
        assert parse_qs(urlsplit(page.url).query)["method"] == ["clip-l1"]
        page.get_by_role("tab", name="Library").click()
        page.get_by_text("2 pictures that are not in the library").wait_for()
        rows = page.locator("#evaluation-held-out").get_by_role("row", name="CLIP").first.inner_text().split()
        assert len(rows) == 5
        for path in (cache / "shown").glob("*-held-out-*"):
            path.unlink()  # as a sweep may; the next visitor's is written again
        page.reload()
        page.locator("#example-gallery img").first.wait_for()
        loaded = "() => [...document.querySelectorAll('#example-gallery img')].every(img => img.naturalWidth > 0)"
        page.wait_for_function(loaded)
        page.close()


def test_the_command_says_what_it_left_out(own, cache, tmp_path):
    printed = imgret("prepare", own, "--out", tmp_path / "data", "--test", 0.1).stdout
    assert "21 pictures in train, 2 in test" in printed
    assert "left out, a side below 50 pixels: 1: cats/tiny.png" in printed
    assert "left out, cannot be decoded: 1: cats/broken.png" in printed
    answer = json.loads(imgret("prepare", own, "--out", tmp_path / "json", "--test", 0.1, "--json").stdout)
    assert len(answer["duplicates"]) == 2
