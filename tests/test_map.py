"""The files that the page draws the map from, and the areas that visitors mark on it."""

import io
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from imgret import ImageLibrary, Index, build_index
from imgret.images import load_image
from imgret.search import SearchError
from imgret.ui import map_files
from imgret.ui.area import UNITS, rows_in
from imgret.ui.i18n import WORDS
from imgret.ui.map_files import points_file, sheet_file
from imgret.ui.map_section import told
from tests.conftest import LIBRARY


def read(index):
    return json.loads(points_file(index)), Image.open(io.BytesIO(sheet_file(index)))


@pytest.mark.parametrize("most", [1500, 100])
def test_each_small_picture_stands_where_the_points_say(retriever, monkeypatch, most):
    monkeypatch.setattr(map_files, "MAX_SMALL", most)
    index = retriever.index
    points, sheet = read(index)
    rows, places = index.map
    assert sorted(points["rows"]) == rows.tolist()
    place_of = dict(zip(rows.tolist(), places, strict=True))
    expected = np.array([place_of[row] for row in points["rows"]])
    assert np.abs(np.column_stack([points["x"], points["y"]]) / UNITS - expected).max() <= 0.5 / UNITS + 1e-6
    assert len(points["shapes"]) == min(most, 545)
    on_sheet = np.sort(points["rows"][: len(points["shapes"])])
    assert np.ptp(np.diff(on_sheet)) <= 1  # an even sample
    cell = sheet.width // points["columns"]
    likeness = []
    for number, (row, shape) in enumerate(zip(points["rows"], points["shapes"], strict=False)):
        thumbnail = load_image(index.thumbnail(row))
        assert thumbnail.width / thumbnail.height == pytest.approx(shape, rel=0.05)
        left, top = number % points["columns"] * cell, number // points["columns"] * cell
        small = sheet.crop((left, top, left + cell, top + cell))
        likeness.append(np.abs(np.subtract(small, thumbnail.resize((cell, cell)), dtype=float)).mean())
    assert max(likeness) < 16  # of 255


def test_the_files_of_a_map_are_small(retriever):
    assert len(points_file(retriever.index)) < 20_000
    assert len(sheet_file(retriever.index)) < 250_000


def test_a_name_stands_at_a_picture_of_its_label_in_their_midst(retriever):
    index = retriever.index
    names = points_file(index)
    names = json.loads(names)["names"]
    assert [count for *_, count in names] == sorted(index.manifest.labels.values(), reverse=True)
    assert names[0][0] == "mammals"
    _, points = index.map
    own = points[index.rows_of("animals/mammals")]
    place = np.array(names[0][1:3]) / UNITS
    assert np.abs(own - place).max(axis=1).min() < 1e-4
    away = np.linalg.norm(own - np.median(own, axis=0), axis=1)
    assert np.linalg.norm(place - np.median(own, axis=0)) == pytest.approx(away.min(), abs=1e-3)


def test_an_area_holds_the_pictures_within_its_corners(retriever):
    rows, points = retriever.index.map
    found = rows_in(retriever.index, "5000_2000_5000_9000_8000_9000_8000_2000")
    left, low, right, high = 0.5, 0.2, 0.8, 0.9
    inside = (points > (left, low)).all(axis=1) & (points < (right, high)).all(axis=1)
    assert found.tolist() == rows[inside].tolist()
    assert rows_in(retriever.index, "") is None


MALFORMED = ["1_2_3_4", "1_2_3_4_5", "a", "1_2_3_4_5_nan", "1_1_1_1_1_30000", "9" * 9000 + "_1_1_1_1_1", None, ["1"], 7]


@pytest.mark.parametrize("area", [*MALFORMED, "_".join(["1"] * 402), "1" * 10_000])
def test_an_area_that_is_none_is_told(retriever, area):
    with pytest.raises(SearchError, match="An area of the map is x_y_x_y_"):
        rows_in(retriever.index, area)


def test_an_area_without_a_picture_and_a_library_without_a_map_are_told(retriever, index_folder, cache):
    with pytest.raises(SearchError, match="No picture lies in this area"):
        rows_in(retriever.index, "1_1_1_2_2_2")
    index = Index.open(index_folder, cache=cache)
    index.map = None  # of an early release
    with pytest.raises(SearchError, match="no map"):
        rows_in(index, "1_1_1_2_2_2")
    index.close()


def test_an_area_is_told_with_what_is_left_out_and_a_label_is_only_text(cache, tmp_path, monkeypatch):
    monkeypatch.setattr("imgret.projection.MAPPED", 9)
    for number, picture in enumerate(sorted(LIBRARY.rglob("*.webp"))[:12]):
        folder = tmp_path / "library" / ("<b>seen" if number % 3 else "one & all")
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, folder)
    index = build_index(ImageLibrary.load(tmp_path / "library"), tmp_path / "index", "starter", cache=cache)
    rows = rows_in(index, "-100_-100_-100_10100_10100_10100_10100_-100")
    assert len(rows) == 9
    assert told(index, rows.tolist(), WORDS["en"]) == (
        "Pictures of the map that are marked and shown: <strong>9</strong>; left out: 0. The map has 9 of the "
        "library's 12 pictures; those that have no place on it are left out, too. "
        "Their labels: &lt;b&gt;seen 6, one &amp; all 3."
    )
    assert told(index, rows[:1].tolist(), WORDS["en"]).startswith(
        "Pictures of the map that are marked and shown: <strong>1</strong>;"
    )
    index.close()
