"""A student's metric is right, right in order, or wrong with the smallest example that shows it."""

import json
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.distance import cdist

from imgret import metrics
from imgret.course.check import FUNCTIONS, CheckError, check, check_file
from tests.conftest import run_imgret
from tests.test_cli import refused


def axes(data):
    return tuple(range(1, data.ndim))


def f(x):
    return x.astype(np.float64)


def norm(data):
    return np.sqrt((f(data) ** 2).sum(axis=axes(data)))


def centred(data, keep=True):
    return f(data) - f(data).mean(axis=axes(data), keepdims=True)


def dot(query, data):
    return (f(data) * f(query)).sum(axis=axes(data))


def safe(a, b):
    return np.divide(a, b, out=np.zeros_like(a), where=b > 0)


def course_cosine(query, data):
    """As in the course: the query stays uint8, so its squares overflow."""
    lengths = np.sqrt((f(data) ** 2).sum(axis=axes(data))) * np.sqrt(np.sum(query**2))
    return safe((f(data) * query).sum(axis=axes(data)), lengths)


def cosine(query, data):
    return safe(dot(query, data), norm(data) * norm(query[None]))


def correlation(query, data):
    return cosine(centred(query[None])[0], centred(data))


MUTANTS = {
    "L1 in uint8": ("l1", lambda q, d: np.abs(d - q).sum(axis=axes(d))),
    "L1 without abs": ("l1", lambda q, d: (f(d) - f(q)).sum(axis=axes(d))),
    "L1 of the sums": ("l1", lambda q, d: np.abs((f(d) - f(q)).sum(axis=axes(d)))),
    "L1 over the wrong axis": ("l1", lambda q, d: np.abs(f(d) - f(q)).sum(axis=0)),
    "L1 over the last axis only": ("l1", lambda q, d: np.abs(f(d) - f(q)).sum(axis=-1)),
    "L1 negated": ("l1", lambda q, d: -np.abs(f(d) - f(q)).sum(axis=axes(d))),
    "L1 for L2": ("l2", lambda q, d: np.abs(f(d) - f(q)).sum(axis=axes(d))),
    "L1 as one number": ("l1", lambda q, d: np.abs(f(d) - f(q)).sum()),
    "L1 of the largest difference": ("l1", lambda q, d: np.abs(f(d) - f(q)).max(axis=axes(d))),
    "L2 in uint8": ("l2", lambda q, d: np.sqrt(((d - q) ** 2).sum(axis=axes(d)))),
    "L2 with the root before the sum": ("l2", lambda q, d: np.sqrt((f(d) - f(q)) ** 2).sum(axis=axes(d))),
    "L2 negated": ("l2", lambda q, d: -np.sqrt(((f(d) - f(q)) ** 2).sum(axis=axes(d)))),
    "cosine without lengths": ("cosine", dot),
    "cosine without the data's length": ("cosine", lambda q, d: dot(q, d) / (norm(q[None]) + 1e-300)),
    "cosine without the query's length": ("cosine", lambda q, d: safe(dot(q, d), norm(d))),
    "cosine as a distance": ("cosine", lambda q, d: 1 - cosine(q, d)),
    "cosine of the course": ("cosine", course_cosine),
    "cosine 1 for zero vectors": ("cosine", lambda q, d: np.where(norm(d) * norm(q[None]) > 0, cosine(q, d), 1.0)),
    "correlation without means": ("correlation", cosine),
    "correlation with one mean": ("correlation", lambda q, d: cosine(centred(q[None])[0], f(d))),
    "correlation as covariance": ("correlation", lambda q, d: dot(centred(q[None])[0], centred(d))),
    "correlation squared": ("correlation", lambda q, d: correlation(q, d) ** 2),
    "correlation over all rows' mean": ("correlation", lambda q, d: cosine(f(q) - f(q).mean(), f(d) - f(d).mean())),
    "L2 that changes its data": (
        "l2",
        lambda q, d: (d.__imul__(1), d.fill(0), metrics.mean_square_difference(q, d))[2],
    ),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_mutant_is_wrong_and_an_example_shows_it(mutant):
    metric, function = MUTANTS[mutant]
    found = check(function, metric)
    assert found.verdict == "wrong", found
    assert found.example is not None
    assert found.sentence


@pytest.mark.parametrize("mutant", ["L1 in uint8", "L2 in uint8", "cosine of the course"])
def test_an_overflow_is_named_and_shown_with_at_most_four_pixels(mutant):
    metric, function = MUTANTS[mutant]
    found = check(function, metric)
    assert "uint8" in found.sentence
    assert np.size(found.example.query) <= 4
    example = found.example
    query, data = np.array(example.query, np.uint8), np.array([example.data], np.uint8)
    assert example.expected == pytest.approx(metrics.METRICS[metric](query, data)[0])
    assert example.got == pytest.approx(function(query, data)[0])
    assert example.got != pytest.approx(example.expected)


def flat(function):
    return lambda q, d: function(q.reshape(1, -1).astype(float), d.reshape(len(d), -1).astype(float))[0]


RIGHT = {
    **{name: (metric, metrics.METRICS[metric]) for name, metric in FUNCTIONS.items()},
    "in float32": ("l2", lambda q, d: np.sqrt(((d.astype("f4") - q.astype("f4")) ** 2).sum(axis=axes(d)))),
    "as a list": ("l1", lambda q, d: list(np.abs(f(d) - f(q)).sum(axis=axes(d)))),
    "scipy L1": ("l1", flat(lambda a, b: cdist(a, b, "cityblock"))),
    "scipy L2": ("l2", flat(lambda a, b: cdist(a, b, "euclidean"))),
    "own cosine": ("cosine", cosine),
    "own correlation": ("correlation", correlation),
}
RIGHT_ORDER = {
    "mean of squares": ("l2", lambda q, d: ((f(d) - f(q)) ** 2).mean(axis=axes(d))),
    "sum of squares": ("l2", lambda q, d: ((f(d) - f(q)) ** 2).sum(axis=axes(d))),
    "mean of differences": ("l1", lambda q, d: np.abs(f(d) - f(q)).mean(axis=axes(d))),
    "angle": ("cosine", lambda q, d: 1 - np.arccos(np.clip(cosine(q, d), -1, 1)) / np.pi),
    "scipy cosine": ("cosine", flat(lambda a, b: 1 - cdist(a, b, "cosine"))),
    "scipy correlation": ("correlation", flat(lambda a, b: 1 - cdist(a, b, "correlation"))),
}


@pytest.mark.parametrize("function", RIGHT)
def test_a_right_function_is_right(function):
    metric, written = RIGHT[function]
    found = check(written, metric)
    assert (found.verdict, found.sentence, found.example) == ("right", None, None), found


@pytest.mark.parametrize("function", RIGHT_ORDER)
def test_the_same_order_in_another_unit_passes_with_a_remark(function):
    metric, written = RIGHT_ORDER[function]
    found = check(written, metric)
    assert found.verdict == "right order", found
    assert found.sentence


def endless(query, data):
    while True:
        pass


def hungry(query, data):
    """Asks for 4 GB in steps that any machine would give it."""
    return len([np.empty(2**23) for _ in range(64)])


def networked(query, data):
    import socket

    with suppress(OSError):
        socket.create_connection(("127.0.0.1", 9))
    return np.abs(f(data) - f(query)).sum(axis=axes(data))


def leaving(query, data):
    import os

    os._exit(0)


def failing(query, data):
    raise KeyError("x")


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (endless, "does not return in time"),
        (hungry, "more than 2 GB"),
        (networked, "network"),
        (leaving, "ends the program"),
        (failing, "KeyError"),
    ],
)
def test_a_function_that_cannot_be_left_alone_ends_in_a_sentence(function, said):
    found = check(function, "l1", seconds=3)
    assert found.verdict == "wrong"
    assert said in found.sentence


def test_a_function_that_changes_its_arrays_is_told_so():
    found = check(lambda q, d: (metrics.absolute_difference(q, d), d.fill(0))[0], "l1")
    assert (found.verdict, "changes the arrays" in found.sentence) == ("wrong", True)


def test_what_a_function_prints_stays_away(capfd):
    def loud(query, data):
        print("here I am")
        subprocess.run(["echo", "and I"])
        return metrics.absolute_difference(query, data)

    assert check(loud, "l1").verdict == "right"
    assert capfd.readouterr() == ("", "")


def test_a_monotone_change_of_each_query_alone_is_no_right_order():
    """Scores of two queries are compared, too: a factor that depends on the query is an error."""
    found = check(lambda q, d: metrics.mean_square_difference(q, d) * (1 + f(q).sum()), "l2")
    assert found.verdict == "wrong"


def overflowing(kind):
    def cosine_of(query, data):
        q, d = query.astype(kind), data.astype(kind)
        lengths = np.sqrt(dot(query, data[:0]).sum() + (f(query) ** 2).sum()) * norm(data)
        return safe((d * q).sum(axis=axes(data)).astype(float), lengths)

    return cosine_of


@pytest.mark.parametrize(
    ("metric", "function", "cause"),
    [
        ("correlation", cosine, "the mean is not taken off"),
        ("correlation", lambda q, d: dot(centred(q[None])[0], centred(d)), "the lengths are missing"),
        ("correlation", lambda q, d: dot(centred(q[None])[0], centred(d)) / q.size, "the lengths are missing"),
        ("cosine", lambda q, d: safe(dot(q, d), (norm(d) * norm(q[None])) ** 2), "lack their roots"),
        ("cosine", lambda q, d: safe(dot(q, d), norm(d)), "one of the two lengths"),
        ("cosine", overflowing(np.int16), "8 or 16 bits"),
        ("l2", lambda q, d: np.sqrt(((d.astype("i2") - q.astype("i2")) ** 2).sum(axis=axes(d))), "8 or 16 bits"),
        ("l2", lambda q, d: -metrics.mean_square_difference(q, d), "the order is reversed"),
        ("l1", lambda q, d: -metrics.absolute_difference(q, d), "the order is reversed"),
        ("l1", lambda q, d: (f(d) - f(q)).sum(axis=axes(d)), "with their signs"),
        ("l2", lambda q, d: np.abs(f(d) - f(q)).sum(axis=axes(d)), "values of L1"),
        ("l2", lambda q, d: ((f(d) - f(q)) ** 2).sum(axis=axes(d)), "without the root"),
        ("l2", lambda q, d: ((f(d) - f(q)) ** 2).mean(axis=axes(d)), "mean of squares, as in the course's code"),
        ("l1", lambda q, d: np.abs(f(d) - f(q)).mean(axis=axes(d)), "the mean, not the sum"),
    ],
)
def test_a_common_mistake_has_its_cause(metric, function, cause):
    with np.errstate(all="ignore"):
        found = check(function, metric)
    assert cause in found.sentence, found


def test_a_fault_of_larger_pictures_is_shown_by_the_smallest_one_that_has_it():
    def at_size(query, data):
        return metrics.absolute_difference(query, data) * (-1 if query.size >= 7 else 1)

    def with_error(query, data):
        if query.ndim == 3 and query.shape[0] > 2:
            raise KeyError("tall")
        return metrics.correlation_coefficient(query, data)

    found = check(at_size, "l1")
    assert (found.verdict, np.size(found.example.query)) == ("wrong", 7)
    assert found.example.got == -found.example.expected
    assert str(found.example.query) in found.sentence
    found = check(with_error, "correlation")
    assert np.shape(found.example.query) == (3, 1, 3)
    assert "a picture" not in found.sentence
    assert "KeyError: 'tall'" in found.sentence


SUBMISSION = """
import numpy as np
print("loaded")

def absolute_difference(query, data):
    return np.sum(np.abs(data - query), axis=tuple(range(1, data.ndim)))

def mean_square_difference(query, data):
    return np.mean((data.astype(float) - query) ** 2, axis=tuple(range(1, data.ndim)))
"""


def imgret(*arguments, code=0):
    done = run_imgret(*arguments)
    assert done.returncode == code, done
    return done


def test_the_command_prints_verdicts_in_both_languages_and_as_json(tmp_path):
    file = tmp_path / "my_metrics.py"
    file.write_text(SUBMISSION)
    printed = imgret("check", file, "--json", code=3)
    found = json.loads(printed.stdout)
    assert {name: one["verdict"] for name, one in found.items()} == {
        "absolute_difference": "wrong",
        "mean_square_difference": "right order",
    }
    assert found["absolute_difference"]["example"]["query"] == [200]
    assert "cosine_similarity, correlation_coefficient" in printed.stderr
    vietnamese = imgret("check", file, "--language", "vi", code=3)
    assert "tràn số" in vietnamese.stdout
    assert "không có trong tệp" in vietnamese.stderr
    assert "Không có tệp" in imgret("check", tmp_path / "none.py", "--language", "vi", code=2).stderr
    file.write_text(SUBMISSION.split("def mean")[1].join(["import numpy as np\ndef mean", ""]))
    assert "right order" in imgret("check", file).stdout


def test_a_file_that_cannot_be_checked_is_a_sentence(tmp_path):
    assert refused(imgret("check", tmp_path / "none.py", code=2), "no file")
    for text, said in (
        ("def f(:", "cannot be loaded"),
        ("x = 1", "none of the functions"),
        ("1/0", "ZeroDivisionError"),
        ("raise SystemExit(0)", "SystemExit"),
        ("import os; os._exit(0)", "ends the program"),
        ("import socket; socket.create_connection(('127.0.0.1', 9))", "no network"),
    ):
        (tmp_path / "bad.py").write_text(text)
        assert refused(imgret("check", tmp_path / "bad.py", code=2), said)
    (tmp_path / "bad.py").write_text("while True: pass")
    with pytest.raises(CheckError, match="not loaded within 1 seconds"):
        check_file(tmp_path / "bad.py", seconds=1)
    with pytest.raises(CheckError, match="no metric"):
        check(endless, "l3")


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux only")
def test_a_file_that_takes_memory_while_loading_is_a_sentence(tmp_path):
    (tmp_path / "large.py").write_text("import mmap\nkept = [mmap.mmap(-1, 2**31) for _ in range(20)]\n")
    with pytest.raises(CheckError, match="cannot be loaded"):
        check_file(tmp_path / "large.py")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no sessions of processes")
def test_what_a_function_starts_ends_with_it(tmp_path):
    told = tmp_path / "told"
    (tmp_path / "my_metrics.py").write_text(
        "import subprocess, sys\nimport numpy as np\n"
        "def absolute_difference(query, data):\n"
        f"    child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        f"    open({str(told)!r}, 'a').write(f'{{child.pid}}\\n')\n"
        "    return np.abs(data.astype(float) - query).sum(axis=tuple(range(1, data.ndim)))\n"
    )
    assert check_file(tmp_path / "my_metrics.py")[0].verdict == "right"
    for pid in map(int, told.read_text().split()):
        state = Path(f"/proc/{pid}/stat")
        until = time.monotonic() + 5
        while state.exists() and state.read_text().split()[2] != "Z" and time.monotonic() < until:
            time.sleep(0.05)
        assert not state.exists() or state.read_text().split()[2] == "Z"


def test_json_has_no_word_that_json_lacks(tmp_path):
    (tmp_path / "my_metrics.py").write_text(
        "import numpy as np\ndef mean_square_difference(q, d): return np.full(len(d), np.nan)\n"
        "def absolute_difference(q, d): return np.full(len(d), np.inf)\n"
    )
    printed = imgret("check", tmp_path / "my_metrics.py", "--json", code=3).stdout

    def refuse(word):
        raise AssertionError(word)

    found = json.loads(printed, parse_constant=refuse)
    assert found["mean_square_difference"]["example"]["got"] == "nan"
    assert found["absolute_difference"]["example"]["got"] == "inf"
