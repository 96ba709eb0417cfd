"""`imgret compare-encoders` prints for each encoder what an index of its own has measured."""

import json

import pytest

from imgret import ImageLibrary, build_index
from imgret.cli import main
from tests.models import small_model_folder


@pytest.fixture
def run(capsys, cache, monkeypatch):
    monkeypatch.setenv("IMGRET_CACHE", str(cache))

    def run(*arguments):
        code = main(["compare-encoders", *map(str, arguments)])
        return code, *capsys.readouterr()

    return run


def test_two_encoders_are_measured_over_the_same_pictures(run, small_library, cache, tmp_path):
    (tmp_path / "model").mkdir()
    other = small_model_folder(tmp_path / "model", "clip", [])
    code, printed, _ = run(small_library, "starter", other, "--json")
    found = json.loads(printed)
    assert (code, list(found)) == (0, ["starter", other])
    index = build_index(ImageLibrary.load(small_library), tmp_path / "index", "starter", 16, cache=cache)
    for name, value in index.evaluation["methods"]["clip"].items():
        assert found["starter"][f"clip {name}"] == pytest.approx(value)
    index.close()
    for figures in found.values():
        assert all(figures[name] > 0 for name in ("ms a picture", "ms a text", "MB", "build s"))
    assert found["starter"]["clip map"] > found[other]["clip map"]  # of random weights
    assert found["starter"]["MB"] > 40


def test_the_table_has_a_line_an_encoder_and_one_named_twice_is_refused(run, small_library):
    code, printed, _ = run(small_library, "starter", "--limit", 20)
    head, line = printed.splitlines()
    assert code == 0
    assert "precision@1" in head
    assert line.startswith("starter")
    code, _, said = run(small_library, "starter", "starter")
    assert code == 2
    assert "named twice" in said
