"""Runs a student's function in a process of its own, with limits, and notes each answer.

python -m imgret.course.child FILE NAME CASES ANSWERS
"""

import json
import os
import pickle
import runpy
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

import numpy as np

Case = tuple[Any, Any]
"""A query and the data, as the metrics take them."""

MEMORY = 2 * 2**30
"""Bytes that a function may take beyond what its file has taken; on Linux only."""
MEMORY_TO_LOAD = 16 * 2**30
"""Bytes of addresses that loading the file may take: torch alone maps several GB."""
MAX_VALUES = 1000


def run(function: Callable[..., Any], cases: Sequence[Case], answers: Path) -> None:
    """Calls `function` with each case, in a session of its own, and appends a line of JSON to `answers` for each: its
    values and their shape, or its error. A line that says "begun" comes before, so that one knows where a process was
    ended.
    """
    with answers.open("a", encoding="utf-8") as file:
        _confine(file)
        _call(function, cases, file)


def main(file: str, name: str, cases: str, answers: str) -> None:
    """Loads `file` and runs its function called `name`; without a name notes which functions the file has."""
    with Path(answers).open("a", encoding="utf-8") as notes:
        _confine(notes)
        _limit_memory(MEMORY_TO_LOAD)
        try:
            sys.path.insert(0, str(Path(file).resolve().parent))
            sys.argv = [file]
            loaded = runpy.run_path(file, run_name="checked")
        except BaseException as error:  # sys.exit and KeyboardInterrupt, too
            line = getattr(error, "lineno", None)
            where = f" (line {line})" if line and "line" not in str(error) else ""
            _note(notes, {"unreadable": f"{type(error).__name__}: {error}{where}"[:300]})
            return
        _note(notes, {"functions": [key for key, value in loaded.items() if callable(value)]})
        if name:
            with Path(cases).open("rb") as source:
                _call(loaded[name], pickle.load(source), notes)


def _call(function: Callable[..., Any], cases: Sequence[Case], file: TextIO) -> None:
    _limit_memory(MEMORY)
    for number, (query, data) in enumerate(cases):
        _note(file, {"begun": number})
        _note(file, _answer(function, query, data))


def _answer(function: Callable[..., Any], query: Any, data: Any) -> dict[str, Any]:
    mine, its = query.copy(), data.copy()
    try:
        found = np.asarray(function(mine, its))
        if found.dtype.kind not in "buif":
            return {"error": f"answers {found.dtype} instead of numbers"}
        values = found.astype(np.float64)
    except MemoryError:
        return {"memory": True}
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}
    changed = not (np.array_equal(mine, query) and np.array_equal(its, data))
    return {"shape": list(values.shape), "values": values.ravel()[:MAX_VALUES].tolist(), "changed": changed}


def _note(file: TextIO, line: dict[str, Any]) -> None:
    file.write(json.dumps(line) + "\n")
    file.flush()


def _confine(file: TextIO) -> None:
    """Before any line of the student's runs: no terminal, no network, and a session that can be ended as a whole."""
    if sys.platform != "win32":
        with suppress(PermissionError):  # it leads one already
            os.setsid()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    sys.stdout = sys.stderr = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 - in a notebook they are no files

    # Python asks the hook before it opens a socket, on every system. A function that catches the error is noted, too.
    def hook(event: str, _: Any) -> None:
        if event.startswith("socket."):
            _note(file, {"socket": True})
            raise PermissionError("a metric needs no network")

    sys.addaudithook(hook)


def _limit_memory(size: int) -> None:
    if sys.platform == "linux":
        import resource

        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        most = resource.getrlimit(resource.RLIMIT_AS)[1]
        limit = taken + size if most == resource.RLIM_INFINITY else min(taken + size, most)
        resource.setrlimit(resource.RLIMIT_AS, (limit, most))


if __name__ == "__main__":
    main(*sys.argv[1:])
