"""Tables of pictures: parquet with labels of every type, saved data sets, tar shards, data sets in memory."""

import datetime
import decimal
import io
import tarfile

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from imgret import ImageLibrary, LibraryError, Retriever, build_index
from imgret.evaluate import evaluate
from tests.test_library_folders import PICTURE, encoded

CELL = {"bytes": PICTURE, "path": None}


def read(source, **options):
    return [(record.labels, record.all_captions) for record in ImageLibrary.load(source, **options)]


@pytest.fixture
def written(tmp_path):
    def write(columns):
        path = tmp_path / "table.parquet"
        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), path)
        return path

    return write


LABELS = {
    "text": (["a", "b"], [("a",), ("b",)]),
    "composed": (["Cho\u0301", "b"], [("Ch\u00f3",), ("b",)]),
    "large text": (pa.array(["a", "b"], pa.large_string()), [("a",), ("b",)]),
    "text view": (pa.array(["a", None], pa.string_view()), [("a",), ()]),
    "category": (pa.array(["a", "b"]).dictionary_encode(), [("a",), ("b",)]),
    "whole with a gap": ([3.0, None], [("3",), ()]),
    "not a number": ([3.0, float("nan")], [("3",), ()]),
    "fractions": ([0.5, 2.0], [("0.5",), ("2",)]),
    "half precision": (pa.array(np.array([1, 2], np.float16)), [("1",), ("2",)]),
    "truth": ([True, False], [("True",), ("False",)]),
    "uint16": (pa.array([3, 4], pa.uint16()), [("3",), ("4",)]),
    "int8": (pa.array([-1, 4], pa.int8()), [("-1",), ("4",)]),
    "decimal": ([decimal.Decimal(1), decimal.Decimal(2)], [("1",), ("2",)]),
    "date": ([datetime.date(2020, 1, 2), None], [("2020-01-02",), ()]),
    "null": (pa.nulls(2), [(), ()]),
    "several": ([["cat", "dog"], ["cat"]], [("cat", "dog"), ("cat",)]),
    "several, large": (pa.array([["a", "b"], []], pa.large_list(pa.string())), [("a", "b"), ()]),
    "two each": (pa.array([["a", "b"], ["b", "b"]], pa.list_(pa.string(), 2)), [("a", "b"), ("b",)]),
    "several numbers": ([[1, 2], None], [("1", "2"), ()]),
    "several floats": ([[1.0, None], [2.0]], [("1",), ("2",)]),
}


@pytest.mark.parametrize("kind", LABELS)
@pytest.mark.parametrize("name", ["label", "Labels", "category"])
def test_labels_of_every_type_are_kept(written, kind, name):
    values, expected = LABELS[kind]
    path = written({"image": [CELL, CELL], name: values})
    assert [labels for labels, _ in read(path)] == expected


@pytest.mark.parametrize(
    "pictures",
    [
        pa.array([PICTURE, PICTURE], pa.binary()),
        pa.array([PICTURE, PICTURE], pa.large_binary()),
        pa.array([PICTURE, PICTURE], pa.binary(len(PICTURE))),
        [CELL, CELL],
        [{"bytes": PICTURE}, {"bytes": PICTURE}],
    ],
)
@pytest.mark.parametrize("name", ["image", "jpg", "content"])
def test_pictures_are_read_from_bytes_and_from_structures(written, pictures, name):
    assert read(written({name: pictures, "label": ["a", "b"]})) == [(("a",), ()), (("b",), ())]


def test_a_row_without_a_picture_is_skipped_and_keeps_the_numbers_of_the_others(written):
    library = ImageLibrary.load(written({"image": [CELL, None, CELL], "label": ["a", "b", "c"]}))
    assert [(record.id, record.label) for record in library] == [("0", "a"), ("2", "c")]
    assert [id for id, _ in library.skipped] == ["1"]


CAPTIONS = {
    "one": ({"caption": ["one", None]}, [("one",), ()]),
    "any case": ({"TEXT": ["one", " "]}, [("one",), ()]),
    "the only text": ({"what": ["one", "two"], "image_id": ["x", "y"]}, [("one",), ("two",)]),
    "several": ({"captions": [["one", "two"], []]}, [("one", "two"), ()]),
    "numbered": ({"caption_1": ["one", "three"], "caption_2": ["two", None]}, [("one", "two"), ("three",)]),
    "of COCO": ({"sentences": [[{"raw": "one"}, {"raw": "two"}], []]}, [("one", "two"), ()]),
    "by language": ({"caption": [{"en": "one", "vi": "một"}, {"en": None, "vi": "hai"}]}, [("one",), ("hai",)]),
}


@pytest.mark.parametrize("kind", CAPTIONS)
def test_all_captions_are_kept(written, kind):
    columns, expected = CAPTIONS[kind]
    assert [captions for _, captions in read(written({"image": [CELL, CELL]} | columns))] == expected


def test_captions_by_language_are_kept_by_their_codes(written):
    columns = {"image": [CELL], "Caption": ["one"], "Caption_VI": ["một"]}
    (record,) = ImageLibrary.load(written(columns))
    assert (record.caption, dict(record.captions)) == ("one", {"vi": "một"})
    (record,) = ImageLibrary.load(written({"image": [CELL], "caption": [{"en": "one", "vi": "một"}]}))
    assert dict(record.captions) == {"en": "one", "vi": "một"}


def test_of_several_picture_columns_the_one_called_image_is_taken_and_told():
    features = datasets.Features({"conditioning_image": datasets.Image(), "image": datasets.Image()})
    rows = {"conditioning_image": [{"bytes": encoded("black"), "path": None}], "image": [CELL]}
    table = datasets.Dataset.from_dict(rows, features=features)
    library = ImageLibrary.load(table)
    assert [record.image.getpixel((0, 0)) for record in library] == [(255, 0, 0)]
    assert any("--image-column" in warning for warning in library.description.warnings)
    (record,) = ImageLibrary.load(table, image_column="conditioning_image")
    assert record.image.getpixel((0, 0)) == (0, 0, 0)


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"images": [[CELL], [CELL]]}, "in lists or nested"),
        ({"url": ["http://a/b.png", "c"]}, r"url \(string\)"),
        ({"x": [PICTURE, PICTURE], "y": [PICTURE, PICTURE]}, "--image-column"),
    ],
)
def test_a_table_without_single_pictures_says_what_it_has(written, columns, says):
    with pytest.raises(LibraryError, match=says):
        ImageLibrary.load(written(columns))


@pytest.fixture
def many():
    names = datasets.List(datasets.ClassLabel(names=["cat", "dog", "fish"]))
    features = datasets.Features(
        {"image": datasets.Image(), "labels": names, "caption": datasets.List(datasets.Value("string"))}
    )
    colours = ["red", "green", "blue", "white"]
    rows = {
        "image": [{"bytes": encoded(colour), "path": None} for colour in colours],
        "labels": [[0, 1], [1], [2, 0], []],
        "caption": [["one", "two", "three", "four", "five"], ["six"], [], ["seven", "eight"]],
    }  # fmt: skip
    return datasets.Dataset.from_dict(rows, features=features)


@pytest.mark.parametrize(
    "form",
    [
        lambda table: table,
        lambda table: table.with_format("numpy"),
        lambda table: table.with_transform(lambda rows: {"nothing": [0] * len(rows["labels"])}),
        lambda table: table.to_iterable_dataset(),
        lambda table: datasets.concatenate_datasets([table.select([0, 1]), table.select([2, 3])]),
    ],
)
def test_a_data_set_in_memory_is_read_whatever_its_form(many, form):
    expected = [("cat", "dog"), ("dog",), ("fish", "cat"), ()]
    assert [labels for labels, _ in read(form(many))] == expected


def test_several_labels_and_captions_count_in_filters_figures_and_answers(many, tmp_path):
    index = build_index(ImageLibrary.load(many), tmp_path / "index", pixel_size=8)
    assert dict(index.manifest.labels) == {"cat": 2, "dog": 2, "fish": 1}
    retriever = Retriever(index)
    found = retriever.by_clip(text="a dog", labels=["dog"], k=4)
    assert {hit.id for hit in found} == {"0", "1"}
    both = next(hit for hit in found if hit.id == "0")
    assert (both.label, both.labels) == ("cat, dog", ("cat", "dog"))
    figures = evaluate(retriever)
    assert figures.caption_queries == 8
    assert figures.queries == 3  # the one without a label asks nothing
    assert figures.methods["l1"]["map"] > 0
    index.close()


def test_saved_data_sets_are_read_and_their_splits_chosen(many, tmp_path):
    many.save_to_disk(tmp_path / "one")
    datasets.DatasetDict(train=many, test=many.select([1])).save_to_disk(tmp_path / "two")
    assert len(read(tmp_path / "one")) == 4
    assert len(read(tmp_path / "two")) == 4
    assert read(tmp_path / "two", split="test") == [(("dog",), ("six",))]
    with pytest.raises(LibraryError, match="no split 'dev'; it has train, test"):
        ImageLibrary.load(tmp_path / "two", split="dev")
    with pytest.raises(LibraryError, match="no splits"):
        ImageLibrary.load(tmp_path / "one", split="test")


def test_a_dict_of_splits_gives_the_one_that_is_asked_for(many):
    both = datasets.DatasetDict(train=many, Test=many.select([1]))
    for name in ("Test", "test", "testing"):
        assert read(both, split=name) == [(("dog",), ("six",))]
    assert read(datasets.DatasetDict(test=many, Train=many.select([1]))) == [(("dog",), ("six",))]
    with pytest.raises(LibraryError, match="no split 'no-such'; it has train, Test"):
        ImageLibrary.load(both, split="no-such")
    with pytest.raises(LibraryError, match="leave the split out"):
        ImageLibrary.load(many, split="test")


@pytest.mark.parametrize("source", [[1], {"a": 1}, 7, None, Image.new("RGB", (2, 2))])
def test_what_is_no_library_says_what_is(source):
    with pytest.raises(
        LibraryError, match=r"is no library; a folder, a file, the id of a Hub data set or a datasets\.Dataset is"
    ):
        ImageLibrary.load(source)


def tar(path, files):
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))


def test_tar_shards_are_read_one_or_many(tmp_path):
    (tmp_path / "shards").mkdir()
    tar(tmp_path / "shards" / "0.tar", {"000.png": PICTURE, "000.txt": b"one"})
    tar(tmp_path / "shards" / "1.tar", {"001.png": PICTURE, "001.txt": b"two"})
    assert read(tmp_path / "shards" / "0.tar") == [((), ("one",))]
    assert read(tmp_path / "shards") == [((), ("one",)), ((), ("two",))]
    tar(tmp_path / "classes.tar", {"cat/0.png": PICTURE, "dog/1.png": PICTURE})
    assert [labels for labels, _ in read(tmp_path / "classes.tar")] == [("cat",), ("dog",)]


def test_the_layout_of_a_hub_data_set_and_its_own_splits(tmp_path):
    (tmp_path / "data").mkdir()
    for split in ("train", "test", "validation"):
        table = pd.DataFrame({"image": [CELL], "label": [split]})
        table.to_parquet(tmp_path / "data" / f"{split}-00000-of-00001.parquet")
    library = ImageLibrary.load(tmp_path)
    assert (library.split, [record.label for record in library]) == ("train", ["train"])
    assert {"split test", "split validation"} <= set(library.description.left_out)
    assert read(tmp_path, split="validation") == [(("validation",), ())]


def test_an_empty_or_a_broken_table_says_so(written, tmp_path):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    with pytest.raises(LibraryError, match=r"table\.parquet cannot be loaded"):
        ImageLibrary.load(written({"image": pa.array([], kind)}))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(LibraryError, match=r"broken\.parquet cannot be loaded"):
        ImageLibrary.load(tmp_path / "broken.parquet")
    (tmp_path / "broken.tar").write_bytes(b"no tar")
    with pytest.raises(LibraryError, match=r"broken\.tar"):
        list(ImageLibrary.load(tmp_path / "broken.tar"))
