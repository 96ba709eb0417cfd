"""Equal and nearly equal pictures are found as groups, and pictures that only look alike are not."""

import json
import shutil
from contextlib import closing

import numpy as np
import pytest
from gradio_client import Client
from PIL import Image, ImageDraw, ImageEnhance, ImageOps

from imgret.build import build_index
from imgret.cli import main
from imgret.duplicates import DuplicateGroup, _largest, duplicates_of, find_duplicates, grouped, near_pairs
from imgret.images import load_image
from imgret.index import Index
from imgret.library import ImageLibrary
from imgret.search import Retriever
from tests.conftest import LIBRARY, serving


def cropped(image):
    x, y = round(0.05 * image.width), round(0.05 * image.height)
    return image.crop((x, y, image.width - x, image.height - y))


def framed(image):
    return ImageOps.expand(image, round(0.08 * max(image.size)), fill=(250, 250, 250))


VARIANTS = {
    "half.jpg": lambda image: image.resize((image.width // 2, image.height // 2)),
    "low.jpg": lambda image: image,
    "cropped.jpg": cropped,
    "bright.jpg": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "framed.jpg": framed,
}


@pytest.fixture(scope="module")
def folder(small_library, tmp_path_factory):
    """Forty pictures, a variant each of five of them, two exact copies of one, and the mirror image of another."""
    folder = shutil.copytree(small_library, tmp_path_factory.mktemp("twins") / "library")
    (folder / "made").mkdir()
    pictures = sorted(folder.rglob("*.webp"))
    for (name, vary), picture in zip(VARIANTS.items(), pictures[::6], strict=False):
        vary(load_image(picture)).save(folder / "made" / name, quality=30 if name == "low.jpg" else 90)
    shutil.copy(pictures[31], folder / "made" / "copy.webp")
    load_image(pictures[31]).save(folder / "made" / "lossless.png")
    ImageOps.mirror(load_image(pictures[33])).save(folder / "made" / "mirrored.png")
    return folder


@pytest.fixture(scope="module")
def index(folder, cache, tmp_path_factory):
    index = build_index(ImageLibrary.load(folder), tmp_path_factory.mktemp("twins") / "index", cache=cache)
    yield index
    index.close()


@pytest.fixture(scope="module")
def expected(folder):
    """The groups as they were made, by their first ids."""
    ids = [path.relative_to(folder).as_posix() for path in sorted(folder.rglob("*.webp"))]
    originals = [id for id in ids if not id.startswith("made/")]
    groups = [("near", {id, f"made/{name}"}) for name, id in zip(VARIANTS, originals[::6], strict=False)]
    return [*groups, ("exact", {originals[31], "made/copy.webp", "made/lossless.png"})]


def kinds_and_ids(groups):
    return sorted((group.kind, sorted(group.ids)) for group in groups)


def test_made_variants_are_grouped_with_their_pictures_and_nothing_else_is(index, expected):
    found = find_duplicates(index)
    assert kinds_and_ids(found) == sorted((kind, sorted(ids)) for kind, ids in expected)
    assert all(index.row_of(id) == row for group in found for id, row in zip(group.ids, group.rows, strict=True))


def test_a_mirror_image_is_found_where_it_is_asked_for(index, folder):
    original = sorted(path for path in folder.rglob("*.webp") if path.parent.name != "made")[33]
    pair = {original.relative_to(folder).as_posix(), "made/mirrored.png"}
    groups = [set(group.ids) for group in find_duplicates(index, mirrored=True)]
    assert pair in groups
    assert len(groups) == len(find_duplicates(index)) + 1


def test_groups_and_their_pictures_stand_in_the_order_of_the_index(index):
    groups = duplicates_of(index)
    assert [group.rows[0] for group in groups] == sorted(group.rows[0] for group in groups)
    assert all(list(group.rows) == sorted(group.rows) for group in groups)
    assert groups == find_duplicates(index) == find_duplicates(index)


def test_a_group_is_what_a_chain_of_pairs_connects(index):
    pairs = np.array([[4, 6], [1, 4], [2, 3]])
    assert grouped([*"abcdefg"], np.array([[2, 3]]), pairs) == (
        DuplicateGroup("near", ("b", "e", "g"), (1, 4, 6)),
        DuplicateGroup("exact", ("c", "d"), (2, 3)),
    )


def test_look_alikes_are_not_grouped(monkeypatch):
    """Flat pictures, pictures of the same layout with other things or colours, and noise of the same mean."""
    monkeypatch.setattr("imgret.duplicates.NEAREST", 20)  # each pair of them
    rng = np.random.default_rng(0)
    pictures = [Image.new("RGB", (64, 64), color) for color in ("white", "white", (250, 250, 250))]
    for color, box in (("red", (16, 16, 48, 48)), ("blue", (16, 16, 48, 48)), ("red", (12, 20, 52, 44))):
        picture = Image.new("RGB", (64, 64), "white")
        ImageDraw.Draw(picture).rectangle(box, fill=color)
        pictures.append(picture)
    sky = np.linspace(255, 60, 64)[:, None, None].repeat(64, 1).repeat(3, 2)
    for _ in range(4):  # the same sky above other grounds
        ground = rng.integers(0, 60, (64, 64, 3))
        pictures.append(Image.fromarray(np.clip(sky + ground, 0, 255).astype(np.uint8)))
    vectors = np.stack([np.asarray(picture).reshape(-1) for picture in pictures])
    alike = np.ones((len(vectors), 4), np.float32) / 2  # the encoder takes all of them for the same
    assert near_pairs(alike, vectors, 64).tolist() == []
    twice = np.concatenate([vectors, (vectors[-1:] * 0.9).astype(np.uint8)])
    found = near_pairs(np.ones((len(twice), 4), np.float32) / 2, twice, 64)
    assert found.tolist() == [[len(vectors) - 1, len(vectors)]]


def test_blocks_of_rows_find_the_same_pairs(index, monkeypatch):
    whole = near_pairs(index.embeddings, index.pixels.vectors, 64)
    assert len(whole) > 5
    monkeypatch.setattr("imgret.duplicates.BLOCK_BYTES", 7 * 4 * len(index))
    monkeypatch.setattr("imgret.duplicates.PAIRS", 5)
    assert (near_pairs(index.embeddings, index.pixels.vectors, 64) == whole).all()


def test_the_candidates_by_chunks_are_the_nearest_of_all(retriever):
    embeddings = np.asarray(retriever.index.embeddings)
    cosines = embeddings @ embeddings.T
    for count, k in ((545, 8), (545, 3), (448, 3), (65, 1), (9, 8)):
        found = np.take_along_axis(cosines[:, :count], _largest(cosines[:, :count], k), axis=1)
        np.testing.assert_array_equal(np.sort(found), np.sort(cosines[:, :count])[:, -k:])


@pytest.mark.parametrize("pictures", [1, 2])
def test_the_smallest_libraries_have_groups_or_none(pictures, tmp_path, cache):
    (tmp_path / "library").mkdir()
    for name in range(pictures):
        shutil.copy(next(LIBRARY.rglob("zebra.webp")), tmp_path / "library" / f"{name}.webp")
    with closing(build_index(ImageLibrary.load(tmp_path / "library"), tmp_path / "index", cache=cache)) as index:
        assert [group.ids for group in duplicates_of(index)] == [("0.webp", "1.webp")][: pictures - 1]


def test_the_index_keeps_the_groups_and_an_older_one_has_them_found(index, cache, monkeypatch):
    monkeypatch.setattr("imgret.duplicates.find_duplicates", lambda index: ("found",))
    assert duplicates_of(index) != ("found",)
    assert {group.kind for group in duplicates_of(index)} == {"exact", "near"}
    monkeypatch.setattr("imgret.index.MEASURES", "not-yet.json")
    older = Index.open(index.folder, cache=cache)
    assert older.duplicates is None
    assert duplicates_of(older) == ("found",)
    older.close()


def test_a_build_does_not_look_among_too_many_pictures(folder, cache, tmp_path, monkeypatch):
    monkeypatch.setattr("imgret.build.pipeline.MAX_PICTURES", 39)
    index = build_index(ImageLibrary.load(folder), tmp_path / "index", cache=cache)
    assert index.duplicates is None
    index.close()


def test_folded_hits_stand_for_their_groups_and_are_as_many_as_asked(index, folder, cache):
    retriever, query = Retriever(index, cache=cache), next(folder.rglob("lossless.png"))
    group = next(group for group in duplicates_of(index) if group.kind == "exact")
    for search in (retriever.by_pixels, retriever.by_clip):
        plain, folded = search(query, k=len(index)), search(query, k=5, fold=True)
        assert [hit.id in group.ids for hit in plain[:4]] == [True, True, True, False]
        assert all(hit.duplicates is None and "duplicates" not in hit.as_dict() for hit in plain)
        assert (folded[0].duplicates, folded[0].as_dict()["duplicates"]) == (2, 2)
        assert [hit.rank for hit in folded] == [1, 2, 3, 4, 5]
        of = {id: number for number, group in enumerate(duplicates_of(index)) for id in group.ids}
        best = {}
        for hit in plain:
            best.setdefault(of.get(hit.id, hit.id), hit.id)
        assert [hit.id for hit in folded] == [*best.values()][:5]
        everything = search(query, k=len(index), fold=True)
        assert len(everything) == len(best)
        assert sum(hit.duplicates + 1 for hit in everything) == len(index)
        itself = search(like=group.ids[0], k=3, fold=True)
        assert itself[0].id in group.ids[1:]
        assert group.ids[0] not in [hit.id for hit in itself]


def test_the_command_prints_a_paragraph_a_group_or_json(index, capsys):
    assert main(["duplicates", str(index.folder)]) == 0
    paragraphs = capsys.readouterr().out.split("\n\n")
    groups = duplicates_of(index)
    assert [paragraph.split() for paragraph in paragraphs] == [[f"{group.kind}:", *group.ids] for group in groups]
    assert main(["duplicates", str(index.folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "groups": [{"kind": group.kind, "ids": [*group.ids]} for group in groups]
    }
    assert main(["duplicates", str(index.folder), "--json", "--mirrored"]) == 0
    assert len(json.loads(capsys.readouterr().out)["groups"]) == len(groups) + 1


def test_the_command_folds_hits(index, folder, capsys):
    query = str(next(folder.rglob("lossless.png")))
    asked = ["search", str(index.folder), "--image", query, "-k", "3", "--fold"]
    assert main(asked) == 0
    assert [line.endswith("(+2)") for line in capsys.readouterr().out.splitlines()] == [True, False, False]
    assert main([*asked, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["hits"][0]["duplicates"] == 2
    assert main([*asked, "--csv"]) == 0
    header, first, *_ = capsys.readouterr().out.splitlines()
    assert header.endswith(",duplicates")
    assert first.endswith(",2")


def test_the_endpoint_answers_the_groups(index, cache, tmp_path):
    with serving(index.folder, cache, tmp_path) as demo:
        answer = Client(demo.address, verbose=False).predict(api_name="/duplicates")
    assert answer["groups"] == [{"kind": group.kind, "ids": [*group.ids]} for group in duplicates_of(index)]
    assert answer["notice"] is None
