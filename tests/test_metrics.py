"""The four formulas say what scipy says, in float64, whatever the pictures."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.spatial.distance import cdist

from imgret import absolute_difference, correlation_coefficient, cosine_similarity, mean_square_difference
from imgret.metrics import METRICS, best_first

FUNCTIONS = [absolute_difference, mean_square_difference, cosine_similarity, correlation_coefficient]
PEER = {"l1": "cityblock", "l2": "euclidean", "cosine": "cosine", "correlation": "correlation"}

shapes = st.one_of(st.tuples(st.integers(1, 40)), st.tuples(st.integers(1, 5), st.integers(1, 5), st.just(3)))
# Extremes often: 0 and 255 are where uint8 would wrap around.
bytes_ = st.one_of(st.sampled_from([0, 255]), st.integers(0, 255))


@st.composite
def query_and_data(draw, dtype, elements):
    shape = draw(shapes)
    count = draw(st.integers(0, 6))
    return draw(arrays(dtype, shape, elements=elements)), draw(arrays(dtype, (count, *shape), elements=elements))


@given(query_and_data(np.uint8, bytes_))
def test_metrics_agree_with_scipy_on_uint8(pictures):
    query, data = pictures
    flat, rows = query.reshape(1, -1).astype(float), data.reshape(len(data), query.size).astype(float)
    for name, function in METRICS.items():
        scores = function(query, data)
        assert scores.shape == (len(data),)
        assert scores.dtype == np.float64
        expected = cdist(flat, rows, PEER[name])[0] if len(rows) else np.empty(0)
        if name in ("l1", "l2"):
            np.testing.assert_allclose(scores, expected, rtol=1e-15, atol=0)
            continue
        defined = np.array([_has_direction(name, flat[0]) and _has_direction(name, row) for row in rows], dtype=bool)
        np.testing.assert_allclose(scores[defined], 1 - expected[defined], atol=1e-12)
        assert (scores[~defined] == 0).all()


@given(query_and_data(np.float64, st.floats(-1e3, 1e3).map(lambda x: round(x, 3))))
def test_metrics_agree_with_scipy_on_floats(pictures):
    query, data = pictures
    flat, rows = query.reshape(1, -1), data.reshape(len(data), query.size)
    for name in ("l1", "l2"):
        expected = cdist(flat, rows, PEER[name])[0] if len(rows) else np.empty(0)
        np.testing.assert_allclose(METRICS[name](query, data), expected, rtol=1e-12)


def _has_direction(metric, row):
    return (row.std() if metric == "correlation" else np.abs(row).max()) > 0


@pytest.mark.parametrize("value", [0, 255, 0.1])
def test_a_constant_picture_has_no_correlation_and_a_black_one_no_cosine(value):
    constant = np.full((4, 4, 3), value)
    gradient = np.arange(48).reshape(4, 4, 3)
    assert correlation_coefficient(constant, gradient[None]) == 0
    assert correlation_coefficient(gradient, constant[None]) == 0
    assert cosine_similarity(constant * 0, gradient[None]) == 0


def test_extremes_of_uint8_do_not_wrap():
    black, white = np.zeros((448, 448, 3), np.uint8), np.full((448, 448, 3), 255, np.uint8)
    assert absolute_difference(black, white[None])[0] == 448 * 448 * 3 * 255
    assert mean_square_difference(black, white[None])[0] == np.sqrt(448 * 448 * 3) * 255


@pytest.mark.parametrize("function", FUNCTIONS)
def test_no_rows_give_no_scores_and_blocks_give_the_same_as_rows_alone(function, monkeypatch):
    rng = np.random.default_rng(0)
    query, data = rng.integers(0, 256, (12,), np.uint8), rng.integers(0, 256, (50, 12), np.uint8)
    assert function(query, data[:0]).shape == (0,)
    alone = np.concatenate([function(query, row[None]) for row in data])
    monkeypatch.setattr("imgret.metrics._BLOCK_VALUES", 12 * 7)
    np.testing.assert_allclose(function(query, data), alone, rtol=1e-14)


@pytest.mark.parametrize(("query", "data"), [((3,), (2, 4)), ((3,), (3,)), ((2, 2, 3), (5, 12)), ((0,), (2, 0))])
def test_shapes_that_do_not_fit_are_refused_with_both_shapes(query, data):
    with pytest.raises(ValueError, match="shape") as refusal:
        absolute_difference(np.zeros(query), np.zeros(data))
    assert str(query) in str(refusal.value)
    assert str(data) in str(refusal.value)


def test_best_first_puts_equal_scores_in_the_order_of_rows():
    scores = np.array([2.0, 1.0, 2.0, 1.0])
    assert best_first(scores, "l1").tolist() == [1, 3, 0, 2]
    assert best_first(scores, "cosine").tolist() == [0, 2, 1, 3]
