"""Which index a start takes, and what it says when it cannot have the one it was asked for."""

import os
import shutil
import threading
import time

import pytest
from PIL import Image

from imgret import BuildError, ImageLibrary, LibraryError, build_index
from imgret.settings import EXAMPLE_LIBRARY, SPACE_ENCODER, SPACE_LIBRARY, Settings, SettingsError
from imgret.startup import ReadyIndex, Startup, StartupError, built_folder, prepare, prepare_in_steps
from tests.conftest import QUERIES


@pytest.fixture
def settings(small_library, cache):
    return Settings(library=str(small_library), pixel_size=16, cache=cache)


def test_defaults_on_a_laptop_need_no_network_and_on_a_space_are_the_course_s_model(monkeypatch):
    assert (Settings().library, Settings().encoder) == (EXAMPLE_LIBRARY, "starter")
    monkeypatch.setenv("SPACE_ID", "someone/space")
    assert (Settings().library, Settings().encoder) == (SPACE_LIBRARY, SPACE_ENCODER)
    monkeypatch.setenv("IMGRET_ENCODER", "starter")
    monkeypatch.setenv("IMGRET_SPLIT", "")
    assert (Settings().encoder, Settings().split) == ("starter", None)


def test_a_bad_variable_is_named(monkeypatch):
    monkeypatch.setenv("IMGRET_LIMIT", "-3")
    with pytest.raises(SettingsError, match="IMGRET_LIMIT is '-3'"):
        Settings.read()


def test_the_first_start_builds_and_the_second_opens(settings):
    first = prepare(settings)
    assert first.origin == "built now"
    first.retriever.index.close()
    before = (built_folder(settings) / "manifest.json").stat().st_mtime_ns
    second = prepare(settings)
    assert second.origin == "built here before"
    assert (built_folder(settings) / "manifest.json").stat().st_mtime_ns == before
    second.retriever.index.close()


def test_a_library_that_changed_is_built_again(settings, small_library, tmp_path):
    folder = shutil.copytree(small_library, tmp_path / "library")
    settings = settings.model_copy(update={"library": str(folder)})
    prepare(settings).retriever.index.close()
    next(folder.rglob("*.webp")).unlink()
    ready = prepare(settings)
    assert (ready.origin, len(ready.retriever.index)) == ("built now", 39)


def test_a_picture_replaced_by_one_of_the_same_size_is_seen_and_a_copy_is_not_built_again(settings, tmp_path):
    folder = tmp_path / "library"
    folder.mkdir()
    for name, colour in (("0", "red"), ("1", "green")):
        Image.new("RGB", (20, 20), colour).save(folder / f"{name}.bmp")
    settings = settings.model_copy(update={"library": str(folder)})
    prepare(settings).retriever.index.close()
    os.utime(folder / "0.bmp", (1, 1))
    again = prepare(settings)
    assert again.origin == "built here before"
    again.retriever.index.close()
    assert len(list((settings.cache / "unchanged").iterdir())) == 1
    Image.new("RGB", (20, 20), "blue").save(folder / "1.bmp")
    ready = prepare(settings)
    assert ready.origin == "built now"
    assert ready.retriever.by_pixels(folder / "1.bmp", k=1)[0].score == 0
    ready.retriever.index.close()
    kept = settings.model_copy(update={"index": str(built_folder(settings)), "cache": tmp_path / "other"})
    assert prepare(kept).origin == f"the folder {kept.index}"
    Image.new("RGB", (20, 20), "white").save(folder / "1.bmp")
    assert prepare(kept).origin == "built now"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({}, None),
        ({"limit": 10}, "limit"),
        ({"encoder": "ViT-B-32/random"}, "encoder starter, not ViT-B-32/random"),
        ({"library": "embedded"}, "other pictures"),
        ({"library": "org/elsewhere"}, "library"),
    ],
)
def test_a_configured_index_made_for_something_else_is_passed_over(
    change, why, settings, tmp_path, caplog, monkeypatch
):
    build_index(ImageLibrary.load(settings.library), tmp_path / "index", "starter", 16, cache=settings.cache).close()
    if change.get("library") == "embedded":
        change = {"library": EXAMPLE_LIBRARY}
    asked = settings.model_copy(update={"index": str(tmp_path / "index")} | change)
    # What comes after passing over is told elsewhere; here it only has to be reached.
    monkeypatch.setattr("imgret.startup.built_folder", lambda _: (_ for _ in ()).throw(LookupError("next choice")))
    if why is None:
        assert prepare(asked).origin == f"the folder {tmp_path / 'index'}"
    else:
        with pytest.raises(LookupError, match="next choice"):
            prepare(asked)
        assert why in caplog.text


def test_a_library_that_cannot_be_had_gives_the_embedded_one_and_says_so(cache, index_folder, monkeypatch):
    ready = prepare(Settings(library="nobody/nothing", index="nobody/index", cache=cache))
    assert ready.retriever.index.manifest.library.source == EXAMPLE_LIBRARY
    assert "embedded library" in ready.notice
    assert "nobody/nothing" in ready.notice


def test_the_first_pictures_can_be_searched_while_the_rest_is_indexed(settings, monkeypatch):
    monkeypatch.setattr("imgret.startup.FIRST", 10)
    settings = settings.model_copy(update={"pixel_size": 17})
    steps = prepare_in_steps(settings)
    first = next(steps)
    assert "These are 10 pictures of the library, which is still being indexed" in first.notice
    assert len(first.retriever.by_pixels(QUERIES / "tiger.webp", k=99)) == 10
    assert len(first.retriever.by_clip(text="a bird", k=99)) == 10
    steps.close()  # as a kill would: what is there must not be taken for the whole
    again = list(prepare_in_steps(settings))
    assert [len(ready.retriever.index) for ready in again] == [10, 40]
    assert (again[-1].origin, again[-1].notice) == ("built now", None)
    assert len(again[-1].retriever.by_clip(text="a bird", k=99)) == 40


def test_a_start_hands_out_the_first_pictures_and_then_the_whole(retriever):
    go_on = threading.Event()

    def prepare(progress):
        yield ReadyIndex(retriever, "being built", "a part")
        go_on.wait()
        yield ReadyIndex(retriever, "built now")

    start = Startup(prepare)
    assert (start.wait().notice, start.done) == ("a part", False)
    go_on.set()
    while not start.done:
        time.sleep(0.01)
    assert start.wait().origin == "built now"


def test_what_was_indexed_stays_when_the_rest_cannot_be(settings, monkeypatch):
    monkeypatch.setattr("imgret.startup.FIRST", 10)
    settings = settings.model_copy(update={"pixel_size": 18})
    steps = prepare_in_steps(settings)
    next(steps)

    def breaks_off(*_, **__):
        raise LibraryError("The data set breaks off.")

    monkeypatch.setattr("imgret.startup.build_index", breaks_off)
    (last,) = steps
    assert len(last.retriever.index) == 10
    assert last.notice == "This is all of the library that could be indexed. The data set breaks off."


def test_everybody_waits_for_the_start_and_hears_why_it_failed():
    heard = []

    def prepare(progress):
        progress("pictures", 3, 9)
        time.sleep(0.5)
        raise BuildError("The disk is full.")

    start = Startup(prepare)
    with pytest.raises(StartupError, match="The disk is full"):
        start.wait(lambda *stage: heard.append(stage))
    assert ("pictures", 3, 9) in heard
