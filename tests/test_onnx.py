"""An exported encoder answers as the original does, needs no torch for it, and is refused where it would not."""

import csv
import json
import os
import random
import shutil
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgret.encoders import EncoderError, export, load_encoder, onnx, towers
from imgret.encoders.catalog import STARTER_FOLDER
from imgret.encoders.clip import ClipEncoder
from imgret.encoders.export import export_encoder
from imgret.encoders.onnx import OnnxEncoder, without_padding
from imgret.encoders.tokens import load_tokenizer
from tests.models import SMALL_MODELS, small_model_folder, train_tokenizer, train_word_pieces

EXAMPLES = Path(__file__).parent.parent / "examples"
TEXTS = ["a dog", "Con mèo đen nằm trên ghế.", "", "🐈‍⬛ 🇻🇳", "word " * 300, "a" * 500, "Schr&ouml;dinger&#39;s cat"]


@pytest.fixture(scope="module")
def pictures():
    return [Image.open(path).convert("RGB") for path in sorted((EXAMPLES / "queries").glob("*.webp"))]


@pytest.fixture(scope="module")
def captions():
    with (EXAMPLES / "library" / "metadata.csv").open(encoding="utf-8") as file:
        return [row[column] for row in csv.DictReader(file) for column in ("caption", "caption_vi")]


@pytest.fixture(scope="module")
def many_texts(captions):
    """Over a thousand strings: captions in two languages, and what visitors and the web put into a text field."""
    alphabet = (
        "abcXYZ 019 .,!?'\"<>&;_-()[]{}@#%ăâđêôơưảãạềỆ 你好猫 кошка हिन्दी ١٢٣ 🐈‍⬛🇻🇳👩‍👧 ﬁ№½İǅ\t\n\x00\u200b\ufeff"
    )
    source = random.Random(0)
    noise = ["".join(source.choices(alphabet, k=source.randint(1, 300))) for _ in range(300)]
    special = [
        "<start_of_text> a <END_OF_TEXT>",
        "[CLS] [SEP] <s> </s> <pad>",
        "&amp;lt;p&amp;gt;",
        "schÃ¶n",
        "I'll we're",
        "!!!",
    ]
    return [*captions, *noise, *special, *TEXTS]


@pytest.fixture(scope="module")
def small_model(tmp_path_factory, captions):
    """A function from a name in SMALL_MODELS to an encoder of that kind."""
    return lambda name: ClipEncoder.load(small_model_folder(tmp_path_factory.mktemp(name), name, captions))


@pytest.fixture(scope="module")
def original(small_model):
    return small_model("xlm-roberta")


@pytest.fixture(scope="module")
def exported(original, pictures, captions, tmp_path_factory):
    """The folder of the exported `original`."""
    folder = tmp_path_factory.mktemp("exported") / "small"
    export_encoder(original, folder, pictures, captions[:80:2], int8=False)
    return folder


@pytest.mark.parametrize("name", SMALL_MODELS)
def test_an_export_of_any_kind_of_model_gives_the_originals_vectors(small_model, pictures, tmp_path, name):
    original = small_model(name)
    before = original.embed_texts(TEXTS)
    report = export_encoder(original, tmp_path / "export", pictures, [], int8=False)
    exported = load_encoder(original.uri, exported=tmp_path / "export")
    assert isinstance(exported, OnnxEncoder)
    assert (exported.uri, exported.dim, exported.languages) == (original.uri, original.dim, original.languages)
    np.testing.assert_array_equal(exported.preprocess(pictures[0]), original.preprocess(pictures[0]))
    for n in (0, 1, 3, len(pictures)):
        np.testing.assert_allclose(exported.embed_images(pictures[:n]), original.embed_images(pictures[:n]), atol=1e-5)
    np.testing.assert_allclose(exported.embed_texts(TEXTS), before, atol=1e-5)
    for text in TEXTS:
        np.testing.assert_allclose(exported.embed_texts([text]), original.embed_texts([text]), atol=1e-5)
    np.testing.assert_array_equal(original.embed_texts(TEXTS), before, "the export changed the original")
    assert exported.config["trim_padding"] == (name != "siglip")
    assert report["image"]["precision"] == report["text"]["precision"] == "fp32"
    assert min(report["image"]["cosine"], report["text"]["cosine"]) >= 0.9999
    assert (report["pictures"], report["texts"]) == (64, 64)


def test_serving_imports_neither_torch_nor_what_brings_it(exported):
    code = """
import sys
from pathlib import Path
from PIL import Image
from imgret.encoders import load_encoder
for uri, towers in ((sys.argv[1], Path(sys.argv[2])), ("starter", None)):
    encoder = load_encoder(uri, exported=towers)
    assert encoder.embed_images([Image.new("RGB", (50, 40))]).shape == encoder.embed_texts(["a dog"]).shape
print(*sys.modules)
"""
    command = [sys.executable, "-c", code, OnnxEncoder(exported).uri, exported]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert not {"torch", "torchvision", "open_clip", "transformers", "timm", "onnx"} & set(run.stdout.split())


def test_an_export_has_a_fingerprint_that_tells_of_other_weights(exported, small_model, pictures, tmp_path):
    export_encoder(small_model("siglip"), tmp_path / "other", pictures, [])
    fingerprints = [OnnxEncoder(folder).fingerprint for folder in (exported, tmp_path / "other")]
    assert len(set(fingerprints)) == 2
    assert all(len(fingerprint) == 16 for fingerprint in fingerprints)
    config = OnnxEncoder(exported).config
    assert onnx.compute_fingerprint(exported, config) == config["fingerprint"]


@pytest.fixture(scope="module")
def clip(small_model, pictures, tmp_path_factory):
    """A small CLIP and its towers in every precision, as the real functions write them."""
    original, folder = small_model("clip"), tmp_path_factory.mktemp("towers")
    pixels = torch_tensor(np.stack([original.preprocess(picture) for picture in pictures[:2]]))
    for kind, sample in (("image", pixels), ("text", original.tokenizer(["a dog", "two"])[:, :9])):
        towers.export_tower(original, kind, sample, folder / f"{kind}.fp32.onnx", any_length=kind == "text")
        targets = {precision: folder / f"{kind}.{precision}.onnx" for precision in ("int8-rows", "int8-blocks")}
        assert towers.quantise_tower(folder / f"{kind}.fp32.onnx", targets)
    return original, folder


@pytest.fixture
def ready_made(clip, monkeypatch):
    """The towers of `clip` stand ready, so that a test of the comparison need not wait for torch to export them."""

    def quantise_tower(source, targets):
        for target in targets.values():
            shutil.copy(clip[1] / target.name, target)
        return True

    monkeypatch.setattr(export, "export_tower", lambda *args, **_: shutil.copy(clip[1] / args[3].name, args[3]))
    monkeypatch.setattr(export, "quantise_tower", quantise_tower)
    return clip[0]


def torch_tensor(array):
    import torch

    return torch.from_numpy(array)


def test_int8_is_kept_where_it_passes(ready_made, pictures, captions, tmp_path, monkeypatch):
    # Random weights tell pictures hardly apart, so their order is left out of this comparison.
    monkeypatch.setattr(export, "MIN_TOP10", 0.0)
    report = export_encoder(ready_made, tmp_path / "export", pictures, captions[:64])
    exported = OnnxEncoder(tmp_path / "export")
    for kind, vectors, exact in (
        ("image", exported.embed_images(pictures), ready_made.embed_images(pictures)),
        ("text", exported.embed_texts(captions[:64]), ready_made.embed_texts(captions[:64])),
    ):
        assert report[kind]["precision"] == "int8-rows"
        assert list(report[kind]["tried"]) == ["int8-rows", "int8-blocks", "fp32"]
        assert (vectors * exact).sum(axis=1).min() >= 0.99
        assert np.abs(vectors - exact).max() > 1e-5, "nothing was quantised"
    assert sorted(path.name for path in (tmp_path / "export").iterdir()) == [
        "encoder.json",
        "image.int8-rows.onnx",
        "merges.txt.gz",
        "text.int8-rows.onnx",
        "text.int8-rows.onnx.data",
    ]


def test_a_vector_in_8_bits_does_not_depend_on_its_batch(ready_made, pictures, captions, tmp_path, monkeypatch):
    monkeypatch.setattr(export, "MIN_TOP10", 0.0)
    report = export_encoder(ready_made, tmp_path / "export", pictures, [])
    assert {report[kind]["precision"] for kind in ("image", "text")} == {"int8-rows"}
    exported = OnnxEncoder(tmp_path / "export")
    loud = Image.effect_noise((64, 64), 250).convert("RGB")  # its activations are larger than a photograph's
    for embed, items in ((exported.embed_images, [*pictures, loud]), (exported.embed_texts, captions[:20])):
        alone = np.vstack([embed([item]) for item in items])
        for batch in (3, len(items)):
            together = np.vstack([embed(items[start : start + batch]) for start in range(0, len(items), batch)])
            np.testing.assert_allclose(together, alone, rtol=0, atol=1e-6)


def test_a_tower_of_an_earlier_version_whose_batches_differ_embeds_a_row_at_a_time(clip, exported, pictures, tmp_path):
    """As `quantize_dynamic` writes it: the activations of a batch share one scale."""
    from onnxruntime.quantization import quantize_dynamic

    old = tmp_path / "old"
    shutil.copytree(exported, old)
    quantize_dynamic(
        clip[1] / "image.fp32.onnx", old / "image.int8.onnx", per_channel=True, extra_options={"MatMulConstBOnly": True}
    )
    config = json.loads((old / "encoder.json").read_text())
    size = list(clip[0].transform.size)
    config |= {"format": 2, "dim": clip[0].dim, "image": {"file": "image.int8.onnx", "precision": "int8"}}
    config["preprocess"] |= {"size": size}
    (old / "encoder.json").write_text(json.dumps(config))
    encoder = OnnxEncoder(old)
    pixels = np.stack([encoder.preprocess(picture) for picture in pictures[:6]])
    alone = np.vstack([encoder.embed_preprocessed(row[None]) for row in pixels])
    np.testing.assert_allclose(encoder.embed_preprocessed(pixels), alone, rtol=0, atol=1e-6)
    assert np.abs(encoder._picture_vectors(pixels) - alone).max() > 1e-6, "this tower's batches do not differ"


@pytest.mark.parametrize("measure", ["cosine", "top10"])
def test_what_drifts_is_not_used(ready_made, pictures, tmp_path, monkeypatch, measure):
    least = {"int8-rows": 1.1, "int8-blocks": 1.1, "fp32": 0.9999} if measure == "cosine" else export.MIN_COSINE
    monkeypatch.setattr(export, "MIN_COSINE", least)
    monkeypatch.setattr(export, "MIN_TOP10", 0.0 if measure == "cosine" else 0.9999)
    report = export_encoder(ready_made, tmp_path / "fp32", pictures, [])
    assert report["image"]["precision"] == report["text"]["precision"] == "fp32"
    unreachable = {"MIN_COSINE": dict.fromkeys(least, 1.1)} if measure == "cosine" else {"MIN_TOP10": 1.1}
    for name, value in unreachable.items():
        monkeypatch.setattr(export, name, value)
    with pytest.raises(EncoderError, match="other vectors than the original"):
        export_encoder(ready_made, tmp_path / "none", pictures, [])
    assert [path.name for path in tmp_path.iterdir()] == ["fp32"], "something was left behind"


def test_a_tower_that_gives_wrong_vectors_is_refused(ready_made, small_model, pictures, tmp_path, monkeypatch):
    """As the older exporter did, without a word."""
    other = small_model("siglip")
    reference = other.embed_images(pictures)
    monkeypatch.setattr(ready_made, "embed_images", lambda images: np.resize(reference, (len(images), 48)))
    with pytest.raises(EncoderError, match="other vectors than the original"):
        export_encoder(ready_made, tmp_path / "none", pictures, [], int8=False)


def test_a_text_tower_that_needs_its_padding_is_exported_at_full_length(small_model, pictures, tmp_path, monkeypatch):
    original = small_model("siglip")
    monkeypatch.setattr(export, "ignores_padding", lambda encoder: True)
    export_encoder(original, tmp_path / "export", pictures, [], int8=False)
    exported = OnnxEncoder(tmp_path / "export")
    assert exported.config["trim_padding"] is False
    np.testing.assert_allclose(exported.embed_texts(TEXTS), original.embed_texts(TEXTS), atol=1e-5)


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_clips_tokenizer_gives_open_clips_ids(many_texts, clean, tmp_path):
    from open_clip.tokenizer import SimpleTokenizer, default_bpe

    config = {"kind": "clip", "file": Path(default_bpe()).name, "clean": clean, "context_length": 77}
    ours, theirs = load_tokenizer(Path(default_bpe()).parent, config), SimpleTokenizer(clean=clean)
    assert len(many_texts) > 1000
    np.testing.assert_array_equal(ours(many_texts), theirs(many_texts).numpy())


@pytest.mark.parametrize("options", [{}, {"clean": "canonicalize"}, {"clean": "lower", "strip_sep_token": True}])
@pytest.mark.parametrize("train", [train_word_pieces, train_tokenizer], ids=["word-piece", "sentence-piece"])
def test_library_tokenizers_give_open_clips_ids(original, captions, many_texts, tmp_path, train, options):
    from open_clip.tokenizer import HFTokenizer

    train(tmp_path, captions)
    theirs = HFTokenizer(str(tmp_path), context_length=20, **options)
    encoder = ClipEncoder("test", original.model, theirs, original.model_config, "cpu")
    ours = load_tokenizer(tmp_path, export._write_tokenizer(encoder, tmp_path))
    np.testing.assert_array_equal(ours(many_texts), theirs(many_texts).numpy())


def test_the_starters_ids_are_those_of_another_library_over_the_same_pieces(captions):
    from sentencepiece import SentencePieceProcessor
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    ours = load_tokenizer(STARTER_FOLDER, json.loads((STARTER_FOLDER / "encoder.json").read_text())["tokenizer"])
    pieces = SentencePieceProcessor(model_file=str(STARTER_FOLDER / "tokenizer.model"))
    scored = [(pieces.id_to_piece(number), pieces.get_score(number)) for number in range(pieces.get_piece_size())]
    theirs = Tokenizer(models.Unigram(scored, pieces.unk_id(), False))
    theirs.normalizer = normalizers.NFKC()
    theirs.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    texts = [*captions, *map(str.upper, captions), *(unicodedata.normalize("NFD", text) for text in captions)]
    found = [[number for number in row if number != ours.pad_id] for row in ours(texts).tolist()]
    assert found == [[pieces.bos_id(), *theirs.encode(text).ids, pieces.eos_id()] for text in texts]


def test_the_starters_tokenizer_cuts_long_texts_and_passes_over_blanks_and_signs_of_control():
    tokenizer = load_tokenizer(STARTER_FOLDER, json.loads((STARTER_FOLDER / "encoder.json").read_text())["tokenizer"])
    assert tokenizer(["a " * 500]).shape == (1, 128)
    assert (tokenizer.cut_after("a " * 500), tokenizer.cut_after("a dog")) == (126, None)
    plain, blank = tokenizer(["a red dog", "\u3000a\t red\u200b \u2003\x07d\x01og\n"])
    np.testing.assert_array_equal(plain, blank)
    short, _ = tokenizer(["a", "a dog"])
    assert short[-1] == tokenizer.pad_id


def test_padding_is_left_out_and_no_more():
    ids = np.array([[5, 6, 9, 0, 0, 0], [5, 9, 0, 0, 0, 0]])
    np.testing.assert_array_equal(without_padding(ids, 0), ids[:, :4])
    assert without_padding(np.array([[5, 6, 9]]), 0).shape == (1, 3)
    assert without_padding(np.array([[5, 9, 9, 9, 9]]), 9).tolist() == [[5, 9]], "the end token is also the padding"
    assert without_padding(np.zeros((1, 9), int), 0).shape == (1, 2)


def test_agreement_counts_ties_as_agreement():
    exact = np.array([[3.0, 2.0, 2.0, 1.0] + [0.0] * 8])
    assert export._top10_agreement(exact, exact[:, ::-1]) == pytest.approx(0.8 + 0.2)
    worse = np.arange(20.0)[None]
    assert export._top10_agreement(worse, worse) == 1
    assert export._top10_agreement(worse, -worse) == 0
    assert export._top10_agreement(worse[:, :4], -worse[:, :4]) == 1, "four pictures have no tenth"


def test_a_tower_is_opened_once_and_threads_share_it(exported, pictures, monkeypatch):
    opened = []
    open_session = onnx.open_session
    monkeypatch.setattr(
        onnx, "open_session", lambda path, threads: opened.append(threads) or open_session(path, threads)
    )
    encoder = OnnxEncoder(exported, threads=1)
    assert opened == []
    with ThreadPoolExecutor(8) as pool:
        vectors = list(
            pool.map(
                lambda i: (encoder.embed_images(pictures[i : i + 1]), encoder.embed_texts([f"{i} dogs"])), range(16)
            )
        )
    assert opened == [1, 1]
    np.testing.assert_allclose(
        np.vstack([image for image, _ in vectors]), encoder.embed_images(pictures[:16]), atol=1e-5
    )
    np.testing.assert_allclose(
        np.vstack([text for _, text in vectors]), encoder.embed_texts([f"{i} dogs" for i in range(16)]), atol=1e-5
    )


def test_an_export_of_another_encoder_is_not_taken_for_this_one(exported, original, tmp_path):
    with pytest.raises(EncoderError, match="another encoder"):
        load_encoder("ViT-B-32/random", exported=exported)
    assert isinstance(load_encoder(original.uri, exported=tmp_path / "none"), ClipEncoder)


@pytest.fixture
def damaged(exported, tmp_path):
    """A copy of the export that a test may spoil; its towers are links, replaced rather than written to."""
    shutil.copytree(exported, tmp_path / "damaged", copy_function=os.link)
    return tmp_path / "damaged"


def _replace(path, content):
    path.unlink()
    path.write_bytes(content)


def test_a_tower_that_answers_otherwise_than_at_its_export_is_refused(damaged):
    config = json.loads((damaged / "encoder.json").read_text())
    config["text"]["check"] = config["text"]["check"][::-1]
    _replace(damaged / "encoder.json", json.dumps(config).encode())
    encoder = OnnxEncoder(damaged)
    with pytest.raises(EncoderError, match="other vectors here than where it was exported"):
        encoder.embed_texts(["a dog"])


@pytest.mark.parametrize("file", ["image.fp32.onnx", "text.fp32.onnx", "tokenizer.json"])
def test_a_damaged_file_is_named(damaged, file):
    _replace(damaged / file, (damaged / file).read_bytes()[:1000])
    with pytest.raises(EncoderError, match=r"cannot be (opened|read)"):
        OnnxEncoder(damaged).warm()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"format": 99, "uri": "starter"}'])
def test_what_is_no_export_or_a_newer_one_is_refused(damaged, content):
    _replace(damaged / "encoder.json", content)
    with pytest.raises(EncoderError, match=r"cannot be read|newer release"):
        OnnxEncoder(damaged)


def test_an_export_never_writes_over_a_folder(original, pictures, tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(FileExistsError, match="there already"):
        export_encoder(original, tmp_path, pictures, [])
    with pytest.raises(ValueError, match=r"^An export is compared with the original on real pictures"):
        export_encoder(original, tmp_path / "new", [], [])
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
