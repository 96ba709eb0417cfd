"""What hypothesis makes is read as `datasets` reads it: which pictures there are, and what tables say of them."""

import csv
import io
import json
import tempfile
import unicodedata
from pathlib import Path

import datasets
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

from imgret import ImageLibrary

LETTERS = "abcxyz019 -éñđộüßćАбвяع猫犬กあ🐅"
SPLITS = ["train", "validation", "test"]
KEYWORDS = ("train", "val", "dev", "test", "eval")
COMMON = settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize=True,
    phases=[Phase.generate],  # to shrink an example would take minutes
)


@st.composite
def names(draw):
    """Names of files and folders in many scripts, in composed or decomposed letters."""
    name = draw(st.text(LETTERS, min_size=1, max_size=6)).strip(" -")
    name = unicodedata.normalize(draw(st.sampled_from(["NFC", "NFD"])), name or "a")
    return "x" + name if any(word in name for word in KEYWORDS) else name


texts = st.text(LETTERS + ",;\t|'\"", min_size=1, max_size=12).map(str.strip).filter(str)


def picture(number):
    buffer = io.BytesIO()
    Image.new("RGB", (2, 2), (number, 7, 9)).save(buffer, "PNG")
    return buffer.getvalue()


def composed(text):
    return unicodedata.normalize("NFC", text).strip()


@st.composite
def trees(draw):
    """Files below a folder: some are pictures, in folders of up to three levels, perhaps in splits."""
    splits = draw(st.sampled_from([[], ["train", "test"], SPLITS]))
    chosen = draw(st.lists(st.tuples(st.lists(names(), max_size=3), names()), min_size=2, max_size=6))
    files = set()
    for number, (folders, name) in enumerate(chosen):
        split = [splits[number % len(splits)]] if splits else []
        files.add(
            "/".join([*split, *folders, f"{name}{number}.{draw(st.sampled_from(['png', 'PNG', 'jpg', 'webp']))}"])
        )
    others = draw(st.sampled_from([[], ["notes.md"], [".hidden.png"], ["__MACOSX/a.png", ".git/b.png"]]))
    return sorted(files), others, splits[: len(chosen)]


def write(root, files, others):
    for number, name in enumerate([*files, *others]):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))


def as_datasets(root, split):
    with tempfile.TemporaryDirectory() as cache:
        table = datasets.load_dataset("imagefolder", data_dir=str(root), split=split, streaming=True, cache_dir=cache)
        return list(table.cast_column("image", datasets.Image(decode=False)))


def relative(root, path):
    return str(Path(path).relative_to(root))


@given(trees())
@COMMON
def test_the_pictures_of_a_folder_are_those_of_datasets(tree):
    files, others, splits = tree
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        write(root, files, others)
        for split in splits or [None]:
            expected = {relative(root, row["image"]["path"]) for row in as_datasets(root, split or "train")}
            entries = list(ImageLibrary.load(root, split=split).entries())
            assert {relative(root, entry.data) for entry in entries} == expected
            for entry in entries:
                folders = relative(root, entry.data).split("/")[:-1]
                folders = folders[1:] if splits else folders
                assert entry.label == (composed("/".join(folders[:2])) or None)


@given(trees(), st.data())
@COMMON
def test_what_a_table_says_of_pictures_is_what_datasets_reads(tree, data):
    files, others, splits = tree
    form = data.draw(st.sampled_from(["csv", "jsonl", "parquet"]))
    said = {name: f"t {data.draw(texts)}" for name in files}  # datasets would make numbers of some, and refuse gaps
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder).resolve()
        write(root, files, others)
        in_splits = bool(splits) and data.draw(st.booleans())
        for place in splits if in_splits else [""]:
            mine = {name: text for name, text in said.items() if name.startswith(place)}
            rows = [{"file_name": name[len(place) :].lstrip("/"), "text": text} for name, text in mine.items()]
            write_table(root / place / f"metadata.{form}", rows)
        for split in splits or [None]:
            if splits and not in_splits:  # datasets passes over a table above the splits
                expected = {name: text for name, text in said.items() if name.startswith(split)}
            else:
                rows = as_datasets(root, split or "train")
                expected = {relative(root, row["image"]["path"]): row["text"] for row in rows}
            found = ImageLibrary.load(root, split=split, caption_column="text")
            assert {relative(root, entry.data): entry.caption for entry in found.entries()} == {
                name: composed(text) for name, text in expected.items()
            }


def write_table(path, rows):
    if form_is(path, "parquet"):
        pd.DataFrame(rows).astype({"text": "string"}).to_parquet(path)
    elif form_is(path, "jsonl"):
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    else:
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, ["file_name", "text"], quoting=csv.QUOTE_ALL)
            writer.writeheader()
            writer.writerows(rows)


def form_is(path, form):
    return path.suffix == f".{form}"


@given(st.lists(st.tuples(names(), texts), min_size=1, max_size=5, unique_by=lambda row: composed(row[0])), st.data())
@COMMON
def test_a_csv_means_the_same_with_each_delimiter(rows, data):
    header = data.draw(st.permutations(["file_name", "text", "label"]))
    found = []
    for delimiter in ",;\t|":
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            write(root, [f"{name}.png" for name, _ in rows], [])
            with (root / "metadata.csv").open("w", encoding="utf-8", newline="") as file:
                writer = csv.DictWriter(file, header, delimiter=delimiter)
                writer.writeheader()
                writer.writerows({"file_name": f"{n}.png", "text": t, "label": f"of {t}"} for n, t in rows)
            entries = list(ImageLibrary.load(root).entries())
            found.append([(entry.id, entry.caption, entry.label) for entry in entries])
    assert found[0] == [(composed(f"{n}.png"), composed(t), composed(f"of {t}")) for n, t in rows]
    assert all(each == found[0] for each in found)


VALUES = {
    pa.string(): st.text(LETTERS, min_size=1, max_size=5).map(str.strip).filter(str),
    pa.int64(): st.integers(-(2**40), 2**40),
    pa.uint8(): st.integers(0, 255),
    pa.float64(): st.integers(-999, 999).map(float) | st.floats(allow_nan=False, allow_infinity=False, width=16),
    pa.bool_(): st.booleans(),
}


@given(st.data())
@COMMON
def test_labels_of_a_table_are_those_that_datasets_reads(data):
    kind = data.draw(st.sampled_from(list(VALUES)))
    cell = st.none() | VALUES[kind]
    several = data.draw(st.booleans())
    values = data.draw(st.lists(st.lists(VALUES[kind], max_size=3) if several else cell, min_size=1, max_size=5))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "table.parquet")
        pictures = [{"bytes": picture(number), "path": None} for number in range(len(values))]
        pq.write_table(
            pa.table({"image": pictures, "label": pa.array(values, pa.list_(kind) if several else kind)}), path
        )
        with tempfile.TemporaryDirectory() as cache:
            rows = list(
                datasets.load_dataset("parquet", data_files=str(path), split="train", streaming=True, cache_dir=cache)
            )
        entries = list(ImageLibrary.load(path, limit=len(values)).entries())
    for entry, row in zip(entries, rows, strict=True):
        read = row["label"] if several else [row["label"]]
        shown = [
            composed(str(int(v) if isinstance(v, float) and v.is_integer() else v)) for v in read or [] if v is not None
        ]
        assert entry.labels == tuple(dict.fromkeys(shown))


@pytest.mark.parametrize("name", ["a.b.c", "x'y", "a&b", "%20", "#1", "a+b", "é" * 50])
def test_folder_names_with_signs(name, tmp_path):
    write(tmp_path, [f"{name}/1.png"], [])
    (entry,) = ImageLibrary.load(tmp_path).entries()
    assert (entry.id, entry.label) == (f"{name}/1.png", name)
