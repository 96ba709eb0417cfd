"""A query without a match in the library is rarely given one, and every door says where the matches end."""

import json

import numpy as np
import pytest

from benchmarks.matches import best_by_label, measured
from imgret import ImageLibrary, Retriever, build_index
from imgret.calibration import ALPHA, MARGIN, TEXT, Calibration, p_values
from imgret.metrics import LARGER_IS_CLOSER, METRICS
from imgret.search import METHODS
from tests.conftest import LIBRARY, QUERIES

TIGER = QUERIES / "tiger.webp"


def test_a_p_value_is_the_share_of_calibration_queries_that_do_as_well_and_its_margin():
    labels = np.array([[0], [0], [1], [1], [2]])
    calibration = Calibration(labels, np.array([0.1, 0.5, 0.3, 0.9, 0.2]))
    found = p_values(calibration, "cosine", np.array([0.4]), [frozenset([7])], np.array([0.4]))
    as_good = np.array([0, 1, 0, 1, 0])  # of the labels 0, 1 and 2: one of two, one of two, none of one
    off = np.array([1 - 2 * 0.4, 1 - 2 * 0.4, 0 - 0.4])
    error = np.sqrt((off**2).sum() * 3 / 2) / 5
    assert found[0] == pytest.approx((1 + as_good.sum()) / 6 + MARGIN * error)
    # A calibration query with the label of the hit is compared with the best hit of another label.
    own = p_values(calibration, "cosine", np.array([0.95]), [frozenset([1])], np.array([0.3]))
    assert own[0] > p_values(calibration, "cosine", np.array([0.95]), [frozenset([7])], np.array([0.95]))[0]
    assert p_values(calibration, "l2", np.array([0.05]), [frozenset()], np.array([0.05]))[0] == pytest.approx(1 / 6)
    falling = p_values(calibration, "l2", np.array([0.3, 0.05]), [frozenset()] * 2, np.array([0.3, 0.3]))
    assert falling[0] == falling[1]


@pytest.mark.parametrize("method", METHODS)
def test_the_calibration_of_a_build_is_the_best_hit_of_another_label(retriever, method):
    index = retriever.index
    names, codes = np.unique(index.column("label"), return_inverse=True)
    best = best_by_label(index, method, codes, len(names))
    best[np.arange(len(codes)), codes] = -np.inf
    sign = 1 if method in (*LARGER_IS_CLOSER, "clip") else -1
    stored = index.calibration[method]
    assert stored["rows"] == list(range(len(index)))
    np.testing.assert_allclose(sign * np.array(stored["scores"]), best.max(axis=1), rtol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_of_queries_whose_label_was_removed_at_most_a_tenth_is_given_a_match(retriever, method):
    """By the Retriever itself, over an index without each of some labels."""
    index = retriever.index
    names, codes = np.unique(index.column("label"), return_inverse=True)
    figures = measured(best_by_label(index, method, codes, len(names)), codes, ALPHA)
    assert 0 < figures["given a match"] <= ALPHA
    assert figures["a right match"] >= figures["first hit right and a match"] > 0


def test_the_p_values_of_hits_are_those_that_the_benchmark_measures(retriever):
    index = retriever.index
    names, codes = np.unique(index.column("label"), return_inverse=True)
    best = best_by_label(index, "clip", codes, len(names))
    others = best.copy()
    others[np.arange(len(codes)), codes] = -np.inf
    calibration = Calibration(codes[:, None], others.max(axis=1))
    given = 0
    for row in range(0, len(index), 9):
        hit = retriever.by_clip(like=index.record(row).id, k=1)[0]
        label = int(best[row].argmax())
        other = np.delete(best[row], label).max()
        wanted = p_values(calibration, "clip", np.array([best[row, label]]), [frozenset([label])], np.array([other]))
        assert hit.label == names[label]
        assert hit.p == pytest.approx(wanted[0], abs=0.005)  # equal scores in two precisions
        given += hit.p <= ALPHA
    assert given > 0


def test_hits_have_p_values_where_their_kind_of_query_is_calibrated(retriever):
    for metric in METRICS:
        hits = retriever.by_pixels(TIGER, metric)
        values = [hit.p for hit in hits]
        assert values == sorted(values)
        assert all(0 < value <= 1 for value in values)
    text = retriever.find_by_clip(text="a bird")
    assert text.matches() == sum(hit.p <= ALPHA for hit in text.hits)
    assert text.matches(0.999) > text.matches(0.01) or text.matches(0.999) == 10
    some = retriever.find_by_clip(text="a bird", k=3)
    assert [hit.p for hit in some.hits] == [hit.p for hit in text.hits[:3]]
    rest = retriever.find_by_clip(text="a bird", k=7, offset=3)
    assert [hit.p for hit in rest.hits] == [hit.p for hit in text.hits[3:]]
    for asked in (
        {"text": "a bird", "negative": "water"},
        {"text": "a bird", "labels": ["animals/birds"]},
        {"image": TIGER, "text": "a cat"},
        {"images": [TIGER]},
        {"text": "a bird", "metric": "l1"},
    ):
        found = retriever.find_by_clip(**asked)
        assert (found.matches(), found.hits[0].p) == (None, None), asked
    assert TEXT in retriever.index.calibration


def test_a_library_without_labels_is_calibrated_by_its_pictures_and_one_label_not_at_all(cache, tmp_path):
    pictures = sorted((LIBRARY / "animals" / "birds").rglob("*.webp"))[:24]
    (tmp_path / "plain").mkdir()
    (tmp_path / "one" / "bird").mkdir(parents=True)
    for number, path in enumerate(pictures):
        (tmp_path / "plain" / f"{number}.webp").write_bytes(path.read_bytes())
        (tmp_path / "one" / "bird" / f"{number}.webp").write_bytes(path.read_bytes())
    (tmp_path / "plain" / "copy.webp").write_bytes(pictures[0].read_bytes())
    index = build_index(ImageLibrary.load(tmp_path / "plain"), tmp_path / "a", "starter", 16, cache=cache)
    stored = index.calibration["l1"]
    assert len(stored["rows"]) == 25
    assert min(stored["scores"]) > 0  # an equal picture is left out with the query
    hits = Retriever(index, cache=cache).by_pixels(pictures[3], "l1", 3)
    assert hits[0].score == 0
    assert hits[0].p < hits[1].p
    index = build_index(ImageLibrary.load(tmp_path / "one"), tmp_path / "b", "starter", 16, cache=cache)
    assert dict(index.calibration) == {}
    assert Retriever(index, cache=cache).by_pixels(pictures[3], "l1", 3)[0].p is None


def test_the_command_leaves_out_what_is_no_match(imgret, index_folder):
    asked = ("search", index_folder, "--image", TIGER, "--metric", "clip", "--json")
    hits = json.loads(imgret(*asked).stdout)["hits"]
    alpha = (hits[1]["p"] + hits[2]["p"]) / 2
    if hits[1]["p"] < hits[2]["p"] < 1:
        kept = json.loads(imgret(*asked, "--only-matches", "--alpha", alpha).stdout)["hits"]
        assert kept == hits[:2]
    none = imgret(*asked, "--only-matches", "--alpha", 0.001)
    assert none.returncode == 0
    assert json.loads(none.stdout) == {"hits": []}
    assert "no sure match" in none.stderr
    for options, says in (
        (("--alpha", 0.2), "needs --only-matches"),
        (("--only-matches", "--alpha", 2), "between 0 and 1"),
        (("--only-matches", "--text", "a cat"), "not known for this query"),
    ):
        refused = imgret(*asked, *options)
        assert (refused.returncode, says in refused.stderr) == (2, True)
