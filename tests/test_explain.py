"""A reason adds up to the score, and points at what makes the pictures alike."""

import shutil

import numpy as np
import pytest
from PIL import Image

from imgret import ImageLibrary, Retriever, SearchError, build_index
from imgret.explain import explain_clip, explain_pixels, heat_map
from imgret.images import load_image, pixel_vector
from imgret.metrics import METRICS
from tests.conftest import LIBRARY, QUERIES

FLOWER = LIBRARY / "plants" / "flowers" / "rose.webp"
FLATS = {"black.png": (0, 0, 0), "grey.png": (77, 77, 77), "purple.png": (120, 10, 200)}


@pytest.fixture(scope="module")
def corner(small_library, tmp_path_factory, cache):
    """A library of forty pictures, three of one colour, and a flower in the lower left corner of a white canvas."""
    folder = shutil.copytree(small_library, tmp_path_factory.mktemp("explain") / "library")
    for name, colour in FLATS.items():
        Image.new("RGB", (30, 20), colour).save(folder / name)
    canvas = Image.new("RGB", (256, 256), "white")
    canvas.paste(load_image(FLOWER).resize((96, 96)), (0, 160))
    canvas.save(folder / "corner.png")
    index = build_index(ImageLibrary.load(folder), folder.parent / "index", "starter", 32, cache=cache)
    yield Retriever(index, cache=cache)
    index.close()


def some_queries():
    flats = [Image.new("RGB", (5, 7), colour) for colour in FLATS.values()]
    return [*sorted(QUERIES.glob("*.webp"))[:3], *flats]


@pytest.mark.parametrize("metric", METRICS)
def test_the_terms_add_up_to_the_score_of_the_search(corner, metric):
    ids = ["black.png", "grey.png", "purple.png", *corner.index.column("id")[::10]]
    for query in some_queries():
        searched = {hit.id: hit.score for hit in corner.by_pixels(query, metric, len(corner.index))}
        for id in ids:
            reason = explain_pixels(corner, query, id, metric)
            assert reason.score == pytest.approx(searched[id], rel=1e-12, abs=1e-12)
            assert reason.total == pytest.approx(reason.score ** (2 if metric == "l2" else 1), rel=1e-12, abs=1e-12)
            assert reason.total == reason.terms.sum()
            assert (reason.query.reshape(-1) == pixel_vector(load_image(query), 32)).all()
            assert (reason.hit.reshape(-1) == corner.index.pixels.vectors[corner.index.row_of(id)]).all()


def test_a_term_stands_where_its_pixel_does(corner):
    reason = explain_pixels(corner, Image.new("RGB", (9, 9), "white"), "corner.png", "l1")
    assert reason.terms.shape == (32, 32)
    assert reason.terms[20:, :12].sum() == reason.total > 0  # the rest of the canvas is as white as the query
    assert reason.terms[25, 4] == np.abs(reason.query[25, 4].astype(int) - reason.hit[25, 4]).sum()


def test_where_a_norm_or_a_variance_is_zero_no_pixel_has_a_share(corner):
    query = next(QUERIES.glob("*.webp"))
    assert not explain_pixels(corner, query, "black.png", "cosine").terms.any()
    assert not explain_pixels(corner, query, "grey.png", "correlation").terms.any()
    assert explain_pixels(corner, query, "grey.png", "cosine").terms.all()


@pytest.mark.parametrize("query", [{"image": FLOWER}, {"text": "a rose"}])
def test_covering_the_object_takes_most_of_the_similarity(corner, query):
    vector = corner.embed_query(**query)
    reason = explain_clip(corner, vector, "corner.png")
    row, col = np.unravel_index(reason.drops.argmax(), reason.drops.shape)
    assert row >= 4, reason.drops.round(3)
    assert col <= 2, reason.drops.round(3)
    assert reason.drops.max() > 2 * np.abs(reason.drops[:4, 3:]).max()
    stored = corner.index.embeddings[corner.index.row_of("corner.png")]
    assert reason.score == pytest.approx(float(stored @ vector), abs=1e-6)  # of the picture, not of its thumbnail


def test_a_drop_is_what_the_similarity_loses(corner):
    vector = corner.embed_query(image=FLOWER)
    whole = explain_clip(corner, vector, "corner.png", grid=1)
    picture = load_image(corner.thumbnail("corner.png"))
    mean = tuple(int(value) for value in np.rint(np.asarray(picture).mean(axis=(0, 1))))
    before, after = corner.encoder.embed_images([picture, Image.new("RGB", picture.size, mean)]) @ vector
    assert whole.drops.shape == (1, 1)
    assert whole.drops[0, 0] == pytest.approx(float(before - after), abs=1e-5)


def test_what_is_not_there_cannot_be_explained(corner):
    vector = corner.embed_query(text="a flower")
    with pytest.raises(SearchError, match="no picture 'nothing'"):
        explain_pixels(corner, FLOWER, "nothing", "l2")
    with pytest.raises(SearchError, match="no metric 'l3'"):
        explain_pixels(corner, FLOWER, "corner.png", "l3")
    with pytest.raises(SearchError, match="no picture 'nothing'"):
        explain_clip(corner, vector, "nothing")
    with pytest.raises(ValueError, match="at least 1"):
        explain_clip(corner, vector, "corner.png", grid=0)


def test_a_heat_map_is_warm_above_zero_cool_below_and_neutral_at_it():
    values = np.array([[2.0, 0.0], [-2.0, 1.0]])
    map = np.asarray(heat_map(values, size=64, smooth=False)).astype(int)
    assert map.shape == (64, 64, 3)
    warm, neutral, cool, faint = map[16, 16], map[16, 48], map[48, 16], map[48, 48]
    assert warm[0] > warm[2] + 100
    assert cool[2] > cool[0] + 100
    assert np.ptp(neutral) == 0
    assert np.abs(2 * faint - warm - neutral).max() <= 1  # half the value, half the colour
    assert len(np.unique(map.reshape(-1, 3), axis=0)) == 4
    assert len(np.unique(np.asarray(heat_map(values, size=64)).reshape(-1, 3), axis=0)) > 100


def test_a_heat_map_lies_over_the_picture_it_explains():
    picture = Image.new("RGB", (40, 20), "white")
    picture.paste((0, 0, 0), (0, 0, 20, 20))
    nothing = np.asarray(heat_map(np.zeros((7, 7)), picture, size=100)).astype(int)
    assert nothing.shape == (50, 100, 3)
    assert (np.ptp(nothing, axis=2) == 0).all()
    assert nothing[25, 80, 0] - nothing[25, 20, 0] > 100
    everything = np.asarray(heat_map(np.ones((7, 7)), picture, size=100)).astype(int)
    assert (everything[..., 0] > everything[..., 2] + 50).all()
    assert everything[25, 80, 1] - everything[25, 20, 1] > 15  # the picture is seen through the strongest colour
    assert heat_map(np.ones((10, 5)), size=30).size == (15, 30)
