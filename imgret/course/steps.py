"""Works out a metric step by step for two small pictures, so that each number of the formula can be seen."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgret.images import ImageSource, load_image
from imgret.metrics import Scores, checked_metric

SIDE = 8


@dataclass(frozen=True)
class Step:
    """One step: its LaTeX formula and its value."""

    formula: str
    value: float


@dataclass(frozen=True)
class WorkedExample:
    """What a metric computes for the pictures `a` and `b` (8, 8) uint8.

    `terms` (8, 8) float64 are what the metric sums over the pixels; `term` is the LaTeX formula of one. The last of
    `steps` is the score, as `imgret.metrics` gives it.
    """

    a: npt.NDArray[np.uint8]
    b: npt.NDArray[np.uint8]
    term: str
    terms: Scores
    steps: tuple[Step, ...]

    @property
    def score(self) -> float:
        """The value of the metric."""
        return self.steps[-1].value


def small_picture(image: ImageSource) -> npt.NDArray[np.uint8]:
    """The picture in 8 x 8 grey pixels, (8, 8) uint8. Raises ImageError."""
    return np.asarray(load_image(image).convert("L").resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def work_out(metric: str, a: npt.NDArray[np.uint8], b: npt.NDArray[np.uint8]) -> WorkedExample:
    """The metric called `metric` for `a` and `b` (8, 8) uint8, step by step. Raises ImgretError for another name."""
    checked_metric(metric)
    x, y = a.astype(np.float64), b.astype(np.float64)
    means: tuple[Step, ...] = ()
    if metric == "l1":
        term, terms = r"|a_i - b_i|", np.abs(x - y)
        return WorkedExample(a, b, term, terms, (Step(rf"\sum {term}", float(terms.sum())),))
    if metric == "l2":
        term, terms = r"(a_i - b_i)^2", (x - y) ** 2
        total = float(terms.sum())
        sums = (Step(rf"\sum {term}", total), Step(rf"\sqrt{{\sum {term}}}", total**0.5))
        return WorkedExample(a, b, term, terms, sums)
    assert metric in ("cosine", "correlation"), metric
    left, right = "a_i", "b_i"
    if metric == "correlation":
        means = (Step(r"\bar a", float(x.mean())), Step(r"\bar b", float(y.mean())))
        x, y = x - x.mean(), y - y.mean()
        left, right = r"(a_i - \bar a)", r"(b_i - \bar b)"
    terms = x * y
    term = rf"{left}\,{right}" if means else rf"{left} \cdot {right}"
    dot, norms = float(terms.sum()), [float(np.sqrt((each**2).sum())) for each in (x, y)]
    cosine = dot / (norms[0] * norms[1]) if all(norms) else 0.0
    steps = (
        *means,
        Step(rf"\sum {term}", dot),
        Step(rf"\sqrt{{\sum {left}^2}}", norms[0]),
        Step(rf"\sqrt{{\sum {right}^2}}", norms[1]),
        Step(rf"\frac{{\sum {term}}}{{\sqrt{{\sum {left}^2}}\,\sqrt{{\sum {right}^2}}}}", min(1.0, max(-1.0, cosine))),
    )
    return WorkedExample(a, b, term, terms, steps)


def overflowed_norm(a: npt.NDArray[np.uint8]) -> tuple[float, float]:
    """The norm of `a` uint8, and what comes out where its squares stay uint8 and overflow at 256."""
    return float(np.linalg.norm(a.astype(np.float64))), float(np.sqrt((a**2).sum(dtype=np.float64)))
