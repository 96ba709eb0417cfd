"""How long does exact pixel search take, next to one full read of the matrix and to what others use?

    python -m benchmarks.pixels --n 50000 --size 32 --data .../cifar10/plain_text
    python -m benchmarks.pixels --n 100000 --size 64 --data .../photos
    python -m benchmarks.pixels --n 1000000 --size 32 --data .../cifar10/plain_text --plot benchmarks/pixels-cost.webp

The data is a folder of parquet files with a picture column (those with "test" in their name give only queries) or a
folder of photographs (every tenth gives only queries). Pictures no larger than `--size` are rows themselves and, where
more are asked for, shifted by up to an eighth and mirrored; of larger ones a row is a random crop, reduced or kept,
never enlarged.
Needs faiss-cpu and scipy, and matplotlib for the plot.
"""

import argparse
import io
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import faiss
import numpy as np
import pyarrow.parquet as pq
from PIL import Image
from scipy.spatial.distance import cdist

from imgret.metrics import LARGER_IS_CLOSER, METRICS
from imgret.pixels import PixelIndex
from imgret.pixels.sketches import Sketches

K = 10
THREADS = range(1, (os.cpu_count() or 1) + 1)
FLAT_LIMIT = 6 << 30
"""Bytes of float32 that FAISS may hold, and of float64 that cdist may: beyond them they are not measured."""


def pictures(data: Path, held_out: bool) -> Iterator[Image.Image]:
    """The pictures that rows are made of, or those that only queries are."""
    tables = sorted(data.rglob("*.parquet"))
    for table in (table for table in tables if ("test" in table.name) == held_out):
        for batch in pq.ParquetFile(table).iter_batches(1024):
            for value in batch.column(0):
                yield Image.open(io.BytesIO(value["bytes"].as_py())).convert("RGB")
    photographs = [] if tables else sorted(file for file in data.rglob("*") if file.suffix.lower() in {".jpg", ".jpeg"})
    for i, file in enumerate(photographs):
        if (i % 10 == 0) == held_out:
            yield Image.open(file).convert("RGB")


def crop(picture: Image.Image, size: int, rng: np.random.Generator) -> np.ndarray:
    """A random square of a picture, as a row."""
    spare = min(picture.size) - size
    if spare > 0:
        side = size + int(rng.integers(spare + 1))
        x, y = (int(rng.integers(length - side + 1)) for length in picture.size)
        values = np.asarray(picture.resize((size, size), Image.Resampling.BICUBIC, (x, y, x + side, y + side)))
    else:
        shift = size // 8
        x, y = rng.integers(2 * shift + 1, size=2)
        values = np.pad(picture.resize((size, size)), ((shift, shift), (shift, shift), (0, 0)), "reflect")[
            y : y + size, x : x + size
        ]
        values = values[:, :: int(rng.choice((-1, 1)))]
    return values.reshape(-1)


def rows(data: Path, size: int, n: int, held_out: bool) -> Iterator[np.ndarray]:
    """`n` rows of size * size * 3 values."""
    rng = np.random.default_rng(1)
    sources = list(islice(pictures(data, held_out), n))
    whole = [picture for picture in sources if min(picture.size) <= size]
    yield from (np.asarray(picture.resize((size, size))).reshape(-1) for picture in whole)
    yield from (crop(sources[i % len(sources)], size, rng) for i in range(n - len(whole)))


def matrix_in(file: Path, data: Path, size: int, n: int) -> np.ndarray:
    matrix = np.lib.format.open_memmap(file, "w+", np.uint8, (n, size * size * 3))
    for i, row in enumerate(rows(data, size, n, held_out=False)):
        matrix[i] = row
    matrix.flush()
    return np.load(file, mmap_mode="r")


def times_ms(ask: Callable[[Any], Any], queries: Iterable[Any]) -> list[float]:
    """How long each query takes; the first is asked once more, before."""
    times = []
    for query in queries:
        if not times:
            ask(query)
        start = time.perf_counter()
        ask(query)
        times.append((time.perf_counter() - start) * 1000)
    return times


def median_ms(ask: Callable[[Any], Any], queries: Iterable[Any]) -> float:
    return float(np.median(times_ms(ask, queries)))


def full_read_ms(matrix: np.ndarray) -> float:
    """Every byte once, as the largest of all 64-bit words, at the best number of threads."""
    words = matrix.reshape(-1)[: matrix.size // 8 * 8].view(np.uint64)

    def read(pool: ThreadPoolExecutor, threads: int) -> None:
        list(pool.map(np.max, np.array_split(words, threads)))

    with ThreadPoolExecutor() as pool:
        return min(median_ms(lambda _, threads=threads: read(pool, threads), range(30)) for threads in THREADS)


def as_points(block: np.ndarray) -> np.ndarray:
    return block.astype(np.float32)


def as_units(block: np.ndarray) -> np.ndarray:
    values = block.astype(np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)


def as_centred_units(block: np.ndarray) -> np.ndarray:
    values = block.astype(np.float32)
    values -= values.mean(axis=1, keepdims=True)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-9)


FAISS = {
    "l1": (faiss.METRIC_L1, as_points),
    "l2": (faiss.METRIC_L2, as_points),
    "cosine": (faiss.METRIC_INNER_PRODUCT, as_units),
    "correlation": (faiss.METRIC_INNER_PRODUCT, as_centred_units),
}
CDIST = {"l1": "cityblock", "l2": "euclidean", "cosine": "cosine", "correlation": "correlation"}


def faiss_ms(matrix: np.ndarray, queries: np.ndarray, metric: str) -> float | None:
    """The flat index at its best number of threads, a query at a time, as the others."""
    if matrix.size * 4 > FLAT_LIMIT:
        return None
    kind, prepare = FAISS[metric]
    index = faiss.IndexFlat(matrix.shape[1], kind)
    for start in range(0, len(matrix), 4096):
        index.add(prepare(matrix[start : start + 4096]))
    times = []
    for threads in THREADS:
        faiss.omp_set_num_threads(threads)
        times.append(median_ms(lambda query: index.search(query[None], K), prepare(queries)))
    return min(times)


def cdist_ms(matrix: np.ndarray, queries: np.ndarray, metric: str) -> float | None:
    """On float64, as cdist asks for; the conversion of the matrix does not count, and three queries are enough."""
    if matrix.size * 8 > FLAT_LIMIT:
        return None
    points = matrix.astype(np.float64)
    return median_ms(
        lambda query: np.argpartition(cdist(query[None], points, CDIST[metric])[0], K), queries[:3].astype(np.float64)
    )


def brute_force(matrix: np.ndarray, queries: np.ndarray) -> dict[str, np.ndarray]:
    """All scores (Q, N) of each metric for all queries at once, from sums of whole numbers, exact in float64."""
    dim = matrix.shape[1]
    scores = {metric: np.empty((len(queries), len(matrix))) for metric in METRICS}
    q = queries.astype(np.float64)
    q_total, q_square = q.sum(axis=1)[:, None], (q * q).sum(axis=1)[:, None]
    for start in range(0, len(matrix), 2048):
        x = matrix[start : start + 2048].astype(np.float64)
        here = slice(start, start + len(x))
        total, square, dot = x.sum(axis=1), (x * x).sum(axis=1), q @ x.T
        scores["l1"][:, here] = cdist(q, x, "cityblock")
        scores["l2"][:, here] = np.sqrt(q_square + square - 2 * dot)
        with np.errstate(invalid="ignore"):
            scores["cosine"][:, here] = np.nan_to_num(dot / (np.sqrt(q_square) * np.sqrt(square)))
            spreads = np.sqrt(dim * q_square - q_total**2) * np.sqrt(dim * square - total**2)
            scores["correlation"][:, here] = np.nan_to_num((dim * dot - q_total * total) / spreads)
    return scores


def check(index: PixelIndex, matrix: np.ndarray, queries: np.ndarray, truths: dict[str, np.ndarray]) -> None:
    """Raise unless every query finds the rows and scores of brute force, itself held against imgret.metrics."""
    for metric, all_truths in truths.items():
        tolerance = 1e-12 if metric in LARGER_IS_CLOSER else 0
        for i, (query, truth) in enumerate(zip(queries, all_truths, strict=True)):
            found, scores = index.search(query, metric, K)
            best = np.argsort(-truth if metric in LARGER_IS_CLOSER else truth, kind="stable")[:K]
            right = np.allclose(scores, truth[best], rtol=0, atol=tolerance) and np.allclose(
                scores, truth[found], rtol=0, atol=tolerance
            )
            if not right or (not tolerance and not np.array_equal(found, best)):
                raise AssertionError(f"{metric}, query {i}: {found} with {scores}, not {best} with {truth[best]}")
            if i < 2 and not np.allclose(METRICS[metric](query, matrix), truth, rtol=0, atol=tolerance):
                raise AssertionError(f"{metric}: the benchmark's brute force is not that of imgret.metrics")


def measure(matrix: np.ndarray, queries: np.ndarray, folder: Path, checked: bool) -> dict[str, Any]:
    """Median milliseconds a query of every method on every metric."""
    start = time.perf_counter()
    PixelIndex.fit(matrix).save(folder)
    fitted = time.perf_counter()
    index = PixelIndex.load(folder)
    loaded = time.perf_counter()
    if checked:
        check(index, matrix, queries, brute_force(matrix, queries))
    result: dict[str, Any] = {
        "rows": len(matrix),
        "dim": matrix.shape[1],
        "queries": len(queries),
        "build_s": fitted - start,
        "open_ms": (loaded - fitted) * 1000,
        "sketch_share": sum(part.stat().st_size for part in folder.glob("sketch.npy*")) / matrix.nbytes,
        "exact": checked,
        "one full read": full_read_ms(matrix),
    }
    for metric in METRICS:
        answers = [index.answer(query, metric, K) for query in queries]
        visited = [answer.visited / len(matrix) for answer in answers]
        # FAISS and PixelIndex one after the other, as other programs' load on a machine comes and goes.
        flat = faiss_ms(matrix, queries, metric)
        times = times_ms(lambda query, metric=metric: index.search(query, metric, K), queries)
        start = time.perf_counter()
        index.search_many(queries, metric, K)
        many = (time.perf_counter() - start) / len(queries) * 1000
        result[metric] = {
            "numpy": median_ms(partial(METRICS[metric], data=matrix), queries[:2]) if checked else None,
            "scipy cdist": cdist_ms(matrix, queries, metric) if checked else None,
            "FAISS flat": flat,
            "PixelIndex": float(np.median(times)),
            "PixelIndex, mean": float(np.mean(times)),
            "PixelIndex, mean of many at once": many,
            "rows read, median": float(np.median(visited)),
            "rows read, mean": float(np.mean(visited)),
        }
    result["one full read"] = min(result["one full read"], full_read_ms(matrix))
    return result


def table(result: dict[str, Any]) -> str:
    """The result as a Markdown table, in milliseconds a query."""
    read = result["one full read"]

    def cells(name: str, text: Callable[[dict[str, Any]], str]) -> str:
        return f"| {name} | " + " | ".join(text(result[metric]) for metric in METRICS) + " |"

    def time_of(name: str) -> Callable[[dict[str, Any]], str]:
        return lambda times: "-" if times[name] is None else f"{times[name]:,.2f}"

    lines = [
        f"{result['rows']:,} x {result['dim']:,} values, {result['queries']} queries, k = {K}; "
        f"built in {result['build_s']:.0f} s, "
        f"opened in {result['open_ms']:.1f} ms, sketches {result['sketch_share']:.0%} of the matrix; "
        f"{'every answer equal to brute force' if result['exact'] else 'not checked'}",
        "",
        "| ms a query | " + " | ".join(METRICS) + " |",
        "|---" * (len(METRICS) + 1) + "|",
        cells("one full read", lambda _: f"{read:,.2f}"),
        *(
            cells(name, time_of(name))
            for name in (
                "numpy",
                "scipy cdist",
                "FAISS flat",
                "PixelIndex",
                "PixelIndex, mean",
                "PixelIndex, mean of many at once",
            )
        ),
        cells(
            "times as fast as FAISS",
            lambda t: "-" if t["FAISS flat"] is None else f"{t['FAISS flat'] / t['PixelIndex']:.0f}",
        ),
        cells("share of one full read", lambda t: f"{t['PixelIndex'] / read:.1%}"),
        cells("rows read, median (mean)", lambda t: f"{t['rows read, median']:.2%} ({t['rows read, mean']:.2%})"),
    ]
    return "\n".join(lines)


def plot(results: list[dict[str, Any]], file: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 5), layout="constrained")
    n = [result["rows"] for result in results]
    axes.loglog(n, [result["one full read"] for result in results], "k--", label="one full read of the matrix")
    for colour, metric in enumerate(METRICS):
        axes.loglog(
            n,
            [result[metric]["PixelIndex"] for result in results],
            "o-",
            color=f"C{colour}",
            label=f"PixelIndex, {metric}",
        )
        flat = [
            (result["rows"], result[metric]["FAISS flat"])
            for result in results
            if result[metric]["FAISS flat"] is not None
        ]
        if metric != "correlation":
            axes.loglog(*zip(*flat, strict=True), "x:", color=f"C{colour}", alpha=0.6, label=f"FAISS flat, {metric}")
    axes.set(
        xlabel="rows in the library",
        ylabel="milliseconds a query, median",
        title=f"Exact search of rows of {results[0]['dim']:,} values",
    )
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--n", type=int, default=50_000)
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--queries", type=int, default=60)
    parser.add_argument(
        "--plot", type=Path, help="measure 1,000 rows up to N and draw the cost against the number of rows"
    )
    options = parser.parse_args()
    Sketches.warm()
    machine = {
        "cpu": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
    queries = np.array(list(rows(options.data, options.size, options.queries, held_out=True)))
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "vectors.npy")
        matrix = matrix_in(file, options.data, options.size, options.n)
        steps = (
            [n for n in (1000, 3000, 10_000, 30_000, 100_000, 300_000, 1_000_000) if n < options.n]
            if options.plot
            else []
        )
        results = []
        for n in (*steps, options.n):
            results.append(measure(matrix[:n], queries, Path(folder, str(n)), checked=not options.plot))
            print(table(results[-1]), flush=True)
            print(json.dumps({"machine": machine, **results[-1]}), flush=True)
        if options.plot:
            plot(results, options.plot)


if __name__ == "__main__":
    main()
