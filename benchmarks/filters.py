"""What does a search within labels find and cost, by Chroma's HNSW graph with a filter and by comparing all their rows?

    python -m benchmarks.filters [--rows 50000] [--dim 512]

An index of made unit vectors, each near the centre of its cluster. Four labels have a tenth of the rows each, forty a
hundredth, two hundred a thousandth: once a label is a cluster, once it is given by chance. Searched are labels that
leave a half, a tenth, a hundredth and a thousandth of the rows, by the queries of the build's audit and for ten hits:
by `VectorStore.query`, which hands the labels to Chroma as a filter, and as `Retriever.by_clip` does. Prints the recall
of both, and the milliseconds of Chroma over those of the exact search, the medians of `--queries` queries asked in
turn; also of the search without labels.
"""

import argparse
import tempfile
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt

from imgret import Index, Retriever
from imgret import index as layout
from imgret.build.features import ImageFeatures
from imgret.build.filters import labels_of_share
from imgret.build.pipeline import Row, assemble
from imgret.files.npy import open_array
from imgret.library import Entry
from imgret.manifest import FORMAT, EncoderInfo, LibraryInfo, Manifest, count_labels, list_files, write_manifest
from imgret.pixels import PixelIndex
from imgret.vectors import VectorStore

K, SHARES, NOISE = 10, (0.5, 0.1, 0.01, 0.001), 0.7
LABELS = [0.1] * 4 + [0.01] * 40 + [0.001] * 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=50_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    options = parser.parse_args()
    draw = np.random.default_rng(0)
    clusters = np.repeat(np.arange(len(LABELS)), np.rint(np.array(LABELS) * options.rows).astype(int))
    draw.shuffle(clusters)
    vectors = draw.standard_normal((len(LABELS), options.dim))[clusters]
    vectors += NOISE * draw.standard_normal(vectors.shape)
    vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    print(f"{len(vectors):,} rows of {options.dim} numbers")
    print("| labels | rows left | recall@10: Chroma | exact | ms: Chroma | exact | Chroma / exact |")
    print("|---|---|---|---|---|---|---|")
    for kind, labels in (("of neighbours", clusters), ("by chance", draw.permutation(clusters))):
        with tempfile.TemporaryDirectory() as folder:
            index = made(Path(folder), vectors, [f"label {label:03}" for label in labels])
            measure(kind, Retriever(index), options.queries)
            index.close()


def made(folder: Path, vectors: npt.NDArray[np.float32], labels: list[str]) -> Index:
    """An index of these vectors, with one black pixel for a picture."""
    draft, pixel = folder / "data-0", np.zeros(3, np.uint8)
    rows = [Row(Entry(f"{row:07}", label, None, {}, None), str(row)) for row, label in enumerate(labels)]
    assemble(
        rows,
        lambda content: ImageFeatures(content, 1, 1, pixel, b"RIFF    WEBP", vectors[int(content)]),
        vectors.shape[1],
        1,
        draft,
        lambda *stage: None,
    )
    PixelIndex.fit(open_array(draft / layout.PIXELS / layout.PIXEL_MATRIX)).save(draft / layout.PIXELS)
    manifest = Manifest(
        format=FORMAT,
        data=draft.name,
        library=LibraryInfo("made vectors", None, None, None),
        encoder=EncoderInfo("none", vectors.shape[1], ()),
        pixel_size=1,
        count=len(rows),
        labels=count_labels(labels),
        skipped_count=0,
        skipped=(),
        recall=VectorStore.create(draft / layout.VECTORS, vectors, labels),
        created="",
        files=list_files(folder, draft.name),
    )
    write_manifest(folder, manifest)
    return Index.open(folder, cache=folder)


def measure(kind: str, retriever: Retriever, count: int) -> None:
    index = retriever.index
    draw = np.random.default_rng(1)
    first, second = draw.integers(len(index), size=(2, count))
    queries = index.embeddings[first] + index.embeddings[np.where(np.arange(count) < count // 2, first, second)]
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    for share in (None, *SHARES):
        names = None if share is None else labels_of_share(index.manifest.labels, share * len(index))
        rows = np.arange(len(index)) if names is None else index.rows_of(*names)
        k, of_rows = min(K, len(rows)), index.embeddings[rows]
        found, times = np.zeros(2), np.zeros((2, count))
        for number, query in enumerate(queries):
            scores = of_rows @ query
            least = np.partition(scores, -k)[-k] - 1e-6
            for way, ask in enumerate((index.vectors.query, retriever._nearest)):
                start = time.perf_counter()
                answer = ask(query, k, names)
                times[way, number] = 1000 * (time.perf_counter() - start)
                hits = answer[0] if isinstance(answer, tuple) else answer
                found[way] += np.isin(hits, rows[scores >= least]).sum()
        (chroma, exact), (slow, fast) = found / (count * k), np.median(times, axis=1)
        cells = [kind, f"{len(rows):,}", f"{chroma:.4f}", f"{exact:.4f}", f"{slow:.1f}", f"{fast:.1f}"]
        if names is None:
            cells[0], cells[3], cells[5] = f"{kind}, no label asked for", "", ""
        print("| " + " | ".join([*cells, "" if names is None else f"{slow / fast:.1f}"]) + " |", flush=True)


if __name__ == "__main__":
    main()
