"""A folder, a parquet file and a data set become the same kind of records, and what cannot serve says why."""

import csv
import io
import os
import pickle
import shutil
from dataclasses import replace

import datasets
import numpy as np
import pytest
from PIL import Image

from imgret import ImageLibrary, LibraryError
from tests.conftest import LIBRARY

NAMES = ["cat", "dog"]


@pytest.fixture
def class_folders(tmp_path):
    for label in NAMES:
        for number in range(3):
            path = tmp_path / "pictures" / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (8 + number, 6), (number * 80, 90, len(label))).save(path)
    return tmp_path / "pictures"


@pytest.fixture
def table():
    pictures = [Image.new("RGB", (8, 6), (number * 40, 0, 0)) for number in range(6)]
    features = datasets.Features(
        {"img": datasets.Image(), "label": datasets.ClassLabel(names=NAMES), "caption": datasets.Value("string")}
    )
    rows = {"img": pictures, "label": [0, 1] * 3, "caption": [f"number {number}" for number in range(6)]}
    return datasets.Dataset.from_dict(rows, features=features)


def listed(library):
    return [(record.id, record.label, record.caption, record.width, record.height) for record in library]


def test_the_embedded_library_has_labels_and_captions_in_two_languages():
    library = ImageLibrary.load(LIBRARY)
    records = list(library)
    assert library.count == len(records) > 450
    assert library.skipped == ()
    assert len({record.id for record in records}) == len(records)
    assert all(record.label and record.caption and record.image.mode == "RGB" for record in records)
    assert sum("vi" in record.captions for record in records) > 450


def test_class_folders_are_labels_and_ids_are_relative_paths(class_folders):
    library = ImageLibrary.load(class_folders)
    assert [(record.id, record.label) for record in library] == [
        (f"{label}/{number}.png", label) for label in NAMES for number in range(3)
    ]


def test_nested_class_folders_give_a_label_of_two_levels_at_most(class_folders, tmp_path):
    deep = tmp_path / "deep" / "a" / "b" / "c"
    deep.parent.mkdir(parents=True)
    shutil.move(class_folders / "cat", deep)
    assert {record.label for record in ImageLibrary.load(tmp_path / "deep")} == {"a/b"}


def test_train_and_test_folders_are_splits_not_labels(class_folders, tmp_path):
    root = tmp_path / "data"
    shutil.copytree(class_folders, root / "train")
    shutil.copytree(class_folders / "cat", root / "test" / "cat")
    assert [record.label for record in ImageLibrary.load(root)] == ["cat"] * 3 + ["dog"] * 3
    assert ImageLibrary.load(root, split="test").count == 3
    with pytest.raises(LibraryError, match="no split 'dev'; it has train, test"):
        ImageLibrary.load(root, split="dev")


def test_metadata_names_the_pictures_their_labels_and_captions(class_folders):
    with (class_folders / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["file_name", "label", "caption", "caption_vi"])
        writer.writerow(["cat/1.png", "pet", 'a "cat", sitting', "một con mèo"])
        writer.writerow(["gone.png", "pet", "", ""])
        writer.writerow(["../../outside.png", "pet", "", ""])
    Image.new("RGB", (3, 3)).save(class_folders.parent.parent / "outside.png")
    library = ImageLibrary.load(class_folders)
    (record,) = library
    assert (record.id, record.label, record.caption) == ("cat/1.png", "pet", 'a "cat", sitting')
    assert record.captions == {"vi": "một con mèo"}
    assert [name for name, _ in library.skipped] == ["gone.png", "../../outside.png"]


def test_rows_that_cannot_be_decoded_are_skipped_and_listed(class_folders):
    (class_folders / "cat" / "0.png").write_bytes(b"<html>")
    library = ImageLibrary.load(class_folders)
    assert len(list(library)) == 5
    ((name, reason),) = library.skipped
    assert name == "cat/0.png"
    assert "not a picture" in reason


def test_a_dataset_and_its_parquet_give_the_same_records(table, tmp_path):
    table.to_parquet(tmp_path / "rows.parquet")
    (tmp_path / "repo" / "data").mkdir(parents=True)
    shutil.copy(tmp_path / "rows.parquet", tmp_path / "repo" / "data" / "train-00000-of-00001.parquet")
    expected = listed(ImageLibrary.load(table))
    assert expected[1] == ("1", "dog", "number 1", 8, 6)
    assert listed(ImageLibrary.load(tmp_path / "rows.parquet")) == expected
    assert listed(ImageLibrary.load(tmp_path / "repo")) == expected
    assert listed(ImageLibrary.load(tmp_path / "repo", limit=4)) == expected[:4]
    assert listed(ImageLibrary.load(table.to_iterable_dataset())) == expected


@pytest.mark.parametrize("limit", [None, 4])
@pytest.mark.parametrize("kind", ["folder", "metadata", "table", "streamed"])
def test_the_parts_that_others_are_sent_are_the_whole_in_order(class_folders, table, tmp_path, kind, limit):
    source = class_folders
    if kind == "metadata":
        with (source / "metadata.csv").open("w", newline="") as file:
            csv.writer(file).writerows([["file_name", "label"], ["dog/1.png", "d"], ["cat/0.png", "c"], ["no", ""]])
    elif kind == "table":
        source = table
    elif kind == "streamed":
        for number in range(3):
            (tmp_path / "shards").mkdir(exist_ok=True)
            table.shard(3, number, contiguous=True).to_parquet(tmp_path / "shards" / f"train-{number}-of-3.parquet")
        source = datasets.load_dataset(str(tmp_path / "shards"), split="train", streaming=True)
    library = ImageLibrary.load(source, limit=limit)
    parts = [pickle.loads(pickle.dumps(part)) for part in library.parts(2)]
    assert len(parts) > 1 or limit
    entries = [entry for part in parts for entry in part]
    if library.numbered:
        entries = [replace(entry, id=str(number)) for number, entry in enumerate(entries)]
    assert entries == list(library.entries())


def test_columns_can_be_named_by_the_caller(table):
    renamed = table.rename_columns({"label": "kind", "caption": "words"}).cast_column("kind", datasets.Value("int64"))
    assert [record.label for record in ImageLibrary.load(renamed)] == [None] * 6
    assert [record.caption for record in ImageLibrary.load(renamed)][:1] == ["number 0"]  # the only text there is
    assert [record.label for record in ImageLibrary.load(renamed, label_column="kind")] == ["0", "1"] * 3
    with pytest.raises(LibraryError, match="no column 'nope'; there are img, kind, words"):
        ImageLibrary.load(renamed, image_column="nope")


def test_a_data_set_without_pictures_lists_its_columns_and_types():
    table = datasets.Dataset.from_dict({"text": ["a"], "number": [1]})
    with pytest.raises(LibraryError, match=r"text \(string\), number \(int64\)"):
        ImageLibrary.load(table)


def test_pictures_in_lists_are_refused():
    features = datasets.Features({"shots": datasets.List(datasets.Image())})
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2)).save(buffer, "PNG")
    table = datasets.Dataset.from_dict({"shots": [[{"bytes": buffer.getvalue(), "path": None}]]}, features=features)
    with pytest.raises(LibraryError, match="single pictures"):
        ImageLibrary.load(table)


def test_what_cannot_be_a_library_says_so_at_once(tmp_path):
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(LibraryError, match="no pictures in"):
        ImageLibrary.load(tmp_path)
    with pytest.raises(LibraryError, match=r"notes\.txt is a file"):
        ImageLibrary.load(tmp_path / "notes.txt")
    with pytest.raises(LibraryError, match="Hub cannot be reached"):
        ImageLibrary.load("nobody/nothing")
    with pytest.raises(LibraryError, match="check the name"):
        ImageLibrary.load("not a name!")
    with pytest.raises(LibraryError, match="limit"):
        ImageLibrary.load(LIBRARY, limit=0)


def test_the_revision_of_a_folder_tells_whether_it_changed(class_folders):
    before = ImageLibrary.load(class_folders).revision
    os.utime(class_folders / "cat" / "0.png")
    assert ImageLibrary.load(class_folders).revision == before
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (9, 9, 3), np.uint8)).save(
        class_folders / "cat" / "0.png"
    )
    assert ImageLibrary.load(class_folders).revision != before
