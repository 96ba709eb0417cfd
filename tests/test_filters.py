"""Searches within labels are exact, and the manifest says what Chroma's own filter would find."""

import json
from itertools import combinations

import chromadb
import numpy as np
import pytest
from PIL import Image

from imgret import Encoder, ImageLibrary, Index, Retriever, build_index
from imgret.build.filters import labels_of_share
from imgret.encoders.catalog import STARTER_FOLDER
from imgret.images import load_image, pixel_vector
from tests.conftest import LIBRARY, QUERIES

SIZES = {"tenth": 200, "hundredth": 20, "thousandth": 2, "most": 1778}
"""Chroma writes its graph every 1,000 rows: of 2,000 it makes none anew."""


class Colours(Encoder):
    """A quick encoder: the colours of a picture in eight by eight squares, less their mean; of a text, its length."""

    uri, dim, languages = "colours", 192, ()

    def preprocess(self, image):
        return pixel_vector(image, 8).astype(np.float32).reshape(3, 8, 8)

    def _picture_vectors(self, pixels):
        rows = pixels.reshape(len(pixels), -1)
        return rows - rows.mean(axis=1, keepdims=True) + 1e-3

    def _text_vectors(self, texts):
        return np.stack([np.roll(np.arange(192, dtype=np.float32), len(text)) for text in texts])


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    """A folder of 2,000 parts of the embedded library's pictures, of which a label has a tenth, one a hundredth..."""
    root, draw = tmp_path_factory.mktemp("crops"), np.random.default_rng(0)
    pictures = [load_image(path).resize((64, 64)) for path in sorted(LIBRARY.rglob("*.webp"))]
    for label, count in SIZES.items():
        (root / label).mkdir()
        for number in range(count):
            x, y = draw.integers(0, 40, size=2)
            part = pictures[draw.integers(len(pictures))].crop((x, y, x + 24, y + 24))
            part.save(root / label / f"{number:04}.png")
    return root


@pytest.fixture(scope="module", params=["embedded", "server"])
def narrow(request, crops, tmp_path_factory):
    """A retriever over a graph with few links, which is searched narrowly."""
    chroma = request.getfixturevalue("chroma_server").url if request.param == "server" else None
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("imgret.vectors.base.HNSW", {"space": "cosine", "ef_construction": 8, "max_neighbors": 3})
        patch.setattr("imgret.vectors.base.FIRST_EF_SEARCH", 10)
        patch.setattr("imgret.vectors.store.AUDIT_RECALL", 0.3)
        patch.setattr("imgret.vectors.server_collection.AUDIT_RECALL", 0.3)
        patch.setattr("imgret.build.pipeline.MAX_PICTURES", 0)  # by this encoder, all look alike: no duplicates
        folder = tmp_path_factory.mktemp("narrow") / "index"
        index = build_index(ImageLibrary.load(crops), folder, Colours(), 8, chroma=chroma)
        yield Retriever(index, Colours())
        index.close()


def brute_force(index, vector, labels):
    """The rows that have one of `labels`, best first, equal scores by row."""
    rows = [row for row, own in enumerate(index.words("label", "labels")) if {*own} & {*labels}]
    scores = [float(np.dot(index.embeddings[row].astype(float), vector.astype(float))) for row in rows]
    return [row for _, row in sorted(zip(np.negative(scores), rows, strict=True))]


def test_an_index_of_more_than_a_thousand_pictures_has_at_most_twenty_files(narrow):
    files = [path for path in narrow.index.folder.rglob("*") if path.is_file()]
    held_out = 1  # this library came without
    assert len(files) + held_out + len(list(STARTER_FOLDER.iterdir())) <= 20


def test_hits_within_each_label_are_those_of_comparing_all_its_pictures(retriever):
    index = retriever.index
    for path in sorted(QUERIES.glob("*.webp"))[:3]:
        vector = retriever.embed_query(path)
        for label in index.manifest.labels:
            expected = brute_force(index, vector, [label])
            for k in (1, 5, 545):
                assert [hit.row for hit in retriever.by_clip(path, labels=[label], k=k)] == expected[:k]


def test_hits_are_exact_where_chroma_s_filter_misses_some(narrow):
    index = narrow.index
    missed = 0
    for path in sorted(QUERIES.glob("*.webp")):
        vector = narrow.embed_query(path)
        for labels in (["tenth"], ["hundredth"], ["thousandth"], ["most"], ["tenth", "hundredth"]):
            expected = brute_force(index, vector, labels)
            for k in (10, 11):
                assert [hit.row for hit in narrow.by_clip(path, labels=labels, k=k)] == expected[:k]
            missed += len({*expected[:10]} - {*index.vectors.query(vector, 10, labels).tolist()})
    assert missed


def test_the_manifest_says_what_chroma_finds_by_labels(narrow):
    index = narrow.index
    manifest = json.loads((index.folder / "manifest.json").read_text())
    rows = np.array([own[0] for own in index.words("label", "labels")])
    draw = np.random.default_rng(0).integers(len(index), size=(2, 256))
    queries = [
        index.embeddings[first] + index.embeddings[first if number < 128 else second]
        for number, (first, second) in enumerate(draw.T)
    ]
    if index.manifest.vectors is None:
        collection = index.vectors._source.collection
    else:
        host, port = index.manifest.vectors.url.removeprefix("http://").split(":")
        collection = chromadb.HttpClient(host, int(port)).get_collection(index.manifest.vectors.collection)
    for share, label in (("0.1", "tenth"), ("0.01", "hundredth"), ("0.001", "thousandth")):
        audit, of_label = manifest["filtered"][share], np.flatnonzero(rows == label)
        k = min(10, len(of_label))
        hits = 0
        for query in queries:
            query = query / np.linalg.norm(query)
            ids = collection.query([query], n_results=k, where={"label": label}, include=[])["ids"][0]
            least = np.sort(index.embeddings[of_label] @ query)[-k] - 1e-6
            hits += sum(index.embeddings[int(id)] @ query >= least for id in ids)
        # The last bit of a query decides which way the graph is walked.
        recall = pytest.approx(hits / (256 * k), abs=0.005)
        assert audit == {"labels": [label], "rows": SIZES[label], "queries": 256, "k": k, "recall": recall}
    assert manifest["filtered"]["0.1"]["recall"] < 0.99


def test_what_cannot_be_measured_is_none_and_older_indexes_open(tmp_path):
    """Of thirty pictures three have a label, or only one, or none: that is a tenth, and too few; nobody has less."""
    for folder, labelled in (("labelled", 3), ("sparse", 1), ("plain", 0)):
        (tmp_path / folder).mkdir()
        names = []
        for path in sorted(LIBRARY.rglob("*.webp"))[:30]:
            names.append(path.name)
            Image.open(path).convert("RGB").resize((32, 32)).save(tmp_path / folder / path.name)
        rows = [f"{name},{'a' if number < labelled else ''}" for number, name in enumerate(names)]
        (tmp_path / folder / "metadata.csv").write_text("\n".join(["file_name,label", *rows]))
        index = build_index(ImageLibrary.load(tmp_path / folder), tmp_path / f"{folder}-index", Colours(), 8)
        filtered = index.manifest.filtered
        assert [*filtered] == ["0.1", "0.01", "0.001"]
        assert filtered["0.01"] is filtered["0.001"] is None
        assert (filtered["0.1"] is not None) == (labelled == 3)
        assert labelled < 3 or (filtered["0.1"].rows, filtered["0.1"].k) == (3, 3)
        index.close()
    manifest = tmp_path / "labelled-index" / "manifest.json"
    values = json.loads(manifest.read_text())
    del values["filtered"]
    manifest.write_text(json.dumps(values))
    assert Index.open(tmp_path / "labelled-index").manifest.filtered == {}


def test_the_labels_of_a_share_are_the_nearest_there_are():
    draw = np.random.default_rng(0)
    for _ in range(200):
        counts = {f"label {number}": int(draw.integers(1, 40)) for number in range(draw.integers(1, 8))}
        target = draw.uniform(0.5, 60)
        sums = [sum(some) for n in range(1, len(counts) + 1) for some in combinations(counts.values(), n)]
        small = [abs(total - target) for total in sums if total <= 2 * target]
        labels = labels_of_share(counts, target)
        assert len({*labels}) == len(labels)
        if small:
            assert abs(sum(counts[label] for label in labels) - target) == min(small)
        else:
            assert labels == ()
    assert labels_of_share({}, 7) == ()
