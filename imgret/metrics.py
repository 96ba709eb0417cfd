"""The four metrics of the course: L1, L2, cosine similarity and correlation coefficient.

Each function compares one query with N pictures. `query` has shape (H, W, 3) or (D,), `data` has that shape with a
leading N; the answer is float64 of shape (N,). Any numeric type is taken: values become float64 before the first
subtraction, so uint8 never overflows, and on uint8 the sums of L1 and L2 are whole numbers below 2**53, hence exact.
Shapes that do not fit raise ImgretError.

Source of the formulas: sections 3.1.1 to 3.1.4 of the course "Truy vấn hình ảnh dùng các toán cơ bản".
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from imgret.errors import ImgretError, Sentence, repr_short

Array = npt.NDArray[Any]
Scores = npt.NDArray[np.float64]

_BLOCK_VALUES = 1 << 19
"""Values of `data` widened to float64 at once: 4 MiB, so that a large library never has to fit in memory eight times
over, and a block stays in the processor's cache: L1 and L2 take less than half the time of blocks of 32 MiB.
"""


def absolute_difference(query: Array, data: Array) -> Scores:
    """L1 distance, sum of |a_i - b_i|. The smallest is the most similar. (N,) float64."""
    return _for_each_row(lambda a, b: np.abs(a - b).sum(axis=1), query, data)


def mean_square_difference(query: Array, data: Array) -> Scores:
    """L2 distance, sqrt(sum of (a_i - b_i)^2), whatever the course's name for it says.

    The smallest is the most similar. (N,) float64.
    """
    return _for_each_row(lambda a, b: np.sqrt(((a - b) ** 2).sum(axis=1)), query, data)


def cosine_similarity(query: Array, data: Array) -> Scores:
    """Cosine of the angle, a.b / (|a| |b|), and 0 where a norm is 0. The largest is the most similar. (N,) float64."""
    return _for_each_row(_cosine, query, data)


def correlation_coefficient(query: Array, data: Array) -> Scores:
    """Pearson's r: the cosine of the mean-centred vectors, and 0 where a variance is 0.

    The largest is the most similar. (N,) float64.
    """
    return _for_each_row(lambda a, b: _cosine(_centred(a), _centred(b)), query, data)


METRICS: dict[str, Callable[[Array, Array], Scores]] = {
    "l1": absolute_difference,
    "l2": mean_square_difference,
    "cosine": cosine_similarity,
    "correlation": correlation_coefficient,
}
"""The functions by the names used everywhere else, in the course's order."""

LARGER_IS_CLOSER = frozenset({"cosine", "correlation"})


def checked_metric(metric: object, error: type[ImgretError] = ImgretError) -> str:
    """`metric`, if it is the name of one of the four. Raises `error`."""
    if not isinstance(metric, str):
        raise error(Sentence("The metric must be a name, not {kind}.", kind=type(metric).__name__))
    if metric not in METRICS:
        names = ", ".join(METRICS)
        raise error(
            Sentence("There is no metric {metric}; there are {metrics}.", metric=repr_short(metric), metrics=names)
        )
    return metric


def best_first(scores: Scores, metric: str) -> npt.NDArray[np.int64]:
    """Rows of `scores` (N,) from the most to the least similar under `metric`; equal scores by smaller row.

    (N,) int64.
    """
    return np.argsort(-scores if metric in LARGER_IS_CLOSER else scores, kind="stable")


def _cosine(a: Scores, b: Scores) -> Scores:
    # Not b @ a, nor a @ a: BLAS shares them out to threads, and where the cores are busy each block waits for these.
    dot = np.einsum("ij,j->i", b, a)
    norms = np.sqrt((a**2).sum()) * np.sqrt((b**2).sum(axis=1))
    cosines = np.divide(dot, norms, out=np.zeros(len(b)), where=norms > 0)
    return np.clip(cosines, -1, 1, out=cosines)  # rounding may go beyond


def _centred(x: Scores) -> Scores:
    # The first value goes first: a constant picture then becomes exact zeros, where the rounded mean of, say, 0.1 would
    # leave noise.
    shifted = x - x[..., :1]
    return shifted - shifted.mean(axis=-1, keepdims=True)


def _for_each_row(formula: Callable[[Scores, Scores], Scores], query: Array, data: Array) -> Scores:
    query, data = np.asarray(query), np.asarray(data)
    if query.dtype.kind not in "buif" or data.dtype.kind not in "buif":
        raise ImgretError(
            "The query has {query} values and the data {data}; both must be real numbers.",
            query=query.dtype,
            data=data.dtype,
        )
    if data.shape[1:] != query.shape or data.ndim == 0 or query.size == 0:
        raise ImgretError(
            "The query has shape {query} and the data {data}; the data must have the query's shape "
            "with a leading N, and at least one value a row.",
            query=query.shape,
            data=data.shape,
        )
    a = query.reshape(-1).astype(np.float64)
    rows = data.reshape(len(data), a.size)
    step = max(1, _BLOCK_VALUES // a.size)
    scores = np.empty(len(rows))
    for start in range(0, len(rows), step):
        scores[start : start + step] = formula(a, rows[start : start + step].astype(np.float64))
    return scores
