"""How slow can exact pixel search get, where no bound excludes a row, next to the same kernel over all rows?

    python -m benchmarks.adversarial

Libraries of 10,000 rows: noise, all rows equal, all black, constant rows, copies, an outlier, and rows like
photographs for comparison. Each figure is the best of 15 searches over the best of 15 scans, asked in turn; the share
is of the rows that were looked at.
"""

import time

import numpy as np

from imgret.files.npy import read_only
from imgret.pixels import PixelIndex, sketches
from imgret.pixels.sketches import kernels
from tests.test_pixels import KINDS, library

N, K, ROUNDS = 10_000, 10, 15
DIMS = (48, 192, 300, 768, 3072, 12_288)


def seconds(start: float) -> float:
    return time.perf_counter() - start


def main() -> None:
    sketches.Sketches.warm()
    rows, no_bound = np.arange(N), np.full(N, np.float32(-np.inf))
    worst = 0.0
    print("| values a row | library |" + "".join(f" {metric} |" for metric in sketches.CODES))
    print("|---" * (2 + len(sketches.CODES)) + "|")
    for dim in DIMS:
        for kind in KINDS:
            rng = np.random.default_rng(1)
            index = PixelIndex.fit(library(kind, rng, N, dim))
            query = read_only(library(kind, rng, 1, dim)[0])
            cells = []
            for metric, code in sketches.CODES.items():
                searches, scans = [], []
                for _ in range(ROUNDS):
                    start = time.perf_counter()
                    answer = index.nearest(query, metric, K)
                    searches.append(seconds(start))
                    start = time.perf_counter()
                    kernels._visit(index._pixels, query, code, np.full(K, np.inf), np.full(K, N), rows, no_bound)
                    scans.append(seconds(start))
                ratio = min(searches) / min(scans)
                worst = max(worst, ratio)
                cells.append(f"{ratio:.2f} ({answer.rows_scanned / N:.0%})")
            print(f"| {dim:,} | {kind} | " + " | ".join(cells) + " |", flush=True)
    print(f"the slowest search took {worst:.2f} times as long as the scan of all rows")


if __name__ == "__main__":
    main()
