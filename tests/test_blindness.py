"""A metric is blind to what is stated, and the smallest change that dethrones a first hit is the smallest."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.blindness import UNCLIPPED, outcome
from benchmarks.blindness import _opened as benchmarked
from imgret import ImgretError, PixelIndex
from imgret.blindness import CANNOT_MOVE, TRANSFORMS, cannot_move, changed, clips, dethroning, ranking
from imgret.images import load_image
from imgret.metrics import LARGER_IS_CLOSER, METRICS, best_first
from tests.conftest import QUERIES

ROWS = [3, 200]


@pytest.fixture(scope="module")
def pixels(retriever):
    return retriever.index.pixels


@pytest.fixture(scope="module")
def outcomes(retriever):
    benchmarked[:] = [retriever.index]
    return [outcome(row) for row in ROWS]


def test_what_cannot_move_a_ranking_moves_no_score_of_it(outcomes):
    for each in outcomes:
        assert each.statements == 20 + 5  # correlation under all changes, cosine under those of contrast alone
        assert each.failed == 0


def test_each_threshold_is_confirmed_by_brute_force_just_below_and_just_above(outcomes):
    for each in outcomes:
        assert len(each.dethronings) == len(TRANSFORMS) * len(METRICS)
        assert all(each.confirmed)
        assert sum(found is not None for found in each.dethronings) >= 10


def test_nothing_is_claimed_beyond_contrast_and_brightness(pixels):
    assert {metric: set(why) for metric, why in CANNOT_MOVE.items()} == {
        "l1": set(),
        "l2": set(),
        "cosine": {"contrast"},
        "correlation": {"contrast", "brightness"},
    }
    assert cannot_move("correlation", "contrast", "brightness")
    assert not cannot_move("cosine", "contrast", "brightness")
    assert not cannot_move("correlation", "brightness", "noise")
    dimmer = {"contrast": 0.5, "brightness": 100}  # whatever is not claimed does move
    query = pixels.vectors[3]
    for metric in ("l1", "l2", "cosine"):
        before, after = METRICS[metric](query, pixels.vectors), METRICS[metric](changed(query, dimmer), pixels.vectors)
        assert (best_first(before, metric)[:10] != best_first(after, metric)[:10]).any()


def test_clipping_is_told_and_breaks_the_statement(pixels):
    query = np.array(pixels.vectors[3])
    assert query.max() == 255
    assert not any(clips(query, strengths) for strengths in UNCLIPPED)
    assert clips(query, {"brightness": 0.5})
    assert clips(query, {"contrast": 1.01})
    assert not clips(query, {"contrast": 0.75, "brightness": 63.75})
    assert clips(query, {"contrast": 0.75, "brightness": 64})
    assert not clips(query, {"noise": 64, "shift": 0.2, "crop": 0.2})  # of them nothing is stated
    brighter = changed(query, {"brightness": 100})
    assert 0 <= brighter.min() < brighter.max() == 255
    before = METRICS["correlation"](query, pixels.vectors)
    assert np.abs(METRICS["correlation"](brighter, pixels.vectors) - before).max() > 0.01
    found = [
        dethroning(pixels, np.array(pixels.vectors[row]), "correlation", "contrast", without=[row]) for row in ROWS
    ]
    assert all(each is None or each.clipped for each in found)


def test_no_change_is_found_below_the_threshold_by_a_walk_in_small_steps(pixels):
    row = 200
    query = np.array(pixels.vectors[row])
    for metric in METRICS:
        found = dethroning(pixels, query, metric, "brightness", without=[row])
        threshold = 100 if found is None else abs(found.strength_after)
        first = ranking(pixels, changed(query, {}), metric, 1, without=[row])[0][0]
        for strength in (sign * threshold * share for sign in (-1, 1) for share in np.arange(0, 1, 0.07)):
            scores = METRICS[metric](changed(query, {"brightness": strength}), pixels.vectors)
            scores[row] = -1 if metric in LARGER_IS_CLOSER else np.inf
            assert best_first(scores, metric)[0] == first, (metric, strength)


def test_neutral_strengths_change_nothing_and_others_do_what_they_say(pixels):
    query = np.array(pixels.vectors[3])
    assert (changed(query, {name: each.neutral for name, each in TRANSFORMS.items()}) == query).all()
    picture = query.reshape(64, 64, 3)
    right = changed(query, {"shift": 2 / 64}).reshape(picture.shape)
    assert (right[:, 2:] == picture[:, :-2]).all()
    assert (right[:, :2] == picture[:, :1]).all()
    halfway = changed(query, {"shift": -0.5 / 64}).reshape(picture.shape)
    assert (halfway[:, :-1] == (picture[:, :-1] / 2 + picture[:, 1:] / 2)).all()
    cropped = changed(query, {"crop": 8 / 64}).reshape(picture.shape)
    expected = Image.fromarray(picture).resize((64, 64), Image.Resampling.BICUBIC, (8, 8, 56, 56))
    assert np.abs(cropped - np.asarray(expected)).max() < 2.5  # Pillow rounds bytes twice
    grey = np.full_like(query, 128)
    assert changed(grey, {"noise": 10}).std() == pytest.approx(10, rel=0.05)
    assert changed(query, {"contrast": 0.5, "brightness": 10}) == pytest.approx(query / 2 + 10)


@pytest.mark.parametrize("metric", METRICS)
def test_a_query_of_fractions_finds_what_brute_force_does(pixels, metric):
    large = PixelIndex.fit(np.vstack([pixels.vectors, 255 - pixels.vectors]))  # too large to be read whole
    for searched, query in [
        (index, changed(query, strengths))
        for index in (pixels, large)
        for query in (pixels.vectors[3], np.full(pixels.dim, 90, np.uint8))
        for strengths in ({"contrast": 0.31}, {"contrast": 0.7, "shift": 0.013, "noise": 3.3}, {"brightness": 7})
    ]:
        rows, scores = ranking(searched, query, metric, 10, without=[3])
        everything = METRICS[metric](query, searched.vectors)
        everything[3] = -2 if metric in LARGER_IS_CLOSER else np.inf
        best = best_first(everything, metric)[:10]
        assert 3 not in rows
        np.testing.assert_allclose(scores, everything[best], rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(everything[rows], everything[best], rtol=1e-12, atol=1e-12)


def test_pictures_of_any_size_and_kind_are_asked_as_a_search_does(retriever):
    tiger = load_image(QUERIES / "tiger.webp")
    for picture in (tiger.resize((31, 90)), tiger.convert("L"), tiger.convert("RGBA"), Image.new("L", (3, 3), 77)):
        query = retriever.pixel_query(picture)
        for metric in METRICS:
            first = retriever.by_pixels(picture, metric, k=1)[0]
            found = dethroning(retriever.index.pixels, query, metric, "contrast")
            assert found is None or (found.first == first.row != found.then)
            rows, _ = ranking(retriever.index.pixels, changed(query, {}), metric, 5)
            assert rows.tolist() == [hit.row for hit in retriever.by_pixels(picture, metric, k=5)]


def test_a_small_library_has_a_smallest_change_or_none():
    picture = np.random.default_rng(0).integers(0, 256, 12, np.uint8)
    alone = PixelIndex.fit(picture[None])
    for transform in TRANSFORMS:
        assert dethroning(alone, picture, "l2", transform) is None
        assert dethroning(alone, picture, "l2", transform, without=[0]) is None
    dark, light = np.full((2, 12), [[100], [120]], np.uint8)
    found = dethroning(PixelIndex.fit(np.vstack([dark, light])), dark, "l1", "brightness")
    assert (found.first, found.then, found.clipped) == (0, 1, False)
    assert found.strength_before <= 10 <= found.strength_after
    assert found.strength_after == pytest.approx(10)


@pytest.mark.parametrize("metric", METRICS)
def test_in_tiny_libraries_nothing_below_the_threshold_dethrones(metric):
    draw, fallen = np.random.default_rng(0), 0
    for _ in range(40):
        rows = draw.integers(0, 256, (5, 12), np.uint8)
        query, index = draw.integers(60, 256, 12, np.uint8), PixelIndex.fit(rows)
        first = index.search(query, metric, 1)[0][0]
        for transform, step in (("brightness", 0.5), ("contrast", 0.01)):
            kind = TRANSFORMS[transform]
            found = dethroning(index, query, metric, transform)
            fallen += found is not None
            safe = np.inf if found is None else abs(found.strength_before - kind.neutral)
            for strength in np.arange(kind.low, kind.high, step):
                if abs(strength - kind.neutral) < safe:
                    scores = METRICS[metric](changed(query, {transform: strength}), rows)
                    best = scores[best_first(scores, metric)[0]]
                    assert abs(best - scores[first]) < 1e-9, (rows, query, transform, strength)
    assert fallen > 20


def test_of_two_rivals_on_one_stretch_the_one_that_comes_first_is_found():
    first, early, late = np.full((3, 12), 100, np.uint8)
    early[0] += 1  # as near as the first at 0.5
    late += np.array([2] + [1] * 11, np.uint8)  # at 15 / 26, but much nearer at 1
    found = dethroning(PixelIndex.fit(np.stack([first, early, late])), first, "l2", "brightness")
    assert found.then == 1
    assert found.strength_after == pytest.approx(0.5)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_that_only_fractions_tell_apart_are_found(metric):
    draw = np.random.default_rng(0)
    rows, query = draw.integers(100, 104, (600, 12), np.uint8), draw.uniform(100, 103, 12)
    found, scores = ranking(PixelIndex.fit(rows), query, metric, 3)
    everything = METRICS[metric](query, rows)
    np.testing.assert_allclose(scores, everything[best_first(everything, metric)[:3]], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(everything[found], scores, rtol=1e-12, atol=1e-12)


def test_what_is_not_there_or_out_of_range_is_refused(pixels):
    query = np.array(pixels.vectors[3])
    with pytest.raises(ImgretError, match="no transform 'blur'"):
        dethroning(pixels, query, "l2", "blur")
    with pytest.raises(ImgretError, match="no metric 'l3'"):
        dethroning(pixels, query, "l3", "shift")
    with pytest.raises(ImgretError, match=r"must be uint8 of shape \(12288,\)"):
        dethroning(pixels, query[:300], "l2", "shift")
    for strength in (0, -1, 2.1, float("nan")):
        with pytest.raises(ImgretError, match=r"contrast is .*; it must be a number from 0.25 to 2"):
            changed(query, {"contrast": strength})
