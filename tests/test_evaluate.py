"""The figures are those that the definitions give, counted by hand."""

import json

import datasets
import numpy as np
import pytest

from imgret import EvaluationError, ImageLibrary, Retriever, build_index
from imgret.cli import main
from imgret.evaluate import MAX_COMPARISONS, affordable_queries, evaluate
from imgret.metrics import METRICS, best_first


@pytest.fixture(scope="module")
def small(small_library, cache, tmp_path_factory):
    index = build_index(
        ImageLibrary.load(small_library), tmp_path_factory.mktemp("evaluate") / "index", "starter", 16, cache=cache
    )
    yield Retriever(index, cache=cache)
    index.close()


def by_hand(ranking_of, labels):
    """Precision@1, @5, @10 and mAP, one query at a time."""
    rows = []
    for query, label in enumerate(labels):
        relevant = [labels[row] == label for row in ranking_of(query) if row != query]
        hits = np.flatnonzero(relevant)
        average = np.mean([(number + 1) / (rank + 1) for number, rank in enumerate(hits)])
        rows.append([np.mean(relevant[:1]), np.sum(relevant[:5]) / 5, np.sum(relevant[:10]) / 10, average])
    return np.mean(rows, axis=0)


def test_every_method_has_the_precision_and_map_of_its_definition(small):
    labels = small.index.column("label")
    found = evaluate(small)
    assert list(found.methods) == [*METRICS, "clip"]
    assert (found.queries, found.alone) == (40, 0)
    vectors, embeddings = small.index.pixels.vectors, small.index.embeddings
    for method, figures in found.methods.items():
        if method == "clip":
            expected = by_hand(lambda row: np.argsort(-(embeddings @ embeddings[row]), kind="stable"), labels)
        else:
            expected = by_hand(lambda row, m=method: best_first(METRICS[m](vectors[row], vectors), m), labels)
        assert list(figures) == ["precision@1", "precision@5", "precision@10", "map"]
        np.testing.assert_allclose(list(figures.values()), expected)


def test_the_metrics_on_embeddings_are_measured_where_asked_for(small):
    labels, embeddings = small.index.column("label"), small.index.embeddings
    found = evaluate(small, methods=["clip", "clip-l1", "clip-l2", "clip-correlation"])
    for method, metric in {"clip-l1": "l1", "clip-l2": "l2", "clip-correlation": "correlation"}.items():
        expected = by_hand(lambda row, m=metric: best_first(METRICS[m](embeddings[row], embeddings), m), labels)
        np.testing.assert_allclose(list(found.methods[method].values()), expected)
    assert found.methods["clip-l2"] == found.methods["clip"]
    assert found.methods["clip-l1"] != found.methods["clip"]


def test_labels_average_to_the_whole(small):
    found = evaluate(small)
    assert list(found.by_label) == sorted(small.index.manifest.labels)
    maps = [figures["clip"]["map"] for figures in found.by_label.values()]
    assert np.mean(maps) == pytest.approx(found.methods["clip"]["map"])  # ten pictures a label


def test_captions_find_their_own_picture_as_often_as_a_count_says(retriever):
    found = evaluate(retriever, queries=100)
    assert found.queries == 100
    everything = evaluate(retriever)
    captions, embeddings = retriever.index.column("caption"), retriever.index.embeddings
    scores = retriever.encoder.embed_texts(captions) @ embeddings.T
    ranks = 1 + (scores > np.diag(scores)[:, None]).sum(axis=1)
    for k in (1, 5, 10):
        assert everything.captions[f"recall@{k}"] == pytest.approx(np.mean(ranks <= k))
    # What the embedded library and the starter are known to reach; a broken tower or projection falls far below.
    assert everything.captions["recall@10"] >= 0.34
    assert everything.methods["clip"]["precision@1"] >= 0.60
    assert all(everything.methods[metric]["precision@1"] < 0.35 for metric in METRICS)


def test_a_label_with_one_picture_is_no_query(small_library, tmp_path, cache):
    import shutil

    folder = shutil.copytree(small_library, tmp_path / "library")
    (folder / "alone").mkdir()
    next(folder.glob("birds/*")).rename(folder / "alone" / "x.webp")
    index = build_index(ImageLibrary.load(folder), tmp_path / "index", "starter", 16, cache=cache)
    found = evaluate(Retriever(index, cache=cache))
    assert (found.queries, found.alone) == (39, 1)
    assert "alone" not in found.by_label


def test_an_index_without_labels_or_captions_has_nothing_to_measure(small_library, tmp_path, cache):
    import shutil

    (tmp_path / "flat").mkdir()
    for path in list(small_library.rglob("*.webp"))[:5]:
        shutil.copy(path, tmp_path / "flat")
    index = build_index(ImageLibrary.load(tmp_path / "flat"), tmp_path / "index", "starter", 16, cache=cache)
    with pytest.raises(EvaluationError, match="nothing to measure"):
        evaluate(Retriever(index, cache=cache))
    with pytest.raises(EvaluationError, match="at least 1"):
        evaluate(Retriever(index, cache=cache), queries=0)


def test_the_command_samples_a_large_library_so_that_its_time_does_not_grow_with_the_square(small, capsys, monkeypatch):
    assert [affordable_queries(count, MAX_COMPARISONS) for count in (5477, 60_000, 10**7)] == [5477, 500, 100]
    folder = str(small.index.folder)
    assert main(["evaluate", folder]) == 0
    assert capsys.readouterr().out.startswith("40 queries, each against the other pictures of 40;")
    monkeypatch.setattr("imgret.evaluate.MIN_QUERIES", 5)
    monkeypatch.setattr("imgret.evaluate.MAX_COMPARISONS", 40 * 12)
    assert main(["evaluate", folder]) == 0
    assert capsys.readouterr().out.startswith("12 queries, a sample by a fixed seed, each against the other pictures")
    assert main(["evaluate", folder, "--queries", "40", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["queries"] == 40


def test_a_picture_of_several_labels_counts_for_each_of_them(cache, tmp_path, small_library):
    pictures = sorted(path for path in small_library.rglob("*") if path.suffix == ".webp")[:6]
    labels = [["a", "b"], ["a"], ["b"], ["b", "c"], ["c"], ["d"]]
    rows = [
        {"image": {"bytes": path.read_bytes(), "path": None}, "labels": each}
        for path, each in zip(pictures, labels, strict=True)
    ]
    index = build_index(
        ImageLibrary.load(datasets.Dataset.from_list(rows).cast_column("image", datasets.Image())),
        tmp_path / "index",
        "starter",
        16,
        cache=cache,
    )
    found = evaluate(Retriever(index, cache=cache))
    assert (found.queries, found.alone, set(found.by_label)) == (5, 1, {"a", "b", "c"})
    index.close()
