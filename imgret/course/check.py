"""Checks a student's metrics in a process with limits, and looks for the smallest example that goes wrong."""

import json
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from imgret.course import child
from imgret.course.child import Case
from imgret.course.diagnosis import RIGHT, RIGHT_ORDER, WRONG, Example, Verdict, cases_of, is_wrong, judge, with_example
from imgret.errors import ImgretError
from imgret.metrics import METRICS, checked_metric

__all__ = ["FUNCTIONS", "RIGHT", "RIGHT_ORDER", "WRONG", "CheckError", "Example", "Verdict", "check", "check_file"]

FUNCTIONS = {function.__name__: metric for metric, function in METRICS.items()}
"""The metrics by the names of the course's functions."""

SECONDS = 20
"""How long loading a file and all calls of one function may take."""

_SMALL = 4
"""Examples of so many numbers are small enough."""

_Answers = tuple[list[dict[str, Any]], bool]
"""What the child process noted, and whether it was ended for taking too long."""


class CheckError(ImgretError):
    """A file or a function that cannot be checked; the text says why."""


def check(function: Callable[..., Any], metric: str, seconds: float = SECONDS) -> Verdict:
    """Checks `function(query, data)` against the metric called `metric`, or against a function of the course by name.

    It runs in a process of its own, for at most `seconds`, without network, and on Linux with at most 2 GB of memory.
    Raises CheckError for an unknown metric, and on Windows, where a function cannot be handed to another process: write
    it to a file there, for `imgret check`.
    """
    metric = checked_metric(FUNCTIONS.get(metric, metric), CheckError)
    if "fork" not in multiprocessing.get_all_start_methods():
        raise CheckError(
            "A function cannot be checked by itself on this system; write it to a file, and run imgret check."
        )

    def run(cases: Sequence[Case], seconds: float) -> _Answers:
        with tempfile.TemporaryDirectory() as folder:
            answers = Path(folder, "answers")
            forks: Any = multiprocessing.get_context("fork")  # for the types of Windows, which has none
            process = forks.Process(target=child.run, args=(function, cases, answers))
            process.start()
            process.join(seconds)
            late = process.is_alive()
            _end(process.pid)
            process.kill()
            process.join()
            return _read(answers), late

    return _checked(getattr(function, "__name__", "function"), metric, run, seconds)


def check_file(path: str | os.PathLike[str], seconds: float = SECONDS) -> list[Verdict]:
    """Checks the functions of the course that the Python file at `path` has, in the course's order. Raises CheckError
    where the file cannot be read or has none of them.
    """
    if not Path(path).is_file():
        raise CheckError("There is no file {path}; name a Python file with the functions to check.", path=path)
    notes, late = _run_file(path, "", [], seconds)
    if late:
        raise CheckError("{path} was not loaded within {seconds:g} seconds.", path=path, seconds=seconds)
    for note in notes:
        if "unreadable" in note:
            raise CheckError("{path} cannot be loaded ({reason}).", path=path, reason=note["unreadable"])
    if not any("functions" in note for note in notes):
        raise CheckError("{path} cannot be loaded: it ends the program.", path=path)
    found = [name for note in notes for name in note.get("functions", ())]
    names = [name for name in FUNCTIONS if name in found]
    if not names:
        raise CheckError(
            "{path} has none of the functions to check: {functions}.", path=path, functions=", ".join(FUNCTIONS)
        )

    def runs(name: str) -> Callable[[Sequence[Case], float], _Answers]:
        return lambda cases, seconds: _run_file(path, name, cases, seconds)

    return [_checked(name, FUNCTIONS[name], runs(name), seconds) for name in names]


def _checked(name: str, metric: str, run: Callable[[Sequence[Case], float], _Answers], seconds: float) -> Verdict:
    """The verdict on a function that `run` calls with cases, with an example as small as half of the time finds."""
    cases = cases_of(metric)
    verdict = judge(name, metric, cases, *run(cases, seconds))
    example, until = verdict.example, time.monotonic() + seconds / 2
    if verdict.verdict != WRONG or example is None or not isinstance(example.got, float | str):
        return verdict
    kind = np.uint8 if isinstance(np.ravel(example.query)[0], np.integer) else np.float64
    case = (np.array(example.query, kind), np.array([example.data], kind))
    while case[0].size > _SMALL and (left := until - time.monotonic()) > 0:
        smaller = _smaller(case)
        notes, _ = run(smaller, left)
        answers = [note for note in notes if note.keys() & {"values", "error", "memory"}]
        both = zip(smaller, answers, strict=False)  # a run that was ended has fewer answers
        found = next(((one, answer) for one, answer in both if is_wrong(metric, one, answer)), None)
        if found is None:
            break
        case = found[0]
        verdict = with_example(verdict, metric, *found)
    return verdict


def _smaller(case: Case) -> list[Case]:
    """The case without a half of its pixels, without a quarter, an eighth and so on; or as plain vectors."""
    query, data = case
    found: list[Case] = [(query.reshape(-1), data.reshape(1, -1))] if query.ndim > 1 else []
    for axis in range(min(2, query.ndim)):
        count = query.shape[axis]
        size = count // 2
        while size:
            for start in range(0, count - size + 1, size):
                left = np.r_[0:start, start + size : count]
                found.append((query.take(left, axis), data.take(left, axis + 1)))
            size //= 2
    # Pixels that are all equal are another case: their variance is 0.
    return sorted((one for one in found if all(map(np.ptp, one))), key=lambda one: one[0].size)


def _run_file(path: str | os.PathLike[str], name: str, cases: Sequence[Case], seconds: float) -> _Answers:
    with tempfile.TemporaryDirectory() as folder:
        given, answers = Path(folder, "cases"), Path(folder, "answers")
        given.write_bytes(pickle.dumps(list(cases)))
        command = [sys.executable, "-m", "imgret.course.child", os.fspath(path), name, str(given), str(answers)]
        # Each thread of a BLAS would take address space of its own, which the limit counts.
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
        environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
        null = subprocess.DEVNULL
        with subprocess.Popen(command, env=environment, stdin=null, stdout=null, stderr=null) as process:
            late = False
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                late = True
            _end(process.pid)
            process.kill()
        return _read(answers), late


def _end(session: int) -> None:
    """Ends whatever the child process has started; it leads a session of its own."""
    if sys.platform != "win32":
        with suppress(ProcessLookupError, PermissionError):  # macOS refuses a session whose processes have all ended
            os.killpg(session, signal.SIGKILL)


def _read(answers: Path) -> list[dict[str, Any]]:
    if not answers.exists():
        return []
    return [json.loads(line) for line in answers.read_text(encoding="utf-8").splitlines() if line.endswith("}")]
