"""A metric worked out step by step ends with the score that the metric gives."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from imgret import ImgretError
from imgret.course.steps import overflowed_norm, small_picture, work_out
from imgret.metrics import METRICS
from tests.conftest import QUERIES

PICTURES = arrays(np.uint8, (8, 8), elements=st.integers(0, 255))


@pytest.mark.parametrize("metric", METRICS)
@given(a=PICTURES, b=PICTURES)
def test_the_last_step_is_the_score(metric, a, b):
    worked = work_out(metric, a, b)
    assert worked.score == pytest.approx(METRICS[metric](a, b[None])[0], abs=1e-9)
    total = next(step.value for step in worked.steps if step.formula == rf"\sum {worked.term}")
    assert worked.terms.sum() == pytest.approx(total, abs=1e-6)


def test_what_overflows_is_what_numpy_computes_in_uint8():
    a = small_picture(QUERIES / "tiger.webp")
    norm, overflowed = overflowed_norm(a)
    assert norm == pytest.approx(sum(int(value) ** 2 for value in a.flat) ** 0.5)
    assert overflowed == pytest.approx(sum(int(value) ** 2 % 256 for value in a.flat) ** 0.5)
    assert norm > 2 * overflowed


def test_another_metric_is_refused():
    with pytest.raises(ImgretError, match="no metric 'l3'"):
        work_out("l3", np.zeros((8, 8), np.uint8), np.zeros((8, 8), np.uint8))
