"""Measures search quality: precision@k and mAP by label for all five methods, recall@k from captions to pictures."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from imgret.encoders.texts import TextEmbeddings
from imgret.errors import ImgretError
from imgret.images import ImageError, load_image
from imgret.index import Index
from imgret.library import ImageLibrary
from imgret.metrics import METRICS, best_first
from imgret.progress import Progress, no_progress
from imgret.search import EMBEDDING_METHODS, METHODS, Retriever

PRECISIONS = (1, 5, 10)
RECALLS = (1, 5, 10)
_BLOCK = 64

MIN_QUERIES, MAX_COMPARISONS = 100, 30_000_000
"""How many queries `imgret evaluate` takes at least, and how many pictures they are compared with: all queries up to
5,477 pictures, 500 at 60,000. So its time does not grow with the square of the number of pictures.
"""

Rows = npt.NDArray[np.int64]
Figures = npt.NDArray[np.float64]
BestOthers = dict[str, dict[int, float]]
"""By method and query row, the score of the best hit that shares no label with the query."""


class EvaluationError(ImgretError):
    """The index has neither labels nor captions to measure against."""


@dataclass(frozen=True)
class Evaluation:
    """What `imgret evaluate` prints.

    `methods` holds precision@k and map by method, means over the queries, each from 0 to 1; `by_label` the same by
    label, then by method; `captions` recall@k from captions to pictures, None where no picture has a caption, by
    `caption_queries` captions; `captions_by_language` the same by language code, where the library has captions in
    several languages; `held_out` the figures of queries that are not in the index, where the build had such. A query
    whose label no other picture has counts as 0 everywhere; there are `alone` of them.
    """

    queries: int
    alone: int
    methods: dict[str, dict[str, float]]
    captions: dict[str, float] | None
    by_label: dict[str, dict[str, dict[str, float]]]
    caption_queries: int = 0
    captions_by_language: dict[str, dict[str, float]] = field(default_factory=dict)
    held_out: "HeldOut | None" = None


def evaluate(
    retriever: Retriever,
    queries: int | None = None,
    progress: Progress = no_progress,
    methods: Sequence[str] = METHODS,
    texts: TextEmbeddings | None = None,
    others: BestOthers | None = None,
) -> Evaluation:
    """Searches with each labelled picture, or with `queries` of them, drawn with a fixed seed; the query is left out.

    Rankings are complete and exact: the metrics on all pixel vectors, the cosine on all embeddings. The recall audit
    measures what Chroma misses of them. A hit is right if it shares a label with the query. Average precision is the
    mean of the precision at each rank that holds such a hit. Each caption is a query, also where a picture has
    several: its recall@k is 1 if its own picture is among the first k. `methods` may also name those of
    `EMBEDDING_METHODS`. `texts` keeps the vectors of the captions, and `others` the scores of the best hits that share
    no label with their queries, for callers that need them again. Raises EvaluationError.
    """
    if queries is not None and queries < 1:
        raise EvaluationError("The number of queries is {queries}; it must be at least 1.", queries=queries)
    index = retriever.index
    labels = index.words("label", "labels")
    rows_of = _rows_by_label(labels)
    shared = [any(len(rows_of[label]) > 1 for label in each) for each in labels]
    alone = sum(map(bool, labels)) - sum(shared)
    rows = sample(np.flatnonzero(shared), queries)
    asked_of = _rows_by_label([labels[row] for row in rows])
    measured: dict[str, dict[str, float]] = {}
    by_label: dict[str, dict[str, dict[str, float]]] = defaultdict(dict)
    for method in methods if len(rows) else ():
        blocks = []
        for start in range(0, len(rows), _BLOCK):
            progress(f"evaluate {method}", start, len(rows))
            block = rows[start : start + _BLOCK]
            ranking, scores = _others_best_first(retriever, method, block)
            relevant = np.take_along_axis(_relevant(labels, rows_of, block, len(index)), ranking, axis=1)
            blocks.append(_figures(relevant))
            if others is not None:
                there, first = ~relevant.all(axis=1), np.argmin(relevant, axis=1)
                best = scores[np.arange(len(block)), first]
                others.setdefault(method, {}).update(zip(block[there].tolist(), best[there].tolist(), strict=True))
        progress(f"evaluate {method}", len(rows), len(rows))
        figures = np.vstack(blocks)
        measured[method] = _named_means(figures)
        for name in index.manifest.labels:
            if name in asked_of:
                by_label[name][method] = _named_means(figures[asked_of[name]])
    captions = [(row, text) for row, each in enumerate(index.words("caption", "all_captions")) for text in each]
    asked: dict[str | None, list[tuple[int, str]]] = {
        language: [pairs[number] for number in sample(np.arange(len(pairs)), queries)]
        for language, pairs in [(None, captions), *_captions_by_language(retriever).items()]
    }
    if not measured and not captions:
        raise EvaluationError(
            "No picture of the index has a label or a caption, so there is nothing to measure answers against."
        )
    texts = texts or TextEmbeddings(lambda: retriever.encoder)
    texts.add(
        (text for pairs in asked.values() for _, text in pairs),
        lambda done, total: progress("evaluate captions", done, total),
    )
    recall = {language: _caption_recall(index, pairs, texts) for language, pairs in asked.items() if pairs}
    return Evaluation(
        queries=len(rows),
        alone=alone,
        methods=measured,
        captions=recall.get(None),
        by_label=dict(by_label),
        caption_queries=len(asked[None]),
        captions_by_language={language: found for language, found in recall.items() if language is not None},
    )


@dataclass(frozen=True)
class HeldOut:
    """Figures of queries that are not in the index, by method, as those of `Evaluation`.

    `unknown` pictures have no label that the index has, or cannot be decoded, and are no queries.
    """

    queries: int
    unknown: int
    methods: dict[str, dict[str, float]]


def evaluate_held_out(
    retriever: Retriever,
    library: ImageLibrary,
    progress: Progress = no_progress,
    methods: Sequence[str] = METHODS,
    queries: int | None = None,
) -> HeldOut:
    """Searches with each picture of `library`, whose labels are those of the index, among all pictures of the index; or
    with `queries` of them, drawn with a fixed seed.

    Rankings are complete and exact. Raises EvaluationError where no label is known.
    """
    index, unknown = retriever.index, 0
    figures: dict[str, list[Figures]] = {method: [] for method in methods}
    rows_of = _rows_by_label(index.words("label", "labels"))
    chosen = None if library.count is None else {*sample(np.arange(library.count), queries).tolist()}
    for done, entry in enumerate(library.entries()):
        if chosen is not None and done not in chosen:
            continue
        progress("evaluate held out", done, library.count)
        known = [rows_of[label] for label in entry.labels if label in rows_of]
        try:
            image = load_image(entry.read()) if known else None
        except ImageError:
            image = None
        if image is None:
            unknown += 1
            continue
        relevant = np.zeros(len(index), dtype=bool)
        relevant[np.concatenate(known)] = True
        vector = retriever.embed_query(image=image)
        for method in methods:
            if method in METRICS:
                query = retriever.pixel_query(image)
                order = index.pixels.search(query, method, len(index))[0]
            else:
                metric = EMBEDDING_METHODS.get(method, "cosine")
                order = best_first(METRICS[metric](vector, index.embeddings), metric)
            figures[method].append(_figures(relevant[order][None]))
    found = {method: _named_means(np.vstack(each)) for method, each in figures.items() if each}
    if not found:
        raise EvaluationError("No picture that was held out has a label of the index; class folders name them.")
    return HeldOut(len(next(iter(figures.values()))), unknown, found)


def _captions_by_language(retriever: Retriever) -> dict[str, list[tuple[int, str]]]:
    """The captions (row, text) by language code; none where no picture has a caption of a named language. A caption
    without a language beside those is English.
    """
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    captions, in_languages = (retriever.index.column(name) for name in ("caption", "captions"))
    named = any(in_languages)
    for row, (caption, others) in enumerate(zip(captions, in_languages, strict=True)):
        plain = {"en": caption} if named and caption else {}
        for language, text in (plain | dict(others or ())).items():
            found[language].append((row, text))
    return dict(sorted(found.items()))


def affordable_queries(count: int, comparisons: int) -> int:
    """How many queries may rank `count` pictures each within so many `comparisons`; MIN_QUERIES at least."""
    return max(MIN_QUERIES, comparisons // count)


def _rows_by_label(labels: list[tuple[str, ...]]) -> dict[str, Rows]:
    """The rows of each label, in order, in one pass: a library may have as many labels as pictures."""
    found: dict[str, list[int]] = defaultdict(list)
    for row, each in enumerate(labels):
        for label in dict.fromkeys(each):
            found[label].append(row)
    return {label: np.array(rows, dtype=np.int64) for label, rows in found.items()}


def sample(rows: Rows, queries: int | None) -> Rows:
    """`queries` of the rows, drawn with a fixed seed, in order; all where there are no more or None is asked for."""
    if queries is None or queries >= len(rows):
        return rows
    return np.sort(np.random.default_rng(0).choice(rows, queries, replace=False))


def _others_best_first(retriever: Retriever, method: str, rows: Rows) -> tuple[Rows, npt.NDArray[np.floating]]:
    """For each of `rows` (Q,) all other rows of the index, best first, and their scores. (Q, N - 1) each."""
    index = retriever.index
    scores: npt.NDArray[np.floating]
    if method in METRICS:
        ranking, scores = index.pixels.search_many(index.pixels.vectors[rows], method, len(index))
    else:
        if method == "clip":
            scores = index.embeddings[rows] @ index.embeddings.T
            ranking = np.argsort(-scores, axis=1, kind="stable")
        else:
            metric = EMBEDDING_METHODS[method]
            scores = np.stack([METRICS[metric](index.embeddings[row], index.embeddings) for row in rows])
            ranking = np.stack([best_first(each, metric) for each in scores])
        scores = np.take_along_axis(scores, ranking, axis=1)
    kept = ranking != rows[:, None]
    return ranking[kept].reshape(len(rows), -1), scores[kept].reshape(len(rows), -1)


def _relevant(
    labels: list[tuple[str, ...]], rows_of: dict[str, Rows], queries: Rows, count: int
) -> npt.NDArray[np.bool_]:
    """Which of the pictures share a label with which of the queries. (Q,) -> (Q, N)."""
    relevant = np.zeros((len(queries), count), dtype=bool)
    for number, row in enumerate(queries):
        for label in labels[row]:
            relevant[number, rows_of[label]] = True
    return relevant


def _figures(relevant: npt.NDArray[np.bool_]) -> Figures:
    """Precision at each of PRECISIONS, then average precision, of hits best first. (Q, M) -> (Q, 4)."""
    precisions = [relevant[:, :k].sum(axis=1) / k for k in PRECISIONS]
    precision_at_rank = relevant.cumsum(axis=1) / np.arange(1, relevant.shape[1] + 1)
    average = (precision_at_rank * relevant).sum(axis=1) / np.maximum(relevant.sum(axis=1), 1)
    return np.column_stack([*precisions, average])


def _named_means(figures: Figures) -> dict[str, float]:
    names = [*(f"precision@{k}" for k in PRECISIONS), "map"]
    return dict(zip(names, figures.mean(axis=0).tolist(), strict=True))


def _caption_recall(index: Index, pairs: Sequence[tuple[int, str]], texts: TextEmbeddings) -> dict[str, float]:
    """Recall@k of the captions (row, text)."""
    ranks: list[int] = []
    for start in range(0, len(pairs), _BLOCK):
        rows, block = zip(*pairs[start : start + _BLOCK], strict=True)
        scores = texts.of(block) @ index.embeddings.T
        own = scores[np.arange(len(rows)), rows]
        ranks.extend(1 + (scores > own[:, None]).sum(axis=1))
    return {f"recall@{k}": float(np.mean(np.array(ranks) <= k)) for k in RECALLS}
