"""Folders as people have them: what each is read as, and what is told of it."""

import io
import json
import os
import shutil
import unicodedata
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from imgret import ImageLibrary, LibraryError, Retriever, build_index

NFD = unicodedata.normalize("NFD", "Chó")


def encoded(colour="red", format="PNG"):
    buffer = io.BytesIO()
    Image.new("RGB", (9, 9), colour).save(buffer, format)
    return buffer.getvalue()


PICTURE = encoded()


@pytest.fixture
def make(tmp_path):
    """Writes files below a folder: a picture, or the text, bytes or link that is given for it."""
    root = tmp_path / "library"
    root.mkdir()

    def make(*pictures, **others):
        for name in pictures:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(PICTURE)
        for name, content in others.pop("files", {}).items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                (root / name).symlink_to(content)
            else:
                (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    return make


def read(root, **options):
    library = ImageLibrary.load(root, **options)
    return {record.id: (record.labels, record.all_captions) for record in library}


# Metadata


@pytest.mark.parametrize(
    "text",
    [
        "file_name,text,label\na.png,con mèo,cat\n",
        "file_name, text, label\na.png, con mèo, cat\n",
        "File_Name ; TEXT ; Label\r\na.png ; con mèo ; cat\r\n",
        "sep=;\nfile_name;text;label\na.png;con mèo;cat\n",
        "file_name\ttext\tlabel\na.png\tcon mèo\tcat\n",
        "file_name|text|label\na.png|con mèo|cat\n",
        '\ufeff"file_name","text","label"\n"a.png","con mèo","cat"\n',
        "filename,prompt,class\na.png,con mèo,cat\n",
        "label,what it shows,image_path\ncat,con mèo,./a.png\n",
        "\nfile_name,text,label\n\na.png,con mèo,cat\n",
        f"file_name,text,label\na.png,{unicodedata.normalize('NFD', 'con mèo')},cat\n",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_csv_is_read_whatever_its_delimiter_header_and_encoding(make, text, encoding):
    text = text.removeprefix("\ufeff") if encoding == "utf-16" else text
    root = make("a.png", files={"metadata.csv": text.encode(encoding)})
    assert read(root) == {"a.png": (("cat",), ("con mèo",))}


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
@pytest.mark.parametrize("folder", ["", "data/", "deep/er/"])
def test_metadata_of_every_form_is_read_wherever_it_lies(make, ending, folder):
    rows = pd.DataFrame({"file_name": ["a.png", "sub/b.png"], "text": ["one", "two"], "label": ["x", "y"]})
    root = make(f"{folder}a.png", f"{folder}sub/b.png")
    path = root / folder / f"metadata.{ending}"
    if ending == "parquet":
        rows.to_parquet(path)
    elif ending == "jsonl":
        rows.to_json(path, orient="records", lines=True)
    else:
        rows.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
    assert read(root) == {"a.png": (("x",), ("one",)), "sub/b.png": (("y",), ("two",))}


def test_a_table_a_class_and_a_table_a_split(make):
    tables = {
        f"{split}/{name}/metadata.csv": f"file_name,text\n1.png,{split} {name}\n" for split, name in SPLIT_CLASSES
    }
    root = make(*(f"{split}/{name}/1.png" for split, name in SPLIT_CLASSES), files=tables)
    assert read(root) == {"a/1.png": (("a",), ("train a",)), "b/1.png": (("b",), ("train b",))}
    assert read(root, split="test")["b/1.png"] == (("b",), ("test b",))


SPLIT_CLASSES = [(split, name) for split in ("train", "test") for name in "ab"]


def test_rows_of_one_picture_are_one_record_with_all_captions_and_labels(make):
    root = make(
        "c/a.png", files={"metadata.csv": "file_name,text,label\nc/a.png,one,x\nc/a.png,two,y\nc/a.png,one,x\n"}
    )
    (record,) = ImageLibrary.load(root)
    assert (record.caption, record.all_captions) == ("one", ("one", "two"))
    assert (record.label, record.labels) == ("x, y", ("x", "y"))


def test_folder_labels_are_kept_beside_metadata_without_labels(make):
    root = make("cat/a.png", files={"metadata.csv": "file_name,text\ncat\\a.png,one\n"})
    assert read(root) == {"cat/a.png": (("cat",), ("one",))}


def test_absolute_paths_become_relative_and_those_outside_are_refused(make, tmp_path):
    (tmp_path / "secret.png").write_bytes(PICTURE)
    root = make("a.png")
    lines = [f"{root}/a.png,in", f"{tmp_path}/secret.png,out", "../secret.png,up", "C:\\pictures\\a.png,away"]
    (root / "metadata.csv").write_text("\n".join(["file_name,text", *lines]))
    library = ImageLibrary.load(root)
    assert [(record.id, record.caption) for record in library] == [("a.png", "in")]
    assert len(library.skipped) == 2 or len(library.skipped) == 3
    assert all(str(tmp_path) not in id + reason for id, reason in library.skipped)
    assert all("outside" in reason for _, reason in library.skipped)


@pytest.mark.parametrize(
    ("row", "labels", "captions"),
    [
        ({"labels": ["x", "y"], "caption": ["one", "two"]}, ("x", "y"), ("one", "two")),
        ({"label": True, "text": "t"}, ("True",), ("t",)),
        ({"label": 3.0, "text": None}, ("3",), ()),
        ({"label": None, "captions": []}, (), ()),
        ({"label": 7, "sentences": [{"raw": "one", "tokens": ["a"]}, {"raw": "two"}]}, ("7",), ("one", "two")),
        ({"caption": {"vi": "con mèo", "en": "a cat"}, "objects": {"bbox": [[1, 2]]}}, (), ("a cat",)),
        ({"caption_0": "one", "caption_1": "two"}, (), ("one", "two")),
        ({"category": "x", "id": "17", "url": "http://a/b.png", "prompt": "t"}, ("x",), ("t",)),
    ],
)  # fmt: skip
def test_json_lines_of_any_shape(make, row, labels, captions):
    root = make("a.png", files={"metadata.jsonl": json.dumps({"file_name": "a.png"} | row) + "\n\n"})
    assert read(root) == {"a.png": (labels, captions)}


def test_whole_numbers_that_a_gap_made_floats_are_whole_labels(make):
    root = make("a.png", "b.png", files={"metadata.csv": "file_name,label\na.png,3.0\nb.png,\n"})
    assert read(root) == {"a.png": (("3",), ()), "b.png": ((), ())}
    root = make(files={"metadata.csv": "file_name,label\na.png,3.5\nb.png,2.0\n"})
    assert read(root) == {"a.png": (("3.5",), ()), "b.png": (("2.0",), ())}


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("metadata.csv", b"file_name,text\na.png,caf\xe9\n", "UTF-8"),
        ("metadata.csv", b"", "no rows"),
        ("metadata.csv", b"name,text\na.png,x\n", "no column file_name; it has name, text"),
        ("metadata.jsonl", b'{"file_name": "a.png"', "cannot be read"),
        ("metadata.jsonl", b'["a.png"]\n', "Line 1 .* no JSON object"),
        ("metadata.parquet", b"PAR1", "cannot be read"),
    ],
)
def test_a_table_that_cannot_be_read_says_so(make, name, content, says):
    with pytest.raises(LibraryError, match=says):
        ImageLibrary.load(make("a.png", files={name: content}))


def test_what_was_taken_and_left_out_is_told(make, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    root = make(
        *("a.png", "b.png", "cat/broken.png", "._a.png"),
        files={
            "metadata.csv": "file_name,label,note,score\na.png,x,long text,1\ncat/broken.png,y,,2\n",
            "x.psd": "8BPS",
        },
    )
    (root / "cat" / "broken.png").write_bytes(b"<html>")
    (root / "out").symlink_to("../elsewhere")
    library = ImageLibrary.load(root)
    list(library)
    taken, left_out, *warnings = library.description.lines
    assert taken == "pictures from the files that metadata.csv names; labels from the column label; " \
        "captions from the column note; no splits"  # fmt: skip
    for told in ("1 picture that cannot be read", "1 picture that no table names", "1 link to outside (out)", "1 .psd"):
        assert told in left_out
    assert any("score" in warning for warning in warnings)
    assert any("links that lead outside" in warning for warning in warnings)


# Splits and folders


@pytest.mark.parametrize(
    "names",
    [("train", "test"), ("Train", "Test"), ("training", "testing"), ("train", "valid"), ("train-images", "val2017")],
)
@pytest.mark.parametrize("around", ["", "data/", "set/v1/"])
def test_splits_are_found_by_all_their_names_below_any_wrapper(make, names, around):
    root = make(*(f"{around}{split}/{label}/1.JPEG" for split in names for label in ("croc", "orange")))
    library = ImageLibrary.load(root)
    assert library.split == "train"
    assert read(root) == {f"{label}/1.JPEG": ((label,), ()) for label in ("croc", "orange")}
    assert any(told.startswith("split ") and "2 pictures" in told for told in library.description.left_out)
    assert read(root, split=names[1].split("2")[0]).keys() == read(root).keys()
    with pytest.raises(LibraryError, match=r"no split 'no-such'; it has train, "):
        ImageLibrary.load(root, split="no-such")


def test_folders_in_which_splits_lie_are_labels(make):
    root = make(*(f"{label}/{split}/1.png" for label in ("cat", "dog") for split in ("train", "test")))
    assert read(root) == {f"{label}/train/1.png": ((label,), ()) for label in ("cat", "dog")}


def test_a_folder_that_only_looks_like_a_split_is_a_label_and_told(make):
    root = make("train/1.png", "ship/1.png")
    assert read(root) == {"ship/1.png": (("ship",), ()), "train/1.png": (("train",), ())}
    assert "--split" in ImageLibrary.load(root).description.warnings[0]
    assert read(root, split="train") == {"1.png": ((), ())}


def test_labels_have_two_levels_at_most_also_where_folders_differ_in_depth(make):
    found = read(make("a.png", "b/c.png", "b/d/e.png", "b/d/e/f.png"))
    assert [labels for labels, _ in found.values()] == [(), ("b",), ("b/d",), ("b/d",)]


def test_what_systems_leave_in_folders_is_no_class(make):
    root = make("cat/a.png", "__MACOSX/cat/._a.png", "@eaDir/a.png", ".thumbs/a.png", "cat/._b.png")
    assert read(root) == {"cat/a.png": (("cat",), ())}


def test_an_archive_says_to_unpack_it(make, tmp_path):
    root = make("cat/a.png")
    shutil.make_archive(str(tmp_path / "data"), "zip", root)
    with pytest.raises(LibraryError, match="unpack it"):
        ImageLibrary.load(tmp_path / "data.zip")
    shutil.rmtree(root / "cat")
    shutil.move(tmp_path / "data.zip", root)
    with pytest.raises(LibraryError, match=r"\.zip archives, unpack"):
        ImageLibrary.load(root)


def test_a_stray_table_does_not_take_the_folder_s_place(make):
    root = make("a/1.png", "b/1.png")
    pd.DataFrame({"picture": ["a/1.png"], "score": [0.5]}).to_parquet(root / "scores.parquet")
    pd.DataFrame({"image": [PICTURE], "embedding": [b"1"]}).to_parquet(root / "vectors.parquet")
    assert list(read(root)) == ["a/1.png", "b/1.png"]
    assert "scores.parquet" in " ".join(ImageLibrary.load(root).description.left_out)


def test_texts_beside_pictures_are_their_captions_and_numbered_shards_no_labels(make):
    names = ["00000/000000000.png", "00001/000010000.png"]
    root = make(*names, files={"00000/000000000.txt": "a tiger\n\nin grass\n", "00000/000000000.json": "{}"})
    assert read(root) == {names[0]: ((), ("a tiger", "in grass")), names[1]: ((), ())}
    pd.DataFrame({"url": ["x"]}).to_parquet(root / "00000.parquet")
    assert list(read(root)) == names


def test_texts_of_numbers_are_no_captions(make):
    root = make("a.png", files={"a.txt": "0 0.5 0.5 0.1 0.2\n"})
    assert read(root) == {"a.png": ((), ())}
    assert ImageLibrary.load(root).description.captions is None


def test_links_inside_are_followed_and_those_outside_are_counted_and_named(make, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "x.png").write_bytes(PICTURE)
    root = make("real/1.png", files={"cat": Path("../elsewhere"), "dog/1.png": Path("../real/1.png"), "loop": Path()})
    assert read(root) == {"dog/1.png": (("dog",), ()), "real/1.png": (("real",), ())}
    assert "1 link to outside (cat)" in ImageLibrary.load(root).description.left_out
    (root / "dog" / "2.png").symlink_to("../../elsewhere/x.png")
    library = ImageLibrary.load(root)
    assert len(list(library)) == 2
    assert library.skipped[0][0] == "dog/2.png"
    assert "outside" in library.skipped[0][1]
    shutil.rmtree(root / "real")
    shutil.rmtree(root / "dog")
    with pytest.raises(LibraryError, match=r"1 link to outside \(cat\).*copy what they name"):
        ImageLibrary.load(root)


def test_class_folders_that_are_links_inside_are_classes(make):
    root = make("store/1.png", files={"classes/cat": Path("../store")})
    assert read(root) == {"classes/cat/1.png": (("classes/cat",), ()), "store/1.png": (("store",), ())}


# Names in any script


@pytest.mark.parametrize("label", ["猫", "кошка", "قطة", "con mèo", "a b", "ñ", "it's", "x;y", "🐅"])
def test_labels_and_ids_in_any_script(make, label):
    root = make(f"{label}/1.png")
    assert read(root) == {f"{label}/1.png": ((label,), ())}


def test_composed_and_decomposed_letters_are_one_label(make, tmp_path):
    root = make(f"{NFD}/nfd.png", files={"Chó/nfc.png": encoded("blue")})
    if len(os.listdir(root)) != 2:
        pytest.skip("this file system composes letters itself")
    assert {labels for labels, _ in read(root).values()} == {("Chó",)}
    with_index = Retriever(build_index(ImageLibrary.load(root), tmp_path / "index"))
    assert dict(with_index.index.manifest.labels) == {"Chó": 2}
    for label in ("Chó", NFD):
        assert len(with_index.by_clip(text="dog", labels=[label], k=2)) == 2
    assert with_index.row_of(f"{NFD}/nfd.png") == with_index.row_of("Chó/nfd.png")


@pytest.mark.parametrize(("on_disk", "in_table"), [("Chó", NFD), (NFD, "Chó"), (NFD, NFD)])
def test_a_table_may_write_other_letters_than_the_disk(make, on_disk, in_table):
    root = make(f"{on_disk}/1.png", files={"metadata.csv": f"file_name,text\n{in_table}/1.png,one\n"})
    assert read(root) == {"Chó/1.png": (("Chó",), ("one",))}


def test_two_files_that_differ_only_in_how_letters_are_composed_are_two(make):
    root = make(f"{NFD}.png", "Chó.png")
    if len(os.listdir(root)) != 2:
        pytest.skip("this file system composes letters itself")
    assert len(read(root)) == 2


def test_a_name_with_a_line_break_or_no_utf_8(make):
    root = make("a\nb/c.png")
    with open(os.fsencode(root) + b"/\xff.png", "wb") as file:
        file.write(PICTURE)
    assert read(root) == {"\\udcff.png": ((), ()), "a\nb/c.png": (("a\nb",), ())}


# Formats


def test_heic_from_a_phone_is_read(make):
    pillow_heif = pytest.importorskip("pillow_heif")
    buffer = io.BytesIO()
    pillow_heif.from_pillow(Image.new("RGB", (64, 48), (200, 30, 40))).save(buffer, quality=90)
    root = make("a.png", files={"IMG_1.HEIC": buffer.getvalue(), "IMG_2.heic": buffer.getvalue()[:40]})
    library = ImageLibrary.load(root)
    found = {record.id: record for record in library}
    assert list(found) == ["IMG_1.HEIC", "a.png"]
    assert (found["IMG_1.HEIC"].width, found["IMG_1.HEIC"].height) == (64, 48)
    assert abs(found["IMG_1.HEIC"].image.getpixel((9, 9))[0] - 200) < 12
    assert [id for id, _ in library.skipped] == ["IMG_2.heic"]


def test_an_empty_file_and_a_page_saved_as_a_picture_are_skipped_and_named(make):
    root = make("a.png", files={"empty.jpg": b"", "page.png": b"<!doctype html>"})
    library = ImageLibrary.load(root)
    assert [record.id for record in library] == ["a.png"]
    assert [id for id, _ in library.skipped] == ["empty.jpg", "page.png"]


# Changes


def test_the_stamp_tells_of_a_change_that_the_revision_cannot(make):
    root = make("a.png", files={"b.bmp": encoded("red", "BMP")})
    before = ImageLibrary.load(root)
    os.utime(root / "a.png", (1, 1))
    after = ImageLibrary.load(root)
    assert before.revision == after.revision
    assert before.stamp != after.stamp
    assert ImageLibrary.load(root).stamp == after.stamp


def test_an_index_is_that_of_its_library_until_a_byte_changes(make, tmp_path):
    root = make("a.png", files={"b.bmp": encoded("red", "BMP"), "a.txt": "one", "no.png": b"x"})
    index = build_index(ImageLibrary.load(root), tmp_path / "index")
    for name in ("a.png", "b.bmp"):
        os.utime(root / name, (1, 1))
    assert index.is_of(ImageLibrary.load(root))
    (root / "a.txt").write_text("two")
    assert not index.is_of(ImageLibrary.load(root))
    (root / "a.txt").write_text("one")
    assert index.is_of(ImageLibrary.load(root))
    (root / "b.bmp").write_bytes(encoded("blue", "BMP"))
    assert not index.is_of(ImageLibrary.load(root))
