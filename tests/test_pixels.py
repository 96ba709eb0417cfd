"""Exact pixel search finds what brute force finds, whatever the library, and says so when it is asked nonsense."""

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from imgret.files.npy import read_only
from imgret.metrics import LARGER_IS_CLOSER, METRICS, best_first
from imgret.pixels import PixelIndex, exact, sketches
from imgret.pixels.sketches import kernels

DIMS = (1, 3, 12, 127, 147, 300, 519, 1200, 2187, 2500, 6348, 6500)
"""With and without each level, square pictures and not, sides that the blocks divide and that they do not."""


def assert_exact(
    found: tuple[np.ndarray, np.ndarray], query: np.ndarray, vectors: np.ndarray, metric: str, k: int
) -> None:
    rows, scores = found
    truth = METRICS[metric](query, vectors)
    best = best_first(truth, metric)[:k]
    assert rows.dtype == np.int64
    assert scores.dtype == np.float64
    assert len(set(rows.tolist())) == len(rows) == len(scores) == len(best)
    if metric in LARGER_IS_CLOSER:  # scores within 1e-12 may stand in either order
        np.testing.assert_allclose(scores, truth[best], rtol=0, atol=1e-12)
        np.testing.assert_allclose(scores, truth[rows], rtol=0, atol=1e-12)
    else:
        np.testing.assert_array_equal(rows, best)
        np.testing.assert_array_equal(scores, truth[best])


def smooth(rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    """Rows that a sketch can tell apart, as photographs are: a few waves, and a little noise."""
    waves = np.cos(np.arange(dim) * np.pi * rng.integers(0, 12, (12, 1)) / dim)
    return np.clip(128 + rng.normal(0, 30, (n, 12)) @ waves + rng.normal(0, 4, (n, dim)), 0, 255).astype(np.uint8)


def library(kind: str, rng: np.random.Generator, n: int, dim: int) -> np.ndarray:
    if kind == "noise":
        return rng.integers(0, 256, (n, dim), np.uint8)
    if kind == "black":
        return np.zeros((n, dim), np.uint8)
    if kind == "equal":
        return np.tile(rng.integers(0, 256, dim, np.uint8), (n, 1))
    if kind == "constant":
        return np.repeat(rng.integers(0, 256, (n, 1), np.uint8), dim, axis=1)
    if kind == "two values":
        return 255 * rng.integers(0, 2, (n, dim), np.uint8)
    vectors = smooth(rng, n, dim)
    if kind == "outlier":
        vectors[rng.integers(n)] = 255
    if kind == "copies":
        vectors = vectors[rng.integers(0, max(1, n // 50), n)]
    if kind == "nearly black":
        vectors = np.where(rng.random((n, 1)) < 0.3, 0, vectors // 60).astype(np.uint8)
    return vectors


KINDS = ("smooth", "noise", "black", "equal", "constant", "two values", "outlier", "copies", "nearly black")


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    n=st.sampled_from((1, 2, 5, 513, 1200, 2500)),
    dim=st.sampled_from(DIMS),
    k=st.sampled_from((1, 3, 10, 40, 3000)),
    asked=st.sampled_from(("row", "near", "noise", "black", "constant")),
    seed=st.integers(0, 2**32 - 1),
    small_rows=st.sampled_from((0, exact.SMALL_ROWS)),
)
def test_every_library_gives_the_answers_of_brute_force(
    kind: str, n: int, dim: int, k: int, asked: str, seed: int, small_rows: int
) -> None:
    rng = np.random.default_rng(seed)
    vectors = library(kind, rng, n, dim)
    query = vectors[rng.integers(n)].copy()
    if asked == "near":
        query = np.clip(query.astype(int) + rng.integers(-3, 4, dim), 0, 255).astype(np.uint8)
    elif asked != "row":
        query = library(asked, rng, 1, dim)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exact, "SMALL_ROWS", small_rows)
        index = PixelIndex.fit(vectors)
    for metric in METRICS:
        assert_exact(index.search(query, metric, k), query, vectors, metric, k)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("small_rows", [0, exact.SMALL_ROWS])
def test_sums_over_large_pictures_do_not_overflow(
    metric: str, small_rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exact, "SMALL_ROWS", small_rows)
    vectors = np.repeat(np.array([[0], [255], [254], [1]], np.uint8), 160 * 160 * 3, axis=1)
    vectors[2, :9] = vectors[3, :7] = 100
    assert_exact(PixelIndex.fit(vectors).search(vectors[1], metric, 4), vectors[1], vectors, metric, 4)


@pytest.mark.parametrize("metric", METRICS)
def test_the_longest_small_row_does_not_overflow(metric: str) -> None:
    vectors = np.full((1, exact.SMALL_BYTES), 255, np.uint8)
    vectors[0, ::3] = 128
    query = vectors[0] - np.arange(exact.SMALL_BYTES, dtype=np.uint8) % 2
    _, scores = PixelIndex.fit(vectors).search(query, metric, 1)
    # On so many values it is the float64 sums of `imgret.metrics` that are off by 1e-12; whole numbers are not.
    np.testing.assert_allclose(scores, METRICS[metric](query, vectors), rtol=1e-11)


def test_a_small_library_needs_no_compiled_code_and_a_large_one_does(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from imgret.pixels import PixelIndex;"
        "PixelIndex.fit(np.zeros((int(sys.argv[1]), int(sys.argv[2])), np.uint8)).save(sys.argv[3]);"
        "index = PixelIndex.load(sys.argv[3]); index.warm();"
        "[index.search(index.vectors[0], metric, 3) for metric in ('l1', 'l2', 'cosine', 'correlation')];"
        "print('numba' in sys.modules)"
    )
    for rows, dim, compiled in ((682, 12_288, False), (683, 3, True), (682, 12_301, True)):
        command = [sys.executable, "-c", code, str(rows), str(dim), str(tmp_path)]
        assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == f"{compiled}\n"


def test_opening_a_large_library_does_not_wait_for_compiled_code(tmp_path: Path) -> None:
    PixelIndex.fit(np.zeros((1100, 768), np.uint8)).save(tmp_path)
    code = (
        "import sys; from imgret.pixels import PixelIndex;"
        "index = PixelIndex.load(sys.argv[1]); loaded = 'numba' in sys.modules;"
        "index.search(index.vectors[0], 'l2', 3); print(loaded, 'numba' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "False True\n"


def test_sketches_that_an_earlier_release_wrote_of_a_small_library_are_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = smooth(np.random.default_rng(0), 600, 2700)
    with monkeypatch.context() as earlier:
        earlier.setattr(exact, "SMALL_ROWS", 0)
        PixelIndex.fit(vectors).save(tmp_path)
    PixelIndex.load(tmp_path).save(tmp_path)
    loaded = PixelIndex.load(tmp_path)
    for metric in METRICS:
        assert_exact(loaded.search(vectors[7], metric, 10), vectors[7], vectors, metric, 10)


@pytest.mark.parametrize("dim", [768, 2187, 2500, 6300])
def test_an_index_of_an_earlier_release_is_searched_by_its_own_sketches(dim: int, tmp_path: Path) -> None:
    vectors = smooth(np.random.default_rng(0), 1300, dim)
    PixelIndex.fit(vectors).save(tmp_path)
    arena = np.load(tmp_path / "sketch.npy")
    size = sketches.sketch_bytes(*vectors.shape, 1)
    assert (len(arena) > 64 + size) == (dim < 6300)
    earlier = np.zeros(64 + size, np.uint8)
    earlier[:64] = arena[:64]
    earlier[:8].view(np.int64)[0] = 1
    new, old = sketches._views(arena[64:], *vectors.shape), sketches._views(earlier[64:], *vectors.shape, 1)
    for mine, theirs in zip([*old[0], *old[1][2:]], [*new[0], *new[1][2:]], strict=True):
        mine[:] = theirs[tuple(slice(length) for length in mine.shape)]
    np.save(tmp_path / "sketch.npy", earlier)
    index = PixelIndex.load(tmp_path)
    for metric in METRICS:
        answer = index.nearest(vectors[7], metric, 10)
        assert_exact((answer.rows, answer.scores), vectors[7], vectors, metric, 10)
        assert answer.rows_scanned < len(vectors) / 3


def test_a_level_of_channels_tells_apart_what_sums_over_channels_do_not() -> None:
    """Rows of one brightness in many colours: only the channels' sums differ."""
    rng = np.random.default_rng(0)
    colours = np.stack([a := rng.integers(0, 128, 4000), b := rng.integers(0, 128, 4000), 255 - a - b], axis=1)
    vectors = np.tile(colours.astype(np.uint8), (1, 1024))
    query = vectors[5]
    levels = bounds_of(PixelIndex.fit(vectors), query, "l1")
    assert all(bounds.max() <= 0 for bounds in levels[:-1])
    np.testing.assert_allclose(levels[-1], METRICS["l1"](query, vectors), rtol=2 * sketches._ROUNDING)


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("count", [1, 2, 300])
def test_many_queries_of_a_small_library_get_the_answers_of_each_alone(metric: str, count: int) -> None:
    vectors = smooth(np.random.default_rng(0), 400, 300)
    index = PixelIndex.fit(vectors)
    rows, scores = index.search_many(vectors[:count], metric, 7)
    for i in range(count):
        assert_exact((rows[i], scores[i]), vectors[i], vectors, metric, 7)


def test_whatever_an_index_comes_from_the_kernels_are_compiled_once(tmp_path: Path) -> None:
    code = (
        "import sys, numpy as np; from imgret.pixels import PixelIndex, sketches;"
        "from imgret.pixels.sketches import kernels;"
        "count = lambda: [len(f.signatures) for f in vars(kernels).values() if hasattr(f, 'signatures')];"
        "sketches.Sketches.warm(); compiled = count();"
        "index = PixelIndex.fit(np.zeros((1100, 768), np.uint8)); index.save(sys.argv[1]);"
        "[i.search(index.vectors[0], m, 3) for i in (index, PixelIndex.load(sys.argv[1])) for m in sketches.CODES];"
        "print(sum(compiled) > 4, count() == compiled)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout == "True True\n"


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("content", ["no numbers", "half of them no numbers", "noise", "zeros"])
def test_forged_sketches_lead_to_no_row_that_is_none(tmp_path: Path, metric: str, content: str) -> None:
    vectors = np.maximum(smooth(np.random.default_rng(0), 4201, 2304), 60)
    PixelIndex.fit(vectors).save(tmp_path)
    arena = np.load(tmp_path / "sketch.npy")
    if content == "half of them no numbers":
        directions, blocks = sketches._views(arena[64:], *vectors.shape)
        directions.residuals[:, ::2] = blocks.slacks[:, ::2] = np.nan
    else:
        noise = np.random.default_rng(1).integers(0, 256, len(arena) - 64)
        arena[64:] = {"no numbers": 255, "noise": noise, "zeros": 0}[content]
    np.save(tmp_path / "sketch.npy", arena)
    index = PixelIndex.load(tmp_path)
    for query in (vectors[8], np.zeros(2304, np.uint8)):  # black, as what lies behind the matrix
        found = index.search(query, metric, 10)
        if "no numbers" in content:
            assert_exact(found, query, vectors, metric, 10)
        assert len(np.unique(found[0])) == 10
        assert 0 <= found[0].min() <= found[0].max() < len(vectors)


@pytest.fixture(scope="module")
def vectors() -> np.ndarray:
    return smooth(np.random.default_rng(3), 4200, 2700)


@pytest.fixture(scope="module")
def index(vectors: np.ndarray) -> PixelIndex:
    return PixelIndex.fit(vectors)


@pytest.fixture(scope="module")
def queries() -> np.ndarray:
    return smooth(np.random.default_rng(3), 4210, 2700)[4200:]


@pytest.mark.parametrize("metric", METRICS)
def test_most_rows_are_never_read(index: PixelIndex, vectors: np.ndarray, queries: np.ndarray, metric: str) -> None:
    for query in queries:
        answer = index.nearest(query, metric, 10)
        assert_exact((answer.rows, answer.scores), query, vectors, metric, 10)
        assert answer.rows_scanned < len(vectors) / 5


def bounds_of(index: PixelIndex, query: np.ndarray, metric: str) -> list[np.ndarray]:
    """The bounds on all keys, level by level."""
    code, query = sketches.CODES[metric], read_only(query)
    weights, blocks = np.empty(0, np.float32), np.empty(0, np.uint8)
    its = index._sketches
    assert its is not None
    if metric == "l1":
        blocks, terms = its.blocks.terms_of(query)
        levels = [kernels._scan_blocks(its.blocks.coarse, blocks, terms[0], its.blocks.slacks[0])]
    else:
        weights, terms = its.directions.terms_of(query, code)
        levels = [kernels._scan_dots(its.directions, weights, terms[0], code)]
    asked = (its.directions, its.blocks, weights, blocks, terms, np.arange(len(index)), np.float32(np.inf))
    return levels + [kernels._level(level, code, *asked)[1] for level in range(1, len(terms))]


def keys_of(query: np.ndarray, vectors: np.ndarray, metric: str) -> np.ndarray:
    truth = METRICS[metric](query, vectors)
    return -truth if metric in LARGER_IS_CLOSER else truth**2 if metric == "l2" else truth


@pytest.mark.parametrize("metric", METRICS)
def test_bounds_are_below_the_true_keys_and_tighter_level_by_level(
    index: PixelIndex, vectors: np.ndarray, queries: np.ndarray, metric: str
) -> None:
    keys, levels = keys_of(queries[0], vectors, metric), bounds_of(index, queries[0], metric)
    assert len(levels) == (4 if metric == "l1" else 2)
    for bounds in levels:
        assert (bounds <= keys).all()
    slacks = [(keys - bounds).mean() for bounds in levels]
    if metric == "l1":  # these rows have no colours to tell apart, and rounding adds to both bounds of the last level
        assert slacks.pop() < 1.01 * slacks[-1]
    assert slacks == sorted(slacks, reverse=True)


@pytest.mark.parametrize("metric", METRICS)
def test_bounds_hold_where_a_sketch_leaves_nothing_out_but_the_rounding_of_its_codes(metric: str) -> None:
    rng = np.random.default_rng(1)
    patterns = rng.choice((-1, 1), (8, 2304))
    levels = np.repeat(rng.integers(0, 8, (1100, 1)), 2304, axis=1)
    vectors = (levels if metric == "l1" else 128 + rng.integers(-7, 8, (1100, 8)) @ patterns).astype(np.uint8)
    index = PixelIndex.fit(vectors)
    for _ in range(10):
        query = 128 + rng.integers(-7, 8, 8) @ patterns if metric != "l1" else rng.integers(8, 11, 2304)
        query = query.astype(np.uint8)
        for bounds in bounds_of(index, query, metric):
            assert (bounds <= keys_of(query, vectors, metric)).all()


def test_the_answer_depends_on_the_bounds_being_widened_by_their_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of one value each leave nothing over outside of the sketch: the bound is the distance but for rounding."""
    values = np.random.default_rng(0).permutation(np.repeat(np.arange(120, 200, dtype=np.uint8), 40))
    vectors = np.repeat(values[:, None], 768, axis=1)
    index = PixelIndex.fit(vectors)

    def wrong() -> int:
        count = 0
        for value in range(130, 190):
            query = np.full(768, value, np.uint8)
            truth = METRICS["l2"](query, vectors)
            count += not np.array_equal(index.search(query, "l2", 50)[0], best_first(truth, "l2")[:50])
        return count

    assert wrong() == 0
    monkeypatch.setattr(sketches, "_ROUNDING", 0.0)
    assert wrong() > 0


@pytest.mark.parametrize("metric", METRICS)
def test_many_queries_get_the_answers_of_each_alone(index: PixelIndex, queries: np.ndarray, metric: str) -> None:
    rows, scores = index.search_many(queries, metric, 7)
    assert rows.shape == scores.shape == (len(queries), 7)
    for i, query in enumerate(queries):
        alone = index.search(query, metric, 7)
        np.testing.assert_array_equal(rows[i], alone[0])
        np.testing.assert_array_equal(scores[i], alone[1])
    rows, scores = index.search_many(queries[:0], metric, 7)
    assert rows.shape == scores.shape == (0, 7)


@pytest.mark.parametrize("rows", [600, 4200])
def test_threads_search_at_once(vectors: np.ndarray, queries: np.ndarray, rows: int) -> None:
    index, asked_alone = PixelIndex.fit(vectors[:rows]), PixelIndex.fit(vectors[:rows])
    expected = {metric: [asked_alone.search(query, metric, 5)[0] for query in queries] for metric in METRICS}
    wrong: list[str] = []

    def ask(metric: str) -> None:
        for _ in range(5):
            for query, rows in zip(queries, expected[metric], strict=True):
                if not np.array_equal(index.search(query, metric, 5)[0], rows):
                    wrong.append(metric)

    threads = [threading.Thread(target=ask, args=(metric,)) for metric in [*METRICS, *METRICS]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_saved_index_answers_the_same_from_a_moved_read_only_folder(
    index: PixelIndex, queries: np.ndarray, tmp_path: Path
) -> None:
    index.save(tmp_path / "built" / "pixels")
    moved = (tmp_path / "built").rename(tmp_path / "moved") / "pixels"
    before = {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in moved.iterdir()}
    for file in moved.iterdir():
        file.chmod(0o444)
    moved.chmod(0o555)
    loaded = PixelIndex.load(moved)
    assert (len(loaded), loaded.dim) == (len(index), index.dim)
    assert isinstance(loaded.vectors, np.memmap)
    for metric in METRICS:
        for mine, theirs in zip(
            loaded.search_many(queries, metric, 10), index.search_many(queries, metric, 10), strict=True
        ):
            np.testing.assert_array_equal(mine, theirs)
    assert {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in moved.iterdir()} == before
    assert len(before) <= 5


def test_a_matrix_that_already_lies_in_the_folder_is_not_copied_onto_itself(
    vectors: np.ndarray, tmp_path: Path
) -> None:
    vectors = smooth(np.random.default_rng(0), 1100, 768)
    file = tmp_path / "vectors.npy"
    np.save(file, vectors)
    inode = file.stat().st_ino
    PixelIndex.fit(np.load(file, mmap_mode="r")).save(tmp_path)
    assert file.stat().st_ino == inode
    np.testing.assert_array_equal(PixelIndex.load(tmp_path).vectors, vectors)
    # A part of the file is another matrix, though it lies in the same file.
    PixelIndex.fit(np.load(file, mmap_mode="r")[100:]).save(tmp_path)
    np.testing.assert_array_equal(PixelIndex.load(tmp_path).vectors, vectors[100:])
    # Saving once more what was loaded changes nothing.
    inodes = [path.stat().st_ino for path in sorted(tmp_path.iterdir())]
    PixelIndex.load(tmp_path).save(tmp_path)
    assert [path.stat().st_ino for path in sorted(tmp_path.iterdir())] == inodes


@pytest.mark.parametrize("dim", [3, 768])
def test_an_empty_library_has_empty_answers(dim: int, tmp_path: Path) -> None:
    PixelIndex.fit(np.empty((0, dim), np.uint8)).save(tmp_path)
    index = PixelIndex.load(tmp_path)
    assert len(index) == 0
    for metric in METRICS:
        rows, scores = index.search(np.zeros(dim, np.uint8), metric, 10)
        assert rows.shape == scores.shape == (0,)
        assert index.search_many(np.zeros((2, dim), np.uint8), metric, 10)[0].shape == (2, 0)


def test_fit_leaves_the_vectors_alone_and_reports_progress(vectors: np.ndarray) -> None:
    before, told = vectors.copy(), []
    PixelIndex.fit(vectors, progress=lambda done, total: told.append((done, total)))
    np.testing.assert_array_equal(vectors, before)
    assert told[-1] == (len(vectors), len(vectors))
    assert told == sorted(told)


def test_rows_need_not_be_contiguous(vectors: np.ndarray, queries: np.ndarray) -> None:
    strided = vectors[::-2, 1::3]
    query = queries[0][1::3]
    assert_exact(PixelIndex.fit(strided).search(query, "l1", 5), query, strided, "l1", 5)


@pytest.mark.parametrize(
    "vectors",
    [
        np.zeros((3, 4)),
        np.zeros((3, 4), np.int8),
        np.zeros(4, np.uint8),
        np.zeros((2, 2, 3), np.uint8),
        np.zeros((3, 0), np.uint8),
        [[1, 2]],
    ],
)
def test_vectors_of_another_kind_are_refused(vectors: np.ndarray) -> None:
    with pytest.raises(ValueError, match="must be uint8 of shape"):
        PixelIndex.fit(vectors)


@pytest.mark.parametrize("k", [0, -1, 1.5, 2.0, True, "3", None])
def test_a_k_that_is_not_a_whole_number_of_at_least_one_is_refused(
    index: PixelIndex, queries: np.ndarray, k: int
) -> None:
    with pytest.raises(ValueError, match="whole number of at least 1"):
        index.search(queries[0], "l1", k)
    with pytest.raises(ValueError, match="whole number of at least 1"):
        index.search_many(queries, "l1", k)


def test_questions_that_do_not_fit_are_refused(index: PixelIndex, queries: np.ndarray) -> None:
    with pytest.raises(ValueError, match="no metric 'L2'"):
        index.search(queries[0], "L2", 1)
    for query in (queries[0][:-1], queries[0].astype(np.float64), queries[:1], queries[0].tolist()):
        with pytest.raises(ValueError, match="must be uint8 of shape"):
            index.search(query, "l1", 1)
    for many in (queries[0], queries.astype(np.int16), queries[:, 1:], 5):
        with pytest.raises(ValueError, match="must be uint8 of shape"):
            index.search_many(many, "l1", 1)
    assert len(index.search(queries[0], "l1", np.int64(3))[0]) == 3


@pytest.mark.parametrize("rows", [600, 1000])
@pytest.mark.parametrize(
    "harm", ["missing", "cut", "empty", "other matrix", "other format", "text", "one byte", "column"]
)
def test_a_damaged_folder_is_refused(tmp_path: Path, harm: str, rows: int) -> None:
    PixelIndex.fit(smooth(np.random.default_rng(0), rows, 768)).save(tmp_path)
    sketch = tmp_path / "sketch.npy"
    whole = sketch.read_bytes()
    if harm == "missing":
        sketch.unlink()
    elif harm == "cut":
        sketch.write_bytes(whole[: len(whole) // 2])
    elif harm == "empty":
        sketch.write_bytes(b"")
    elif harm == "text":
        sketch.write_text("nothing of the kind")
    elif harm == "other matrix":
        np.save(tmp_path / "vectors.npy", np.zeros((rows, 769), np.uint8))
    elif harm == "one byte":
        np.save(sketch, np.array(3, np.uint8))
    elif harm == "column":
        np.save(sketch, np.load(sketch)[:, None])
    else:
        arena = np.load(sketch)
        arena[:8] = 255
        np.save(sketch, arena)
    with pytest.raises(ValueError, match="build"):
        PixelIndex.load(tmp_path)


def test_memory_of_a_fit_does_not_grow_with_the_library(tmp_path: Path) -> None:
    """A matrix of 369 MB and its sketches of 51 MB, in files: the process that fits them needs less."""
    matrix = np.lib.format.open_memmap(tmp_path / "matrix.npy", "w+", np.uint8, (30_000, 12_288))
    del matrix  # a file of zeros that takes no room on the disk
    code = (
        "import resource, sys, numpy as np; from imgret.pixels import PixelIndex;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "PixelIndex.fit(np.load(sys.argv[1], mmap_mode='r')).save(sys.argv[2]);"
        "print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "matrix.npy"), str(tmp_path / "index")]
    grown = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert grown < 300
