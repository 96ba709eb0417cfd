"""How far does one machine carry: building, disk, memory and queries from 10,000 to 1,000,000 pictures?

    python -m benchmarks.scale --data .../cifar10/plain_text [--sizes 10000 100000 1000000] [--plot FILE]

Indexes of this many pictures, made and written by the stages of `imgret build`, with the vectors on a Chroma server of
their own, started as docs/chroma-server.md has it, and up to `--embedded` pictures in the embedded store, too.
Only the decoding and embedding of a million different pictures is left out, as there are none here: the data, a folder
of parquet files with a picture and a label, gives the first rows; all others are its pictures shifted by up to an
eighth and mirrored, and for the vectors its first 10,000 embeddings by `starter`, each moved up to half way to another
one of its label, and by noise of a tenth of its length. Queries are pictures that are no rows (files with "test" in
their name) and their embeddings.

Prints a table: rows a second of each stage, disk, the server's
memory, what `imgret serve` takes of its own (anonymous memory; what it maps of the index is shared and can be dropped),
the median and 95th percentile of a query, and how many of the ten nearest the vectors' search finds. Needs faiss-cpu
and scipy as benchmarks.pixels does, and matplotlib.
"""

import argparse
import json
import os
import platform
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from gradio_client import Client, handle_file
from PIL import Image

from benchmarks.pixels import crop, pictures, times_ms
from benchmarks.serving import demo, memory_mb
from benchmarks.stages import Stages
from imgret import Index
from imgret.build.features import ImageFeatures
from imgret.build.pipeline import Row, assemble, write_search_structures
from imgret.encoders import load_encoder, ready_towers
from imgret.images import thumbnail
from imgret.library import Entry
from imgret.manifest import (
    FORMAT,
    SERVED,
    EncoderInfo,
    LibraryInfo,
    Manifest,
    VectorLocation,
    count_labels,
    list_files,
    write_manifest,
)
from imgret.metrics import METRICS
from imgret.pixels.sketches import Sketches
from imgret.settings import EXAMPLES, Settings
from imgret.vectors import ChromaServer, VectorStore, collection_of
from tests.chroma import Chroma

CHROMA_CONFIG = """persist_path: {folder}
port: {port}
listen_address: 127.0.0.1
collections_with_segments_provider:
  cache: {{memory: {{capacity: 1000}}}}
  cache_ttl_secs: 3600
  permitted_parallelism: 32
"""
SIDE, K, BASE = 32, 10, 10_000
QUERIES, VECTOR_QUERIES = 60, 200
NOISE = 0.1


class Made:
    """The pictures of the benchmark by number: what an index keeps of each."""

    def __init__(self, data: Path, cache: Path) -> None:
        self.pictures = list(pictures(data, False))
        tables = [table for table in sorted(data.rglob("*.parquet")) if "test" not in table.name]
        self.labels = [f"class {label}" for table in tables for label in pq.read_table(table)[1].to_pylist()]
        self.exported = ready_towers("starter")
        self.encoder = load_encoder("starter", cache=cache, exported=self.exported)
        self.base = self.embedded(self.pictures[:BASE])
        self.alike = {label: np.flatnonzero(np.array(self.labels[:BASE]) == label) for label in set(self.labels[:BASE])}
        self.thumbnails = [thumbnail(picture) for picture in self.pictures[:BASE]]
        queries = list(islice(pictures(data, True), VECTOR_QUERIES))
        self.pixel_queries = [np.asarray(picture.resize((SIDE, SIDE))).reshape(-1) for picture in queries[:QUERIES]]
        self.vector_queries = self.embedded(queries)

    def embedded(self, images: list[Image.Image]) -> np.ndarray:
        parts = [self.encoder.embed_images(images[start : start + 16]) for start in range(0, len(images), 16)]
        return np.concatenate(parts)

    def row(self, number: int) -> Row:
        label = self.labels[number % BASE]
        return Row(Entry(f"{number:07}", label, None, {}, None), f"{number:064x}")

    def features(self, content: str) -> ImageFeatures:
        number = int(content, 16)
        chance, at = np.random.default_rng(number), number % BASE
        picture = self.pictures[number % len(self.pictures)]
        pixels = np.asarray(picture).reshape(-1) if number < len(self.pictures) else crop(picture, SIDE, chance)
        vector = self.base[at]
        if number >= BASE:
            other = self.base[chance.choice(self.alike[self.labels[at]])]
            noise = chance.standard_normal(len(vector)) * NOISE / np.sqrt(len(vector))
            vector = vector + chance.uniform(0, 0.5) * (other - vector) + noise
            vector = (vector / np.linalg.norm(vector)).astype(np.float32)
        return ImageFeatures(content, SIDE, SIDE, pixels, self.thumbnails[at], vector)


def build(made: Made, folder: Path, n: int, chroma: Chroma) -> tuple[Manifest, dict[str, float]]:
    """An index of `n` rows with its vectors on the server, and the seconds of each stage."""
    content = f"{n:016x}"
    server, draft, stages = ChromaServer(chroma.url), folder / f"data-{content}{SERVED}", Stages()
    rows = [made.row(number) for number in range(n)]
    assemble(rows, made.features, made.base.shape[1], SIDE, draft, stages)
    labels = [row.entry.label for row in rows]
    write = partial(VectorStore.write, server, collection_of(content), "benchmark")
    recall = write_search_structures(draft, labels, made.exported, write, stages)
    manifest = Manifest(
        format=FORMAT,
        data=draft.name,
        library=LibraryInfo("pictures, shifted and mirrored", None, None, None),
        encoder=EncoderInfo("starter", made.base.shape[1], ("en",)),
        pixel_size=SIDE,
        count=n,
        labels=count_labels(labels),
        skipped_count=0,
        skipped=(),
        recall=recall,
        created=time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime()),
        files=list_files(folder, draft.name),
        vectors=VectorLocation(server.url, collection_of(content)),
    )
    write_manifest(folder, manifest)
    return manifest, stages.ended()


def found_of_nearest(store: VectorStore, embeddings: np.ndarray, queries: np.ndarray) -> float:
    """The share of each query's K nearest that the store finds."""
    scores = np.concatenate(
        [queries @ np.asarray(embeddings[start : start + 16384]).T for start in range(0, len(embeddings), 16384)], 1
    )
    tenth = -np.partition(-scores, K - 1, axis=1)[:, K - 1]
    hits = [scores[i, store.query(query, K)] >= tenth[i] - 1e-6 for i, query in enumerate(queries)]
    return float(np.mean(hits))


def spread(ask: Callable[[Any], Any], queries: Iterable[Any]) -> tuple[float, float]:
    """The median and the 95th percentile of the queries' times, in ms."""
    times = times_ms(ask, queries)
    return float(np.median(times)), float(np.percentile(times, 95))


def served(folder: Path, cache: Path) -> float:
    """The MB of its own that `imgret serve` has after queries by every method."""
    picture = handle_file(str(EXAMPLES / "queries" / "tiger.webp"))
    with demo(folder, cache) as page:
        client = Client(page.address, verbose=False)
        for _ in range(5):
            client.predict(picture, K, api_name="/compare")
            client.predict(None, "a dog", None, 0.5, None, K, api_name="/search_clip")
        return memory_mb(page.pid, "RssAnon")


def on_disk(folder: Path) -> float:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9


def measure(made: Made, work: Path, n: int, cache: Path, embedded: bool) -> dict[str, Any]:
    """All figures of one size."""
    folder = work / "index"
    folder.mkdir()
    chroma, config = Chroma(work / "chroma"), work / "chroma.yaml"
    config.write_text(CHROMA_CONFIG.format(folder=chroma.folder, port=chroma.port))
    chroma.start(str(config), GLIBC_TUNABLES="glibc.malloc.hugetlb=1")
    try:
        manifest, seconds = build(made, folder, n, chroma)
        result: dict[str, Any] = {"pictures": n, "seconds": seconds, "index_GB": on_disk(folder)}
        result["ef_search"] = manifest.recall.ef_search
        result |= {"server_GB_on_disk": on_disk(chroma.folder), "server_MB": memory_mb(chroma.process.pid, "VmRSS")}
        started = time.perf_counter()
        index = Index.open(folder, chroma.url, cache=cache)
        result["open_ms"] = (time.perf_counter() - started) * 1000
        for metric in METRICS:
            ask = partial(index.pixels.search, metric=metric, k=K)
            spread(ask, made.pixel_queries)  # what the system has not read yet
            result[metric] = spread(ask, made.pixel_queries)
        stores = {"server": index.vectors}
        result["server_recall_of_audit"] = manifest.recall.recall
        if embedded:
            home, started = work / "embedded", time.perf_counter()
            audit = VectorStore.create(home, index.embeddings, index.column("label"))
            result |= {"embedded_s": time.perf_counter() - started, "embedded_GB_on_disk": on_disk(home)}
            result["embedded_recall_of_audit"] = audit.recall
            stores["embedded"] = VectorStore.open(home, cache, index.embeddings)
        for name, store in stores.items():
            spread(partial(store.query, k=K), made.vector_queries)
            result[name] = spread(partial(store.query, k=K), made.vector_queries)
            result[f"{name}_recall"] = found_of_nearest(store, index.embeddings, made.vector_queries)
            store.close()
        os.environ["IMGRET_CHROMA_URL"] = chroma.url
        result["page_MB"] = served(folder, cache)
        index.close()
        return result
    finally:
        chroma.kill()


def table(results: list[dict[str, Any]]) -> str:
    """The results as a Markdown table, a column a size."""

    def line(name: str, text: Callable[[dict[str, Any]], str]) -> str:
        return f"| {name} | " + " | ".join(text(result) for result in results) + " |"

    def rate(stage: str) -> Callable[[dict[str, Any]], str]:
        return lambda result: f"{result['pictures'] / result['seconds'][stage]:,.0f}"

    def pair(name: str) -> Callable[[dict[str, Any]], str]:
        return lambda r: f"{r[name][0]:.1f}; {r[name][1]:.1f}" if name in r else "-"

    def share(name: str) -> Callable[[dict[str, Any]], str]:
        return lambda r: f"{r[name]:.4f}" if name in r else "-"

    return "\n".join(
        [
            "| pictures | " + " | ".join(f"{result['pictures']:,}" for result in results) + " |",
            "|---" * (len(results) + 1) + "|",
            line("written, rows a second: matrices, thumbnails and records", rate("assemble")),
            line("pixel index", rate("pixel index")),
            line("vectors to the server, audit included", rate("vectors")),
            line(
                "vectors to the embedded store, likewise",
                lambda r: f"{r['pictures'] / r['embedded_s']:,.0f}" if "embedded_s" in r else "-",
            ),
            line("GB on disk: index; server", lambda r: f"{r['index_GB']:.2f}; {r['server_GB_on_disk']:.2f}"),
            line("MB of memory: page, its own; server", lambda r: f"{r['page_MB']:,.0f}; {r['server_MB']:,.0f}"),
            line("opened in ms", lambda r: f"{r['open_ms']:.0f}"),
            *(line(f"{metric}, ms a query: median; 95 %", pair(metric)) for metric in METRICS),
            line("vectors on the server, likewise", pair("server")),
            line("vectors in the embedded store, likewise", pair("embedded")),
            line("recall@10 of these queries: server", share("server_recall")),
            line("embedded store", share("embedded_recall")),
            line("recall@10 in the audit of the build: server", share("server_recall_of_audit")),
            line("embedded store", share("embedded_recall_of_audit")),
        ]
    )


def plot(results: list[dict[str, Any]], file: Path) -> None:
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(8, 4.5), layout="constrained")
    for name in (*METRICS, "server", "embedded"):
        shown = [result for result in results if name in result]
        label = f"pixels, {name}" if name in METRICS else f"vectors, {name}"
        style = "o-" if name in METRICS else "s--"
        axes.loglog([r["pictures"] for r in shown], [r[name][0] for r in shown], style, label=label)
    axes.set(xlabel="pictures", ylabel="milliseconds a query, median", title="A query against the size of the library")
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")
    figure.savefig(file, dpi=110)


def main() -> None:
    """Runs the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--embedded", type=int, default=100_000)
    parser.add_argument("--plot", type=Path)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    Sketches.warm()
    cache = Settings.read().cache
    machine = {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()}
    made, results = Made(options.data, cache), []
    for n in options.sizes:
        with tempfile.TemporaryDirectory() as work:
            results.append(measure(made, Path(work), n, cache, n <= options.embedded))
        print(json.dumps({"machine": machine} | results[-1]), flush=True)
        print(table(results), flush=True)
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
