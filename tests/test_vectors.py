"""The Chroma collection answers with rows, leaves its folder as it was, and its recall is what the audit says."""

import hashlib

import numpy as np
import pytest

from imgret.vectors import VectorError, VectorStore


def unit_rows(count, dim=32, seed=0):
    rows = np.random.default_rng(seed).standard_normal((count, dim)).astype(np.float32)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def digests(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("count", [1, 7, 1500])
def test_the_nearest_rows_come_first_and_the_folder_stays_as_it_was(count, tmp_path):
    rows = unit_rows(count)
    audit = VectorStore.create(tmp_path / "db", rows, [f"label {row % 3}" for row in range(count)])
    assert (audit.queries, audit.k) == (256, 10)
    assert audit.recall >= 0.99
    before = digests(tmp_path / "db")
    store = VectorStore.open(tmp_path / "db", tmp_path / "cache", rows)
    for query in unit_rows(20, seed=1):
        exact = np.argsort(-(rows @ query), kind="stable")[:5]
        assert store.query(query, 5).tolist() == exact.tolist()
        wanted = exact[np.isin(exact % 3, [0, 2])]
        assert store.query(query, 5, ["label 0", "label 2"]).tolist()[: len(wanted)] == wanted.tolist()
    store.close()
    assert digests(tmp_path / "db") == before
    assert list((tmp_path / "cache" / "chroma").iterdir()) == []


def test_the_audit_raises_ef_search_until_the_neighbours_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr("imgret.vectors.base.HNSW", {"space": "cosine", "ef_construction": 8, "max_neighbors": 3})
    monkeypatch.setattr("imgret.vectors.base.FIRST_EF_SEARCH", 4)
    rows = unit_rows(3000, dim=64)
    audit = VectorStore.create(tmp_path / "db", rows, [None] * len(rows))
    assert audit.ef_search > 4
    assert audit.recall >= 0.99 or audit.ef_search == len(rows)
    store = VectorStore.open(tmp_path / "db", tmp_path / "cache", rows)
    assert store.audit(rows, audit.ef_search) == audit  # the setting that is stored is the one that was measured
    store.close()


def test_two_stores_open_the_same_folder_at_once(tmp_path):
    rows = unit_rows(50)
    VectorStore.create(tmp_path / "db", rows, [None] * 50)
    stores = [VectorStore.open(tmp_path / "db", tmp_path / "cache", rows) for _ in range(2)]
    assert [store.query(rows[3], 1).tolist() for store in stores] == [[3], [3]]
    for store in stores:
        store.close()


def test_a_folder_without_a_collection_is_refused(tmp_path):
    (tmp_path / "db").mkdir()
    with pytest.raises(VectorError, match="build the index anew"):
        VectorStore.open(tmp_path / "db", tmp_path / "cache", unit_rows(3))


@pytest.mark.parametrize("named", [[], [["0", "0"]], [["0", "7"]], [["0", "x"]], [["0"]]], ids=str)
def test_an_answer_that_lacks_rows_or_has_unknown_ones_is_refused(named):
    class Source:
        def nearest(self, vectors, k, where):
            return named

    with pytest.raises(VectorError, match="missing or unknown"):
        VectorStore(Source(), 7).query(unit_rows(1)[0], 2)
