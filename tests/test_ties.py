"""Equal pictures: the hits for k are the first k of those for k + 1, whatever is asked and wherever the vectors are."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from imgret import ImageLibrary, Index, Retriever, build_index
from imgret.search import METHODS
from tests.conftest import QUERIES

COPIES = 9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three pictures, each of them nine times, in three classes, among noise."""
    root = tmp_path_factory.mktemp("ties") / "library"
    draw = np.random.default_rng(0)
    chosen = sorted(QUERIES.glob("*.webp"))[:3]
    for number in range(COPIES):
        for name, path in zip("xyz", chosen, strict=True):
            target = root / "abc"[number % 3] / f"{name}{number}.png"
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(path).convert("RGB").resize((64, 64)).save(target)
    for number in range(30):
        Image.fromarray(draw.integers(0, 256, (16, 16, 3), np.uint8)).save(root / "abc"[number % 3] / f"n{number}.png")
    return root


@pytest.fixture(scope="module", params=["embedded", "server"])
def retriever(request, folder, tmp_path_factory):
    chroma = request.getfixturevalue("chroma_server").url if request.param == "server" else None
    index = build_index(ImageLibrary.load(folder), tmp_path_factory.mktemp("index") / "i", pixel_size=16, chroma=chroma)
    yield Retriever(index)
    index.close()


def hits(retriever, method, k, image, like, labels):
    if method == "clip":
        return retriever.by_clip(image, k=k, like=like, labels=labels)
    return retriever.by_pixels(image, method, k, like=like)


@pytest.mark.parametrize("labels", [None, ["b"], ["a", "c"]])
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("like", [None, "b/x1.png"])
@pytest.mark.filterwarnings("ignore::imgret.SearchWarning")
def test_hits_for_k_are_the_first_of_those_for_more(retriever, folder, method, like, labels):
    image = None if like else folder / "a" / "x0.png"
    count = len(retriever.index)
    found = hits(retriever, method, count, image, like, labels)
    assert len(found) >= COPIES
    for k in range(1, count):
        assert hits(retriever, method, k, image, like, labels) == found[:k]
    for hit, other in pairwise(found):
        assert hit.score != other.score or hit.row < other.row


def test_equal_pictures_have_equal_scores(retriever, folder):
    for method in METHODS:
        found = hits(retriever, method, COPIES, folder / "a" / "x0.png", None, None)
        assert len({hit.score for hit in found}) == 1
        assert {hit.id.split("/")[1][0] for hit in found} == {"x"}


def test_a_cosine_is_at_most_one(retriever):
    index = retriever.index
    for metric in ("cosine", "correlation"):
        for row in range(len(index)):
            _, scores = index.pixels.search(np.array(index.pixels.vectors[row]), metric, len(index))
            assert scores.max() <= 1
            assert scores.min() >= -1


def test_a_large_matrix_has_the_same_order_for_each_k():
    from imgret.pixels import PixelIndex

    draw = np.random.default_rng(1)
    rows = draw.integers(0, 256, (40, 768), np.uint8)
    index = PixelIndex.fit(rows[draw.integers(0, 40, 60_000)])
    for metric in METHODS[:-1]:
        whole, _ = index.search(rows[3], metric, 2000)
        for k in (1, 2, 7, 100, 1499, 1999):
            assert np.array_equal(index.search(rows[3], metric, k)[0], whole[:k])


def test_rows_that_the_store_leaves_out_at_the_end_are_fetched(retriever, monkeypatch):
    """A store that gives the last of equal rows first, as Chroma may."""
    index = retriever.index
    vectors = np.asarray(index.embeddings, np.float64)

    class Store:
        def query(self, vector, k, labels=None):
            scores = np.round(vectors @ vector, 6)
            return np.lexsort((-np.arange(len(scores)), -scores))[:k]

    monkeypatch.setattr(Index, "vectors", Store())
    like = index.record(0).id
    found = retriever.by_clip(like=like, k=50)
    for k in range(1, 50):
        assert retriever.by_clip(like=like, k=k) == found[:k]
