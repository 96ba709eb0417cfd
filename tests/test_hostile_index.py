"""An index from a stranger is data: one that lies is refused in a sentence, and reads nothing outside of its folder."""

import hashlib
import io
import json
import os
import pickle
import shutil
import sqlite3
import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnx.helper
import pyarrow as pa
import pytest

from imgret import EncoderError, Index, InvalidIndexError, Retriever, SearchError, load_encoder
from imgret.vectors import VectorError
from tests.conftest import QUERIES

TIGER = QUERIES / "tiger.webp"


class Owned:
    """Unpickled, it leaves a mark."""

    def __reduce__(self):
        return (os.mkdir, ("/tmp/owned-by-an-index",))


@pytest.fixture
def folder(index_folder, tmp_path):
    """A copy of a real index, to be spoiled."""
    return shutil.copytree(index_folder, tmp_path / "index")


def manifest_of(folder):
    return json.loads((folder / "manifest.json").read_text())


def data_of(folder):
    return folder / manifest_of(folder)["data"]


def signed(folder, **changes):
    """Has the manifest say of the files what is true of them, as whoever publishes an index can."""
    manifest = manifest_of(folder) | changes
    files = [path for path in (folder / manifest["data"]).rglob("*") if path.is_file()]
    manifest["files"] = {
        path.relative_to(folder).as_posix(): {
            "size": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in files
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def refused(folder):
    with pytest.raises(InvalidIndexError) as refusal:
        Index.open(folder)
    sentence = str(refusal.value)
    assert "\n" not in sentence
    assert len(sentence) < 600
    assert not Path("/tmp/owned-by-an-index").exists()
    return sentence


MANIFESTS = {
    "count is a text": {"count": "545"},
    "count is another": {"count": 544},
    "count is negative": {"count": -1},
    "count is huge": {"count": 10**30},
    "pixel size is huge": {"pixel_size": 100_000},
    "pixel size is another": {"pixel_size": 32},
    "labels are a list": {"labels": ["animals"]},
    "labels are others": {"labels": {"animals/birds": 545}},
    "encoder is a text": {"encoder": "starter"},
    "dimensions are others": {"encoder": {"uri": "starter", "dim": 8, "languages": ["en"], "export": None}},
    "recall is not a number": {"recall": {"queries": 1, "k": 10, "recall": float("nan"), "ef_search": 10}},
    "filtered is a list": {"filtered": [1]},
    "filtered by another share": {"filtered": {"<b>": None}},
    "filtered recall is not a number": {
        "filtered": {"0.1": {"labels": [], "rows": 1, "queries": 1, "k": 1, "recall": float("nan")}}
    },
    "filtered labels are a number": {
        "filtered": {"0.1": {"labels": 7, "rows": 1, "queries": 1, "k": 1, "recall": 1.0}}
    },
    "format is a list": {"format": [1]},
    "format is true": {"format": True},
    "format is nothing": {"format": None},
    "unknown field": {"execute": "true"},
    "data leads up": {"data": "../other"},
    "data is absolute": {"data": "/etc"},
    "data is here": {"data": "."},
    "data has a nul": {"data": "data\0"},
    "the collection leads up": {"vectors": {"url": "http://127.0.0.1:8000", "collection": "../../version"}},
    "files lead up": {"files": {"../../etc/passwd": {"size": 1, "sha256": ""}}},
    "files are none": {"files": {}},
}


@pytest.mark.parametrize("change", MANIFESTS)
def test_a_manifest_that_lies_is_refused(folder, change):
    (folder / "manifest.json").write_text(json.dumps(manifest_of(folder) | MANIFESTS[change]))
    assert "build" in refused(folder)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"[" * 10**6,
        b'{"format":' * 10**5,
        b'{"format": 1e999}',
        pickle.dumps(Owned()),
    ],
)
def test_a_manifest_that_is_none_is_refused(folder, content):
    (folder / "manifest.json").write_bytes(content)
    refused(folder)


def test_a_manifest_of_a_gigabyte_is_not_read(folder):
    os.truncate(folder / "manifest.json", 10**9)
    assert "cannot be read" in refused(folder)


def numpy_header(shape, dtype="<f4"):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": dtype, "fortran_order": False, "shape": shape})
    return buffer.getvalue()


def saved(array, **options):
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


def archive_in_archive():
    data = bytes(10**7)
    for _ in range(3):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("embeddings.npy", data)
        data = buffer.getvalue()
    return data


ARRAYS = {
    "pickled objects": lambda n: saved(np.array([Owned()] * n, dtype=object), allow_pickle=True),
    "a bare pickle": lambda n: pickle.dumps(Owned()),
    "archives in an archive": lambda n: archive_in_archive(),
    "a shape of its own": lambda n: saved(np.zeros((n + 1, 512), np.float32)),
    "one dimension": lambda n: saved(np.zeros(n, np.float32)),
    "another type": lambda n: saved(np.zeros((n, 512), np.float64)),
    "a shape beyond its end": lambda n: numpy_header((n, 512)),
    "a shape beyond memory": lambda n: numpy_header((10**15, 2)),
    "nothing": lambda n: b"",
    "one byte": lambda n: saved(np.array(3, np.uint8)),
    "bytes in a column": lambda n: saved(np.zeros((64, 1), np.uint8)),
    "too few bytes": lambda n: saved(np.zeros(10, np.uint8)),
}


@pytest.mark.parametrize("name", ["embeddings.npy", "map.npy", "pixels/vectors.npy", "pixels/sketch.npy"])
@pytest.mark.parametrize("content", ARRAYS)
def test_an_array_that_lies_is_refused_and_nothing_in_it_is_unpickled(folder, name, content):
    (data_of(folder) / name).write_bytes(ARRAYS[content](manifest_of(folder)["count"]))
    signed(folder)
    refused(folder)


@pytest.mark.parametrize("value", [-0.1, 1.5, np.inf])
def test_a_map_with_points_outside_of_it_is_refused_by_whoever_asks_for_it(folder, value):
    points = np.load(data_of(folder) / "map.npy")
    points[10] = value
    np.save(data_of(folder) / "map.npy", points)
    signed(folder)
    index = Index.open(folder)
    for _ in range(2):
        with pytest.raises(InvalidIndexError, match=r"outside of the map\); build it anew"):
            assert index.map


def measures(**others):
    return json.dumps({"evaluation": None, "duplicates": None, "calibration": {}} | others)


FIGURES = {"queries": 1, "alone": 0, "captions": None, "by_label": {}}


@pytest.mark.parametrize(
    "content",
    [
        *("[]", "{}", "NaN", "[" * 10**4),
        measures(evaluation={"methods": 1}),
        measures(evaluation={**FIGURES, "methods": {"l1": "good"}}),
        measures(duplicates={}),
        *(
            measures(duplicates=[{"kind": "near", "rows": rows}])
            for rows in ([0], [1, 0], [0, 100000], [-1, 0], [0, True])
        ),
        measures(duplicates=[{"kind": "near", "rows": [0, 1]}, {"kind": "near", "rows": [1, 2]}]),
        measures(duplicates=[{"kind": "alike", "rows": [0, 1]}]),
        measures(calibration={"l1": {"rows": [0, 1], "scores": [0.5]}}),
        measures(calibration={"l1": {"rows": [100000], "scores": [0.5]}}),
        measures(calibration={"l1": {"rows": [], "scores": []}}),
        measures(calibration={"l1": {"rows": [0], "scores": [float("nan")]}}),
        measures(calibration={"l1": [0.5]}),
    ],
)
def test_measures_that_are_none_are_refused(folder, content):
    (data_of(folder) / "measures.json").write_text(content)
    signed(folder)
    refused(folder)


def test_measures_may_be_none(folder):
    figures = {**FIGURES, "methods": {"l1": {"map": 0.5}}}
    (data_of(folder) / "measures.json").write_text(measures(evaluation=figures))
    signed(folder)
    index = Index.open(folder)
    assert (index.evaluation, index.duplicates, index.calibration) == (figures, None, {})
    index.close()


def rewritten(folder, change):
    path = data_of(folder) / "records.arrow"
    table = pa.ipc.open_file(pa.memory_map(str(path))).read_all()
    table = change(table)
    path.unlink()
    with pa.ipc.new_file(str(path), table.schema) as file:
        file.write_table(table)
    signed(folder)


def with_column(table, name, values):
    at = table.schema.get_field_index(name)
    return table.set_column(at, table.schema.field(at), pa.array(values, table.schema.field(at).type))


RECORDS = {
    "a column is missing": lambda t: t.drop_columns(["caption"]),
    "a column more": lambda t: t.append_column("more", pa.array([1] * len(t))),
    "more rows": lambda t: pa.concat_tables([t, t]),
    "fewer rows": lambda t: t.slice(1),
    "ids twice": lambda t: with_column(t, "id", ["a"] * len(t)),
    "ids of none": lambda t: with_column(t, "id", [None, *t["id"].to_pylist()[1:]]),
    "other labels": lambda t: with_column(t, "label", ["a"] * len(t)),
    "thumbnails before the file": lambda t: with_column(t, "thumbnail_start", [-1] * len(t)),
    "thumbnails after the file": lambda t: with_column(t, "thumbnail_start", [2**62] * len(t)),
    "thumbnails beyond numbers": lambda t: with_column(t, "thumbnail_start", [2**63 - 1] * len(t)),
    "thumbnails of less than nothing": lambda t: with_column(t, "thumbnail_size", [-5] * len(t)),
    "thumbnails nowhere": lambda t: with_column(t, "thumbnail_size", [None] * len(t)),
}


@pytest.mark.parametrize("change", RECORDS)
def test_records_that_lie_are_refused(folder, change):
    rewritten(folder, RECORDS[change])
    refused(folder)


def test_records_with_bytes_changed_are_refused_or_read_but_never_end_the_process(folder):
    path = data_of(folder) / "records.arrow"
    whole, draw = path.read_bytes(), np.random.default_rng(0)
    opened = 0
    for _ in range(60):
        broken = bytearray(whole)
        for at in draw.integers(len(broken), size=20):
            broken[at] ^= 1 << int(draw.integers(8))
        path.unlink()
        path.write_bytes(broken)
        try:
            index = Index.open(folder)
        except InvalidIndexError:
            continue
        opened += 1
        [index.record(row) for row in range(len(index))]
        index.close()
    assert opened < 60


def test_a_thumbnail_that_is_no_picture_is_not_shown(folder):
    path = data_of(folder) / "thumbnails.bin"
    page = b"<script>alert(1)</script>"
    path.write_bytes((page * (path.stat().st_size // len(page) + 1))[: path.stat().st_size])
    index = Index.open(folder)
    with pytest.raises(InvalidIndexError, match="no WebP"):
        index.thumbnail(0)


@pytest.mark.parametrize("name", ["thumbnails.bin", "records.arrow", "chroma/chroma.sqlite3", "encoder/encoder.json"])
def test_a_link_out_of_the_folder_is_refused(folder, tmp_path, name):
    path = data_of(folder) / name
    shutil.move(path, tmp_path / "secret")
    path.symlink_to(tmp_path / "secret")
    assert "leads out of it" in refused(folder)


def test_a_folder_that_is_a_link_out_is_refused(folder, tmp_path):
    shutil.move(data_of(folder), tmp_path / "elsewhere")
    (folder / manifest_of(folder)["data"]).symlink_to(tmp_path / "elsewhere")
    refused(folder)


def test_a_file_that_the_manifest_does_not_name_is_refused(folder):
    (data_of(folder) / "chroma" / "chroma.sqlite3-wal").write_bytes(b"more")
    assert "none of its own" in refused(folder)


def test_embeddings_that_are_no_unit_vectors_are_refused_by_the_query_that_meets_them(folder, cache):
    for value in (np.nan, np.inf, 7.0):
        embeddings = np.load(data_of(folder) / "embeddings.npy")
        embeddings[10:] = value
        np.save(data_of(folder) / "embeddings.npy", embeddings)
        signed(folder)
        index = Index.open(folder, cache=cache)
        with pytest.raises((SearchError, VectorError), match="build"):
            Retriever(index, cache=cache).by_clip(text="a bird", k=100)
        index.close()


def emptied(path):
    database = sqlite3.connect(path)
    for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        if name in ("embeddings", "embeddings_queue", "embedding_metadata"):
            database.execute(f"DELETE FROM {name}")
    database.commit()
    database.close()


COLLECTIONS = {
    "no database": lambda path: path.write_bytes(b"no database at all" * 1000),
    "truncated": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
    "emptied": emptied,
    "a pickle": lambda path: path.write_bytes(pickle.dumps(Owned())),
}


@pytest.mark.parametrize("change", COLLECTIONS)
def test_a_collection_that_is_none_is_told_by_the_query_that_needs_it_and_pixels_still_answer(folder, cache, change):
    path = data_of(folder) / "chroma" / "chroma.sqlite3"
    COLLECTIONS[change](path)
    signed(folder)
    retriever = Retriever(Index.open(folder, cache=cache), cache=cache)
    with pytest.raises(VectorError, match="cannot be opened") as refusal:
        retriever.by_clip(text="a bird")
    assert "\n" not in str(refusal.value)
    assert len(retriever.by_pixels(TIGER)) == 10
    assert not Path("/tmp/owned-by-an-index").exists()


def test_the_collection_of_another_index_is_told(folder, cache):
    embeddings = np.load(data_of(folder) / "embeddings.npy")
    np.save(data_of(folder) / "embeddings.npy", np.roll(embeddings, 100, axis=0))
    signed(folder)
    with pytest.raises(VectorError, match="do not find themselves"):
        Retriever(Index.open(folder, cache=cache), cache=cache).by_clip(text="a bird")


def model_with(node, *tensors):
    graph = onnx.helper.make_graph(
        [node],
        "tower",
        [onnx.helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, ["n", 3, 224, 224])],
        [onnx.helper.make_tensor_value_info("vectors", onnx.TensorProto.FLOAT, None)],
        list(tensors),
    )
    opset = [onnx.helper.make_opsetid("", 18), onnx.helper.make_opsetid("hostile", 1)]
    return onnx.helper.make_model(graph, opset_imports=opset, ir_version=9)


def outside(location):
    tensor = onnx.TensorProto(name="stolen", data_type=onnx.TensorProto.FLOAT, dims=[2])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "8")):
        tensor.external_data.add(key=key, value=value)
    return model_with(onnx.helper.make_node("Identity", ["stolen"], ["vectors"]), tensor)


TOWERS = {
    "data above the folder": lambda secret: outside(os.path.relpath(secret, "/a/b")),
    "data above, relative": lambda secret: outside("../../../secret"),
    "data by its absolute path": lambda secret: outside(str(secret)),
    "an operator of its own": lambda secret: model_with(
        onnx.helper.make_node("Shell", ["pixels"], ["vectors"], domain="hostile")
    ),
    "memory for all": lambda secret: model_with(
        onnx.helper.make_node("ConstantOfShape", ["size"], ["vectors"]),
        onnx.helper.make_tensor("size", onnx.TensorProto.INT64, [2], [10**7, 10**7]),
    ),
}


@pytest.mark.parametrize("change", TOWERS)
def test_a_tower_that_is_no_encoder_is_refused(folder, tmp_path, cache, change):
    (tmp_path / "secret").write_bytes(b"12345678")
    (tower,) = (data_of(folder) / "encoder").glob("image.*.onnx")
    tower.unlink()
    tower.write_bytes(TOWERS[change](tmp_path / "secret").SerializeToString())
    signed(folder)
    retriever = Retriever(Index.open(folder, cache=cache), cache=cache)
    with pytest.raises(EncoderError, match="cannot be used here"):
        retriever.by_clip(image=TIGER)
    assert len(retriever.by_pixels(TIGER)) == 10


def changed_config(encoder, change):
    path = encoder / "encoder.json"
    config = json.loads(path.read_text())
    change(config)
    path.unlink()
    path.write_text(json.dumps(config))


CONFIGS = {
    "tower above": lambda config: config["image"].update(file="../../../secret.onnx"),
    "tokenizer above": lambda config: config["tokenizer"].update(file="/etc/passwd"),
    "huge pictures": lambda config: config["preprocess"].update(size=[10**6, 10**6]),
    "endless texts": lambda config: config["tokenizer"].update(kind="clip", context_length=10**12),
    "no tokenizer": lambda config: config.update(tokenizer=None),
    "format of a list": lambda config: config.update(format=[9]),
    "dimensions": lambda config: config.update(dim=8),
    "deviation of nothing": lambda config: config["preprocess"].update(std=[0, 0, 0]),
}


@pytest.mark.parametrize("change", CONFIGS)
def test_an_encoder_json_that_lies_is_refused(folder, cache, change):
    changed_config(data_of(folder) / "encoder", CONFIGS[change])
    signed(folder)
    retriever = Retriever(Index.open(folder, cache=cache), cache=cache)
    with pytest.raises((EncoderError, SearchError)):
        retriever.by_clip(image=TIGER)


@pytest.mark.parametrize("kind", ["library", "sentencepiece"])
@pytest.mark.parametrize(
    "content",
    [b"{}", b"[" * 10**6, b'{"version": "1.0", "model": {"type": "BPE"}}', pickle.dumps(Owned()), b""],
    ids=["no keys", "deep", "no model", "pickle", "empty"],
)
def test_a_tokenizer_that_is_none_is_refused(folder, content, kind):
    encoder = data_of(folder) / "encoder"
    changed_config(encoder, lambda config: config["tokenizer"].update(kind=kind, pad_id=1, zeroed_id=None))
    (encoder / "tokenizer.model").unlink()
    (encoder / "tokenizer.model").write_bytes(content)
    with pytest.raises(EncoderError, match="tokenizer"):
        load_encoder("starter", exported=encoder).embed_texts(["a bird"])
