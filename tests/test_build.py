"""An index is the whole of its library or what it was before; nothing is computed twice or left lying about."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgret import BuildError, ImageLibrary, Index, InvalidIndexError, Retriever, build_index, load_encoder
from imgret.evaluate import evaluate
from imgret.images import load_image, pixel_vector
from imgret.projection import locate


class CountingEncoder:
    """The real starter, counting the pictures that go through its tower; its towers are not for the index."""

    folder = None

    def __init__(self, cache):
        self._encoder = load_encoder("starter", cache=cache)
        self.pictures = 0
        self.texts = 0

    def __getattr__(self, name):
        return getattr(self._encoder, name)

    def embed_preprocessed(self, pixels):
        self.pictures += len(pixels)
        return self._encoder.embed_preprocessed(pixels)

    def embed_texts(self, texts):
        self.texts += len(texts)
        return self._encoder.embed_texts(texts)


@pytest.fixture
def encoder(cache):
    return CountingEncoder(cache)


@pytest.fixture
def library(small_library, tmp_path):
    return shutil.copytree(small_library, tmp_path / "library")


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_the_index_holds_what_the_library_has(small_library, tmp_path, encoder, cache):
    library = ImageLibrary.load(small_library)
    index = build_index(library, tmp_path / "index", encoder, 32, cache=cache)
    records = list(library)
    assert len(index) == len(records) == 40
    for row, record in enumerate(records):
        assert index.record(row) == record
        assert index.row_of(record.id) == row
        assert (index.pixels.vectors[row] == pixel_vector(record.image, 32)).all()
        assert max(load_image(index.thumbnail(row)).size) <= 256
    np.testing.assert_allclose(index.embeddings, encoder.embed_images([r.image for r in records]), atol=1e-5)
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert manifest["count"] == 40
    assert manifest["encoder"]["uri"] == "starter"
    assert manifest["library"]["source"] == str(small_library)
    assert manifest["recall"]["queries"] >= 200
    assert manifest["recall"]["recall"] >= 0.99
    files = [path for path in (tmp_path / "index").rglob("*") if path.is_file()]
    assert len(files) <= 20
    assert set(manifest["files"]) == {path.relative_to(tmp_path / "index").as_posix() for path in files} - {
        "manifest.json"
    }


def test_the_index_keeps_the_figures_of_its_evaluation(library, tmp_path, encoder, cache):
    pictures = sorted(path.relative_to(library).as_posix() for path in library.rglob("*.webp"))
    rows = [f"{picture},{picture.split('/')[0]},{Path(picture).stem}" for picture in pictures]
    (library / "metadata.csv").write_text("\n".join(["file_name,label,caption", *rows]))
    build_index(ImageLibrary.load(library), tmp_path / "index", encoder, cache=cache).close()
    assert encoder.texts == 40  # each caption once, for the evaluation and for the calibration, by the encoder given
    index = Index.open(tmp_path / "index", cache=cache)
    assert index.evaluation == asdict(evaluate(Retriever(index, cache=cache)))
    assert f"{index.manifest.data}/measures.json" in index.manifest.files
    build_index(ImageLibrary.load(library), tmp_path / "index", encoder, cache=cache).close()
    assert (encoder.pictures, encoder.texts) == (40, 40)


def test_a_library_without_labels_and_captions_has_no_evaluation(library, tmp_path, encoder, cache):
    (tmp_path / "flat").mkdir()
    for path in library.rglob("*.webp"):
        shutil.copy(path, tmp_path / "flat")
    index = build_index(ImageLibrary.load(tmp_path / "flat"), tmp_path / "index", encoder, cache=cache)
    assert index.evaluation is None


def test_building_again_adds_what_the_index_of_an_earlier_release_lacks(library, tmp_path, encoder, cache, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr("imgret.index.MAP", "not-yet.npy")
        earlier.setattr("imgret.index.MEASURES", "not-yet.json")
        build_index(ImageLibrary.load(library), tmp_path / "index", encoder, cache=cache).close()
    old = Index.open(tmp_path / "index", cache=cache)
    assert (old.map, old.evaluation, old.duplicates, dict(old.calibration)) == (None, None, None, {})
    assert Retriever(old, cache=cache).by_pixels(like=old.record(0).id)[0].p is None
    assert locate(old, old.embeddings[0]) is None
    old.close()
    new = build_index(ImageLibrary.load(library), tmp_path / "index", encoder, cache=cache)
    assert new.evaluation["queries"] == 40
    assert new.duplicates == ()
    assert new.calibration["l2"]["rows"] == list(range(40))
    assert (new.map[0] == np.arange(40)).all()
    assert encoder.pictures == 40


def test_a_second_build_embeds_only_what_changed(library, tmp_path, encoder, cache):
    build_index(ImageLibrary.load(library), tmp_path / "index", encoder, cache=cache).close()
    assert encoder.pictures == 40
    first = sorted(library.rglob("*.webp"))[0]
    Image.new("RGB", (50, 40), "purple").save(first)
    sorted(library.rglob("*.webp"))[5].unlink()
    shutil.copy(sorted(library.rglob("*.webp"))[7], library / "twin.webp")
    index = build_index(ImageLibrary.load(library), tmp_path / "index", encoder, cache=cache)
    assert encoder.pictures == 41  # the purple one; the twin's content is known
    assert len(index) == 40
    assert index.record(index.row_of(first.relative_to(library).as_posix())).width == 50
    fresh = build_index(ImageLibrary.load(library), tmp_path / "fresh", encoder, cache=cache)
    assert (fresh.pixels.vectors == index.pixels.vectors).all()
    np.testing.assert_allclose(fresh.embeddings, index.embeddings, atol=1e-5)
    assert len([path for path in (tmp_path / "index").iterdir() if path.name.startswith("data-")]) == 1


def test_building_again_without_a_change_touches_nothing_but_the_manifest(library, tmp_path, encoder, cache):
    build_index(ImageLibrary.load(library), tmp_path / "index", encoder, cache=cache).close()
    before = contents(tmp_path / "index")
    build_index(ImageLibrary.load(library), tmp_path / "index", encoder, cache=cache).close()
    after = contents(tmp_path / "index")
    before.pop("manifest.json"), after.pop("manifest.json")
    assert after == before
    assert encoder.pictures == 40


def test_searching_writes_nothing_into_the_index(library, tmp_path, encoder, cache):
    index = build_index(ImageLibrary.load(library), tmp_path / "index", encoder, cache=cache)
    before = contents(tmp_path / "index")
    retriever = Retriever(index, cache=cache)
    picture = next(library.rglob("*.webp"))
    retriever.by_clip(image=picture)
    retriever.by_pixels(picture, "correlation")
    index.close()
    assert contents(tmp_path / "index") == before


def test_rows_that_are_no_pictures_are_listed_and_the_rest_is_there(library, tmp_path, encoder, cache):
    broken = sorted(library.rglob("*.webp"))[3]
    broken.write_bytes(broken.read_bytes()[:200])
    (library / "page.jpg").write_text("<html>")
    index = build_index(ImageLibrary.load(library), tmp_path / "index", encoder, cache=cache)
    assert len(index) == 39
    assert index.manifest.skipped_count == 2
    assert {name for name, _ in index.manifest.skipped} == {"page.jpg", broken.relative_to(library).as_posix()}


BUILD = "import sys; from imgret.cli import main; sys.exit(main(sys.argv[1:]))"


def test_kill_at_ten_moments_of_a_build_never_breaks_an_index_nor_loses_a_picture(small_library, tmp_path, cache):
    """Builds over an older index of half the pictures; each kill must leave the old index or the new one."""
    half = tmp_path / "library"
    shutil.copytree(small_library, half)
    for path in sorted(half.rglob("*.webp"))[::2]:
        path.unlink()
    folder = tmp_path / "index"
    environment = os.environ | {"IMGRET_CACHE": str(cache), "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", BUILD, "build", str(half), "--out", str(folder), "--pixel-size", "32"]

    started = time.monotonic()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    whole = time.monotonic() - started
    old = Index.open(folder, cache=cache).manifest
    shutil.copytree(small_library, half, dirs_exist_ok=True)

    draw = np.random.default_rng(int(time.time()))
    outcomes = []
    for _ in range(10):
        build = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(0.3, whole))
        build.send_signal(signal.SIGKILL)
        build.wait()
        index = Index.open(folder, cache=cache)
        outcomes.append(index.manifest.count)
        assert index.manifest.count in (old.count, 40)
        assert len(Retriever(index, cache=cache).by_pixels(next(half.rglob("*.webp")), k=1000)) == index.manifest.count
        index.close()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    index = Index.open(folder, cache=cache)
    assert len(index) == 40
    assert sorted(index.column("id")) == sorted(path.relative_to(half).as_posix() for path in half.rglob("*.webp"))
    assert [path.name for path in folder.iterdir() if path.name not in ("manifest.json", index.manifest.data)] == []


def test_a_build_that_was_cut_off_is_resumed(small_library, tmp_path, encoder, cache):
    class Cut(Exception):
        pass

    def cut(stage, done, total):
        if stage == "assemble":
            raise Cut

    with pytest.raises(Cut):
        build_index(ImageLibrary.load(small_library), tmp_path / "index", encoder, progress=cut, cache=cache)
    assert encoder.pictures == 40
    with pytest.raises(InvalidIndexError, match="no finished index"):
        Index.open(tmp_path / "index")
    assert len(build_index(ImageLibrary.load(small_library), tmp_path / "index", encoder, cache=cache)) == 40
    assert encoder.pictures == 40


@pytest.mark.parametrize("damage", ["truncate", "empty", "remove", "manifest", "newer", "traversal", "half"])
def test_a_folder_that_cannot_be_trusted_is_refused_in_one_sentence(damage, index_folder, tmp_path):
    folder = shutil.copytree(index_folder, tmp_path / "index")
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    data = folder / manifest["data"]
    if damage == "truncate":
        os.truncate(data / "pixels" / "vectors.npy", 1000)
    elif damage == "empty":
        (data / "chroma" / "chroma.sqlite3").write_bytes(b"")
    elif damage == "remove":
        (data / "records.arrow").unlink()
    elif damage == "manifest":
        path.write_text(path.read_text()[:300])
    elif damage == "newer":
        path.write_text(json.dumps(manifest | {"format": 99}))
    elif damage == "traversal":
        path.write_text(json.dumps(manifest | {"data": "../../etc"}))
    else:
        path.unlink()
    with pytest.raises(InvalidIndexError) as refusal:
        Index.open(folder)
    assert str(folder) in str(refusal.value)
    assert str(refusal.value).count("\n") == 0


def test_what_cannot_be_built_says_why_and_leaves_the_folder_alone(tmp_path, small_library, encoder, cache):
    library = ImageLibrary.load(small_library)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(BuildError, match="holds other files"):
        build_index(library, tmp_path / "mine", encoder, cache=cache)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["thesis.txt"]
    with pytest.raises(BuildError, match="is a file"):
        build_index(library, tmp_path / "mine" / "thesis.txt", encoder, cache=cache)
    with pytest.raises(BuildError, match="pixel size"):
        build_index(library, tmp_path / "index", encoder, 0, cache=cache)
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "a.png").write_bytes(b"no")
    with pytest.raises(BuildError, match="no picture that can be used; 1 were skipped"):
        build_index(ImageLibrary.load(tmp_path / "bad"), tmp_path / "index", encoder, cache=cache)
