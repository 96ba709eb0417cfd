"""Says what is wrong with a student's metric, from its answers to small cases."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from imgret.course.child import Case
from imgret.errors import Sentence
from imgret.metrics import LARGER_IS_CLOSER, METRICS
from imgret.vietnamese import translated

RIGHT, RIGHT_ORDER, WRONG = "right", "right order", "wrong"

_Values = npt.NDArray[Any]
_TOLERANCE = 1e-5
_CAUSES = {
    "uint8": Sentence("the numbers overflow, as the pixels stay uint8 (0 to 255); make them float first"),
    "mean": Sentence("the mean is not taken off, so this is the cosine similarity"),
    "norms": Sentence("the lengths are missing, so this is the product a.b alone"),
    "roots": Sentence("the lengths lack their roots"),
    "narrow": Sentence("the numbers overflow, as they are whole numbers of 8 or 16 bits; make them float first"),
    "one norm": Sentence("one of the two lengths is missing"),
    "l1": Sentence("these are the values of L1"),
    "l2": Sentence("these are the values of L2"),
    "signed": Sentence("the differences are summed with their signs, so they cancel each other out"),
    "reversed": Sentence("the order is reversed: the most similar comes last"),
    "zero": Sentence("where a length or a variance is 0, the answer is to be 0"),
    "values": Sentence("both the values and their order differ"),
}
_UNITS = {
    "sum of squares": Sentence("this is the sum of squares, without the root"),
    "mean of squares": Sentence("this is the mean of squares, as in the course's code"),
    "root mean square": Sentence("the root is of the mean, not of the sum"),
    "mean": Sentence("this is the mean, not the sum"),
}


@dataclass(frozen=True)
class Example:
    """The smallest example found: a query, one row of the data, what the formula gives, and what the function gave."""

    query: Any
    data: Any
    expected: float | list[int]
    got: float | str | list[int] | None


@dataclass(frozen=True)
class Verdict:
    """What a check found. `verdict` is "right", "right order" (other numbers, the same ranking) or "wrong"; `sentence`
    says why unless it is right, and `example` shows it.
    """

    function: str
    verdict: str
    sentence: Sentence | None = None
    example: Example | None = None

    def as_dict(self, language: str = "en") -> dict[str, Any]:
        """The verdict as `imgret check --json` prints it."""
        shown = None
        if self.example is not None:
            one = self.example
            # JSON has no word for nan and infinity.
            got = str(one.got) if isinstance(one.got, float) and not math.isfinite(one.got) else one.got
            shown = {"query": one.query, "data": one.data, "expected": one.expected, "got": got}
        sentence = None if self.sentence is None else translated(self.sentence, language)
        return {"verdict": self.verdict, "example": shown, "sentence": sentence}

    def text(self, language: str = "en") -> str:
        """The verdict in lines, for people."""
        verdicts = {RIGHT: Sentence("right"), RIGHT_ORDER: Sentence("right order"), WRONG: Sentence("wrong")}
        first = f"{self.function}: {translated(verdicts[self.verdict], language)}"
        return first if self.sentence is None else f"{first}\n  {translated(self.sentence, language)}"

    def __repr__(self) -> str:
        return self.text()


def cases_of(metric: str) -> list[Case]:
    """Queries and data from small to large: single pixels, a few pixels, pictures; each uint8 and float64."""
    draw = np.random.default_rng(0)
    small = [
        ([200], [[250], [100], [190]]),
        ([3, 1], [[1, 3], [3, 2], [6, 2], [9, 1]]),
        ([200, 10], [[10, 200], [250, 30], [100, 90], [200, 12]]),
        ([1, 2, 4], [[2, 4, 9], [4, 2, 1], [5, 6, 7], [3, 3, 5]]),
        ([250, 3, 120, 90], [[3, 250, 90, 120], [255, 0, 130, 80], [120, 2, 60, 44], [9, 200, 7, 255], [1, 1, 1, 2]]),
    ]
    if metric == "correlation":  # a single pixel has no variance
        small = small[1:]
    cases = [(np.array(query, np.uint8), np.array(data, np.uint8)) for query, data in small]
    for shape, count in (((1, 1, 3), 4), ((2, 2, 3), 5), ((4, 3, 3), 7), ((8, 8, 3), 6), ((48,), 9)):
        low, high = (0, 8) if shape == (2, 2, 3) else (0, 256)
        query = draw.integers(low, high, shape, dtype=np.uint8)
        cases.append((query, draw.integers(low, high, (count, *shape), dtype=np.uint8)))
    both = [case for query, data in cases for case in ((query, data), (query.astype(float), data.astype(float)))]
    zero = [(np.array(query, float), np.array(data, float)) for query, data in _zeros(metric)]
    return [*both, *zero]


def _zeros(metric: str) -> list[tuple[list[int], list[list[int]]]]:
    if metric == "cosine":
        return [([3, 4], [[0, 0], [4, 3]]), ([0, 0], [[1, 2], [3, 4]])]
    if metric == "correlation":
        return [([3, 4], [[5, 5], [3, 7]]), ([5, 5], [[1, 2], [3, 4]]), ([0, 0], [[1, 2], [0, 0]])]
    return [([0, 0], [[0, 0], [1, 2]])]


def judge(name: str, metric: str, cases: Sequence[Case], notes: Sequence[dict[str, Any]], late: bool) -> Verdict:
    """The verdict on a student's function, from the `notes` that its process took while it answered the `cases`.

    `late` says that the process was stopped, as its time was over.
    """

    def wrong(sentence: Sentence, example: Example | None = None) -> Verdict:
        return Verdict(name, WRONG, sentence, example)

    begun = [note["begun"] for note in notes if "begun" in note]
    answers = [note for note in notes if note.keys() & {"values", "error", "memory"}]
    expected = [METRICS[metric](query, data) for query, data in cases]
    calls = list(notes)[next((n for n, note in enumerate(notes) if "begun" in note), len(notes)) :]
    if any("socket" in note for note in calls):  # that a file which it imports asked for one while loading is no matter
        return wrong(Sentence("It opens a network connection, which a metric does not need."))
    for number, answer in enumerate(answers):
        query, data = cases[number]
        shown = _example(query, data, expected[number], 0, None)
        if "memory" in answer:
            return wrong(
                Sentence("It takes more than {size} GB of memory for {example}.", size=2, example=_in_words(shown)),
                shown,
            )
        if "error" in answer:
            shown = _example(query, data, expected[number], 0, answer["error"])
            return wrong(
                Sentence(
                    "It ends with an error for {example}: {error}", example=_in_words(shown), error=answer["error"]
                ),
                shown,
            )
        if answer["changed"]:
            return wrong(Sentence("It changes the arrays that it is given; work on copies."), shown)
        if answer["shape"] != [len(data)]:
            shown = Example(query.tolist(), data.tolist(), [len(data)], answer["shape"])
            return wrong(
                Sentence(
                    "The answer has shape {got} instead of {wanted}, one value a picture: data of shape {data} is "
                    "summed over all axes but the first.",
                    got=tuple(answer["shape"]),
                    wanted=(len(data),),
                    data=data.shape,
                ),
                shown,
            )
    if len(answers) < len(cases):
        query, data = cases[begun[-1]] if begun else cases[0]
        shown = _example(query, data, expected[begun[-1] if begun else 0], 0, None)
        if late:
            return wrong(Sentence("It does not return in time for {example}.", example=_in_words(shown)), shown)
        return wrong(
            Sentence("It ends the program instead of returning, for {example}.", example=_in_words(shown)), shown
        )
    got = [np.array(answer["values"], dtype=np.float64) for answer in answers]
    return _compared(name, metric, cases, expected, got)


def _compared(
    name: str, metric: str, cases: Sequence[Case], expected: Sequence[_Values], got: Sequence[_Values]
) -> Verdict:
    regular = len(cases) - len(_zeros(metric))
    off = [~np.isclose(one, other, rtol=_TOLERANCE, atol=1e-7) for one, other in zip(got, expected, strict=True)]
    first = next((number for number in range(regular) if off[number].any()), None)
    if first is not None and not _same_order(metric, cases[:regular], expected, got):
        row = int(np.argmax(off[first]))
        shown = _example(*cases[first], expected[first], row, float(got[first][row]))
        cause = _CAUSES[_cause(metric, cases, expected, got, off)]
        return Verdict(name, WRONG, _because(shown, cause), shown)
    ordered = _same_order(metric, cases, expected, got)
    for number in range(regular, len(cases)):
        missing = np.isnan(got[number]) & ~np.isnan(expected[number])
        if (other := off[number] & ~missing).any() and (first is None or not (ordered or missing.any())):
            row = int(np.argmax(other))
            shown = _example(*cases[number], expected[number], row, float(got[number][row]))
            return Verdict(name, WRONG, _because(shown, _CAUSES["zero"]), shown)
        if missing.any():
            row = int(np.argmax(missing))
            shown = _example(*cases[number], expected[number], row, None)
            sentence = Sentence(
                "The ranking is right, but for {example} it gives no number (nan) instead of 0: {cause}.",
                example=_in_words(shown),
                cause=_CAUSES["zero"],
            )
            return Verdict(name, RIGHT_ORDER, sentence, shown)
    if first is None:
        return Verdict(name, RIGHT)
    row = int(np.argmax(off[first]))
    shown = _example(*cases[first], expected[first], row, float(got[first][row]))
    values: dict[str, Any] = {"example": _in_words(shown), "expected": shown.expected, "got": shown.got}
    unit = next((unit for unit, formula in _units(metric).items() if _explains(formula, cases, got)), None)
    if unit is None:
        sentence = Sentence(
            "The ranking is right in another unit: for {example} the formula gives {expected:.6g}, the function "
            "{got:.6g}.",
            **values,
        )
    else:
        sentence = Sentence(
            "The ranking is right in another unit: for {example} the formula gives {expected:.6g}, the function "
            "{got:.6g}: {cause}.",
            **values,
            cause=_UNITS[unit],
        )
    return Verdict(name, RIGHT_ORDER, sentence, shown)


_Formula = Callable[[_Values, _Values], _Values]


def _units(metric: str) -> dict[str, _Formula]:
    """Formulas that rank as the metric does."""
    if metric == "l1":
        return {"mean": lambda a, b: np.abs(a - b).mean(axis=1)}
    if metric == "l2":
        return {
            "sum of squares": lambda a, b: ((a - b) ** 2).sum(axis=1),
            "mean of squares": lambda a, b: ((a - b) ** 2).mean(axis=1),
            "root mean square": lambda a, b: np.sqrt(((a - b) ** 2).mean(axis=1)),
        }
    return {}


def _explains(formula: _Formula, cases: Sequence[Case], got: Sequence[_Values]) -> bool:
    """Whether the formula gives these values for all cases of floats. It gets (D,) and (N, D)."""
    for (query, data), values in zip(cases, got, strict=True):
        if query.dtype == np.uint8 or not query.any():
            continue
        a, b = query.reshape(-1).astype(float), data.reshape(len(data), -1).astype(float)
        with np.errstate(all="ignore"):
            if not np.allclose(values, formula(a, b), rtol=1e-4, atol=1e-6, equal_nan=True):
                return False
    return True


def _same_order(metric: str, cases: Sequence[Case], expected: Sequence[_Values], got: Sequence[_Values]) -> bool:
    """Whether the values grow with the expected ones over all queries of one size, so that only the unit differs."""
    sizes = {query.size for query, _ in cases}
    for size in sizes:
        its = [number for number, (query, _) in enumerate(cases) if query.size == size]
        want, have = (np.concatenate([values[number] for number in its]) for values in (expected, got))
        if not np.isfinite(have).all():
            return False
        margin = _TOLERANCE * max(float(np.abs(want).max()), 1e-9)
        larger = want[:, None] > want[None, :] + margin
        equal = np.abs(want[:, None] - want[None, :]) <= 1e-9 * max(float(np.abs(want).max()), 1e-9)
        near = np.abs(have[:, None] - have[None, :]) <= 1e-4 * max(float(np.abs(have).max()), 1e-9)
        if not (have[:, None] > have[None, :])[larger].all() or not near[equal].all():
            return False
    return True


def _cause(
    metric: str, cases: Sequence[Case], expected: Sequence[_Values], got: Sequence[_Values], off: Sequence[Any]
) -> str:
    """The name of the cause that explains the values."""
    regular = len(cases) - len(_zeros(metric))
    bytes_off = any(off[number].any() for number in range(0, regular, 2))
    floats = range(1, regular, 2)
    floats_right = _same_order(
        metric, [cases[i] for i in floats], [expected[i] for i in floats], [got[i] for i in floats]
    )
    if bytes_off and floats_right:
        return "uint8"

    regular_cases, regular_got = cases[:regular], got[:regular]
    if _explains(METRICS[metric], regular_cases, regular_got):
        return "uint8"
    for cause, formulas in _mistakes(metric).items():
        if any(_explains(formula, regular_cases, regular_got) for formula in formulas):
            return cause
    negated = [-values for values in got]
    if _same_order(metric, [cases[i] for i in floats], [expected[i] for i in floats], [negated[i] for i in floats]):
        return "reversed"
    return "values"


def _mistakes(metric: str) -> dict[str, list[_Formula]]:
    """Formulas that are often written for the metric, by the name of the cause; the first that fits is told."""
    return {
        "mean": [METRICS["cosine"]] if metric == "correlation" else [],
        **(_wrong_lengths(centred=metric == "correlation") if metric in LARGER_IS_CLOSER else {}),
        "narrow": [*_overflowing(metric, np.int8), *_overflowing(metric, np.int16)],
        "l1": [METRICS["l1"]] if metric != "l1" else [],
        "l2": [METRICS["l2"]] if metric != "l2" else [],
        "signed": [
            lambda a, b: (a - b).sum(axis=1),
            lambda a, b: (b - a).sum(axis=1),
            lambda a, b: np.abs((a - b).sum(axis=1)),
        ],
    }


def _wrong_lengths(*, centred: bool) -> dict[str, list[_Formula]]:
    """Cosine and correlation with lengths that are missing or lack their roots."""

    def off(a: _Values) -> _Values:
        return a - a.mean(axis=-1, keepdims=True) if centred else a

    def product(a: _Values, b: _Values) -> _Values:
        return np.asarray(off(b) @ off(a))

    def length(a: _Values) -> _Values:
        return np.asarray(np.linalg.norm(off(a), axis=-1))

    return {
        "norms": [lambda a, b: b @ a, product, lambda a, b: product(a, b) / a.size],
        "one norm": [
            lambda a, b: b @ a / np.linalg.norm(a),
            lambda a, b: b @ a / np.linalg.norm(b, axis=1),
            lambda a, b: product(a, b) / length(a),
            lambda a, b: product(a, b) / length(b),
        ],
        "roots": [
            lambda a, b: product(a, b) / (length(a) * length(b)) ** 2,
            lambda a, b: product(a, b) / (length(a) ** 2 * length(b)),
            lambda a, b: product(a, b) / (length(a) * length(b) ** 2),
        ],
    }


def _overflowing(metric: str, kind: type[np.signedinteger[Any]]) -> list[_Formula]:
    """The metric in whole numbers of a type that is too narrow for it."""

    def dot(a: _Values, b: _Values) -> _Values:
        return np.asarray((b.astype(kind) * a.astype(kind)).sum(axis=-1, dtype=float))

    def squares(a: _Values, b: _Values) -> _Values:
        return np.asarray(((b.astype(kind) - a.astype(kind)) ** 2).sum(axis=1, dtype=float))

    formulas: dict[str, list[_Formula]] = {
        "l1": [lambda a, b: np.abs(b.astype(kind) - a.astype(kind)).sum(axis=1, dtype=float)],
        "l2": [lambda a, b: np.sqrt(squares(a, b)), squares, lambda a, b: squares(a, b) / a.size],
        "cosine": [
            lambda a, b: dot(a, b) / np.sqrt(dot(a, a) * dot(b, b)),
            lambda a, b: dot(a, b) / np.sqrt((a * a).sum() * (b * b).sum(axis=1)),
            lambda a, b: b @ a / np.sqrt(dot(a, a) * dot(b, b)),
        ],
        "correlation": [],
    }
    return formulas[metric]


def _because(shown: Example, cause: Sentence) -> Sentence:
    return Sentence(
        "For {example} the formula gives {expected:.6g}, the function {got:.6g}: {cause}.",
        example=_in_words(shown),
        expected=shown.expected,
        got=shown.got,
        cause=cause,
    )


def _example(query: _Values, data: _Values, expected: _Values, row: int, got: float | str | None) -> Example:
    return Example(query.tolist(), data[row].tolist(), float(expected[row]), got)


def _in_words(shown: Example) -> Sentence:
    """An example in a sentence; the pixels of larger pictures are left to the JSON."""
    if np.size(shown.query) > 12:
        return Sentence("a picture of {count} numbers", count=np.size(shown.query))
    return Sentence("query {query} and data [{data}]", query=shown.query, data=shown.data)


def is_wrong(metric: str, case: Case, answer: dict[str, Any]) -> bool:
    """Whether this answer to a case of one row is an error or another value than the formula's."""
    if "error" in answer:
        return True
    if answer.get("shape") != [1]:
        return False
    return not np.isclose(answer["values"][0], METRICS[metric](*case)[0], rtol=_TOLERANCE, atol=1e-7)


def with_example(verdict: Verdict, metric: str, case: Case, answer: dict[str, Any]) -> Verdict:
    """The verdict shown by a case of one row instead of its own example."""
    assert verdict.sentence is not None
    got = answer["error"] if "error" in answer else float(answer["values"][0])
    shown = _example(*case, METRICS[metric](*case), 0, got)
    shown_values = {"example": _in_words(shown), "expected": shown.expected, "got": got, "error": got}
    values = verdict.sentence.values | {
        name: value for name, value in shown_values.items() if name in verdict.sentence.values
    }
    return replace(verdict, sentence=Sentence(verdict.sentence.template, **values), example=shown)
