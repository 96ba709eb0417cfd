"""Hits are what brute force gives, best first; a query that cannot be answered says why."""

import warnings

import numpy as np
import pytest

from imgret import Retriever, SearchError, SearchWarning, load_image
from imgret.errors import ImgretError
from imgret.images import pixel_vector
from imgret.metrics import METRICS, best_first
from tests.conftest import QUERIES

TIGER = QUERIES / "tiger.webp"


@pytest.mark.parametrize("metric", METRICS)
def test_pixel_hits_are_those_of_brute_force(retriever, metric):
    query = pixel_vector(load_image(TIGER), 64)
    scores = METRICS[metric](query, retriever.index.pixels.vectors)
    expected = best_first(scores, metric)[:20]
    hits = retriever.by_pixels(TIGER, metric, 20)
    assert [hit.rank for hit in hits] == list(range(1, 21))
    assert [hit.id for hit in hits] == [retriever.index.record(row).id for row in expected]
    np.testing.assert_allclose([hit.score for hit in hits], scores[expected], atol=1e-12)


def clip_scores(retriever, vector):
    return retriever.index.embeddings.astype(float) @ vector


def unit(vector):
    return vector / np.linalg.norm(vector)


@pytest.mark.parametrize("query", ["image", "text", "both", "negative", "weight"])
def test_clip_scores_are_cosines_of_the_combined_query(retriever, query):
    picture = retriever.encoder.embed_images([load_image(TIGER)])[0].astype(float)
    text, negative = retriever.encoder.embed_texts(["a flower", "a tiger"]).astype(float)
    asked, vector = {
        "image": ({"image": TIGER}, picture),
        "text": ({"text": "a flower"}, text),
        "both": ({"image": TIGER, "text": "a flower"}, unit(picture / 2 + text / 2)),
        "negative": ({"image": TIGER, "negative": "a tiger"}, unit(picture - negative)),
        "weight": ({"image": TIGER, "text": "a flower", "text_weight": 0.8}, unit(0.2 * picture + 0.8 * text)),
    }[query]
    scores = clip_scores(retriever, vector)
    hits = retriever.by_clip(**asked, k=10)
    np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:10], atol=1e-5)
    for hit in hits:
        assert hit.score == pytest.approx(scores[retriever.index.row_of(hit.id)], abs=1e-5)


@pytest.mark.parametrize("metric", METRICS)
def test_hits_by_a_metric_on_embeddings_are_those_of_its_formula(retriever, metric):
    query = retriever.encoder.embed_images([load_image(TIGER)])[0]
    scores = METRICS[metric](query, retriever.index.embeddings)
    expected = best_first(scores, metric)[:20]
    hits = retriever.by_embedding(TIGER, metric, 20)
    assert [hit.row for hit in hits] == expected.tolist()
    np.testing.assert_allclose([hit.score for hit in hits], scores[expected], atol=1e-5)
    row = hits[0].row
    scores = METRICS[metric](retriever.index.embeddings[row], retriever.index.embeddings)
    others = [other for other in best_first(scores, metric).tolist() if other != row]
    assert [hit.row for hit in retriever.by_embedding(metric=metric, like=hits[0].id, k=3)] == others[:3]


@pytest.mark.parametrize("metric", METRICS)
def test_a_metric_on_embeddings_takes_words_labels_and_an_offset_as_the_cosine_does(retriever, metric):
    labels = ["animals/birds", "food/fruit"]
    asked = {"image": TIGER, "text": "a bird", "negative": "water", "text_weight": 0.7}
    rows = [row for row, label in enumerate(retriever.index.column("label")) if label in labels]
    scores = METRICS[metric](retriever.embed_query(**asked), retriever.index.embeddings[rows])
    expected = [rows[at] for at in best_first(scores, metric)]
    found = retriever.find_by_clip(**asked, labels=labels, k=5, offset=2, metric=metric)
    assert [hit.row for hit in found.hits] == expected[2:7]
    assert [hit.rank for hit in found.hits] == [3, 4, 5, 6, 7]
    every = retriever.find_by_clip(**asked, labels=labels, k=545, metric=metric).hits
    assert [hit.row for hit in every] == expected
    with pytest.raises(SearchError, match="no metric"):
        retriever.find_by_clip(**asked, metric="l3")


def test_l2_and_cosine_rank_unit_vectors_alike_and_l1_does_not(retriever):
    ids = [retriever.index.record(row).id for row in range(0, 545, 5)]

    def ranked(search):
        return [[hit.row for hit in search(id)] for id in ids]

    cosine = ranked(lambda id: retriever.by_embedding(metric="cosine", like=id))
    assert ranked(lambda id: retriever.by_embedding(metric="l2", like=id)) == cosine
    assert ranked(lambda id: retriever.by_clip(like=id)) == cosine
    assert ranked(lambda id: retriever.by_embedding(metric="l1", like=id)) != cosine


DOG, FLOWER = QUERIES / "dog.webp", QUERIES / "butterflyfish.webp"


def test_likes_and_dislikes_are_the_formula_of_rocchio(retriever):
    a, b, c = (
        vector.astype(float) for vector in retriever.encoder.embed_images([load_image(p) for p in (TIGER, DOG, FLOWER)])
    )
    text, negative = retriever.encoder.embed_texts(["a flower", "a tiger"]).astype(float)
    for asked, vector in (
        ({"images": [TIGER]}, a),
        ({"images": [TIGER, DOG]}, unit((a + b) / 2)),
        ({"image": TIGER, "images": [DOG]}, unit((a + b) / 2)),
        ({"text": "a flower", "images": [TIGER, DOG]}, unit((text + a + b) / 3)),
        ({"image": TIGER, "negative_images": [DOG]}, unit(a - b)),
        ({"image": TIGER, "negative": "a tiger", "negative_images": [DOG, FLOWER]}, unit(a - (negative + b + c) / 3)),
        ({"images": [TIGER, DOG], "negative_images": [FLOWER]}, unit(unit((a + b) / 2) - c)),
    ):
        hits = retriever.by_clip(**asked, k=8)
        scores = clip_scores(retriever, vector)
        np.testing.assert_allclose([hit.score for hit in hits], np.sort(scores)[::-1][:8], atol=1e-5)
    vectors = np.array([pixel_vector(load_image(path), 64) for path in (TIGER, DOG)], dtype=float)
    scores = METRICS["l2"](np.rint(vectors.mean(axis=0)).astype(np.uint8), retriever.index.pixels.vectors)
    expected = best_first(scores, "l2")[:5].tolist()
    assert [hit.row for hit in retriever.by_pixels(TIGER, k=5, images=[DOG])] == expected
    assert [hit.row for hit in retriever.by_pixels(k=5, images=[TIGER, DOG])] == expected


def test_pictures_of_the_library_that_one_likes_or_not_count_by_what_the_index_keeps_of_them_and_are_no_hits(retriever):
    index, rows = retriever.index, [3, 40, 200]
    ids, (a, b, c) = [index.record(row).id for row in rows], index.embeddings[rows].astype(float)
    text = retriever.encoder.embed_texts(["a flower"])[0].astype(float)
    for asked, vector in (
        ({"likes": ids}, unit((a + b + c) / 3)),
        ({"like": ids[0], "likes": ids[1:]}, unit((a + b + c) / 3)),
        ({"text": "a flower", "likes": ids[:2], "dislikes": ids[2:]}, unit(unit((text + a + b) / 3) - c)),
    ):
        expected = [row for row in np.argsort(-clip_scores(retriever, vector), kind="stable") if row not in rows]
        if "text" not in asked:
            assert [hit.row for hit in retriever.by_clip(**asked, k=8)] == expected[:8]
        hits = retriever.by_clip(**asked, k=len(index) - 3)
        assert {hit.row for hit in hits} == {*range(len(index))} - {*rows}
        np.testing.assert_allclose(retriever.embed_query(**asked), vector, atol=1e-5)
    mean = np.rint(index.pixels.vectors[rows].astype(float).mean(axis=0)).astype(np.uint8)
    scores = METRICS["l1"](mean, index.pixels.vectors)
    expected = [row for row in best_first(scores, "l1").tolist() if row not in rows][:5]
    assert [hit.row for hit in retriever.by_pixels(metric="l1", k=5, likes=ids)] == expected
    for asked in ({"likes": [3]}, {"likes": ids[0]}, {"likes": ["nowhere.webp"]}, {"images": [3]}, {"likes": ids * 11}):
        with pytest.raises(ImgretError):
            retriever.by_clip(**asked)


def test_an_offset_goes_on_where_the_hits_before_it_ended(retriever):
    for search in (
        lambda **asked: retriever.by_pixels(TIGER, **asked),
        lambda **asked: retriever.by_clip(text="a bird", **asked),
        lambda **asked: retriever.by_clip(like=retriever.index.record(3).id, fold=True, **asked),
    ):
        whole = search(k=30)
        assert search(k=10, offset=10) == whole[10:20]
        assert search(k=10, offset=20) == whole[20:]
        assert [hit.rank for hit in search(k=2, offset=5)] == [6, 7]
        assert search(k=10, offset=540) == search(k=545)[540:]
        assert search(k=1, offset=10**9) == []


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"images": "tiger.webp"}, "must be a list"),
        ({"images": [TIGER] * 33}, "at most 32"),
        ({"negative_images": [TIGER]}, "nothing to search for"),
        ({"images": [TIGER], "offset": -1}, "at least 0"),
        ({"images": [TIGER], "offset": 1.5}, "at least 0"),
        ({"images": [TIGER], "negative_images": [TIGER]}, "cancel each other out"),
    ],
)
def test_lists_of_pictures_and_offsets_that_cannot_be_are_refused(retriever, asked, said):
    with pytest.raises(SearchError, match=said):
        retriever.by_clip(**asked)


def test_the_tiger_finds_a_cat_by_clip(retriever):
    assert "tiger" in retriever.by_clip(image=TIGER, k=1)[0].caption.lower()


def test_labels_filter_and_a_filter_may_leave_fewer_than_k(retriever):
    hits = retriever.by_clip(text="something to eat", labels=["food/fruit", "food/dessert"], k=100)
    labels = retriever.index.manifest.labels
    assert len(hits) == labels["food/fruit"] + labels["food/dessert"]
    assert {hit.label for hit in hits} == {"food/fruit", "food/dessert"}


@pytest.mark.parametrize("among", [[], [10**6], [-1, 3]])
def test_rows_that_there_are_not_cannot_be_searched_among(retriever, among):
    with pytest.raises(SearchError, match="The rows to search among"):
        retriever.find_by_clip(text="a boat", among=among)


def test_a_row_that_is_named_twice_is_found_once(retriever):
    twice = retriever.find_by_clip(text="a boat", among=[5, 3, 3])
    assert sorted(hit.id for hit in twice.hits) == sorted(retriever.index.record(row).id for row in (3, 5))


@pytest.mark.parametrize("metric", [None, "l1"])
@pytest.mark.parametrize("labels", [None, ["animals/birds", "animals/mammals"]])
def test_a_search_among_some_rows_finds_those_of_all_hits_that_are_in_them(retriever, metric, labels):
    rows = np.arange(40, 400, 3)
    every = retriever.find_by_clip(QUERIES / "tiger.webp", labels=labels, k=545, metric=metric).hits
    expected = [(hit.id, hit.score) for hit in every if hit.row in rows]
    found = retriever.find_by_clip(QUERIES / "tiger.webp", labels=labels, k=545, metric=metric, among=rows)
    assert [(hit.id, hit.score) for hit in found.hits] == expected
    assert [hit.p for hit in found.hits] == [None] * len(expected)
    some = retriever.find_by_clip(QUERIES / "tiger.webp", labels=labels, k=3, metric=metric, among=rows, offset=2)
    assert [(hit.id, hit.rank) for hit in some.hits] == [(id, rank) for rank, (id, _) in enumerate(expected[2:5], 3)]


def test_labels_that_none_of_the_rows_has_are_told(retriever):
    rows = retriever.index.rows_of("animals/birds")
    with pytest.raises(SearchError, match="None of the marked pictures has one of these labels"):
        retriever.find_by_clip(text="a boat", labels=["animals/fish"], among=rows)


def test_a_picture_of_the_library_finds_itself_first(retriever):
    id = retriever.index.record(7).id
    picture = load_image(retriever.thumbnail(id))
    assert retriever.by_clip(image=picture, k=1)[0].id == id


def test_k_above_the_number_of_pictures_is_that_number(retriever):
    assert len(retriever.by_pixels(TIGER, k=10**6)) == len(retriever.index)
    assert len(retriever.by_clip(image=TIGER, k=10**6)) == len(retriever.index)
    assert len(retriever.by_pixels(TIGER, k=3.0)) == 3


@pytest.mark.parametrize("k", [0, -1, 2.5, float("nan"), float("inf"), "10", None, True, [3]])
def test_a_k_that_is_no_positive_whole_number_is_refused(retriever, k):
    with pytest.raises(SearchError, match="whole number of at least 1"):
        retriever.by_pixels(TIGER, k=k)
    with pytest.raises(SearchError, match="whole number of at least 1"):
        retriever.by_clip(text="a cat", k=k)


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({}, "nothing to search for"),
        ({"text": ""}, "text is empty"),
        ({"text": " \0 "}, "text is empty"),
        ({"text": "a cat", "negative": "  "}, "negative text is empty"),
        ({"text": "x" * 10_000}, "10000 characters"),
        ({"text": 7}, "not a text but int"),
        ({"text": "a cat", "labels": ["animals/bird"]}, "did you mean animals/birds"),
        ({"text": "a cat", "labels": 5}, "must be a list"),
        ({"text": "a cat", "labels": [["animals/birds"]]}, "must be a list"),
        ({"text": "a cat", "text_weight": 2}, "from 0 to 1"),
        ({"text": "a cat", "text_weight": float("nan")}, "from 0 to 1"),
        ({"text": "a cat", "text_weight": "half"}, "from 0 to 1"),
        ({"text": "a cat", "negative": "a cat"}, "cancel each other"),
    ],
)
def test_a_query_that_cannot_be_answered_says_why(retriever, asked, says):
    with pytest.raises(SearchError, match=says):
        retriever.by_clip(**asked)


def test_an_unknown_metric_and_an_unknown_picture_are_named(retriever):
    with pytest.raises(SearchError, match="no metric 'l3'; there are l1, l2, cosine, correlation"):
        retriever.by_pixels(TIGER, "l3")
    with pytest.raises(SearchError, match=r"no picture 'nobody\.png'"):
        retriever.thumbnail("nobody.png")


def test_an_encoder_other_than_the_one_of_the_index_is_refused(retriever):
    class Other:
        uri, dim, fingerprint = "ViT-B-32/random", 512, None

    with pytest.raises(SearchError, match="built with the encoder starter"):
        Retriever(retriever.index, Other())


def test_notices_are_warnings_for_those_who_import(retriever):
    with pytest.warns(SearchWarning, match="reads English and Vietnamese only"):
        retriever.by_clip(text="тигр", k=1)
    with pytest.warns(SearchWarning, match="text is longer than the encoder reads; it was cut after 126 tokens"):
        retriever.by_clip(text="word " * 127, k=1)
    with pytest.warns(SearchWarning, match="text is longer"):
        retriever.by_clip(text="a tiger", negative="word " * 127, k=1)
    with pytest.warns(SearchWarning, match=r"so k is \d+"):
        retriever.by_pixels(TIGER, k=10**6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert retriever.find_by_clip(text="word " * 126, k=1).notice is None
        assert retriever.find_by_clip(text="con hổ", k=1).notice is None
        assert "English and Vietnamese only" in retriever.find_by_clip(text="虎", k=1).notice


def test_a_folder_of_labels_is_a_label(retriever):
    labels = [label for label in retriever.index.manifest.labels if label.startswith("animals/")]
    assert len(labels) > 1
    found = retriever.by_clip(text="a tiger", labels=["animals"], k=50)
    assert found == retriever.by_clip(text="a tiger", labels=labels, k=50)
    with pytest.raises(SearchError, match="no label 'anim'"):
        retriever.by_clip(text="a tiger", labels=["anim"])
