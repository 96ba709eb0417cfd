"""What the encoders promise: unit vectors, close where pictures and words mean the same; otherwise one sentence."""

import csv
import http.server
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgret.encoders import CATALOG, EncoderError, fingerprint, load_encoder, uri_of
from imgret.encoders.catalog import declared_languages
from imgret.encoders.onnx import compute_fingerprint
from imgret.encoders.preprocess import Preprocess
from imgret.settings import SPACE_ENCODER
from imgret.ui.i18n import WORDS
from tests.conftest import LIBRARY
from tests.models import small_model_folder

QUERIES = Path(__file__).parent.parent / "examples" / "queries"


@pytest.fixture(scope="module")
def starter(cache):
    return load_encoder("starter", cache=cache)


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory):
    """A small open_clip model in a folder."""
    folder = tmp_path_factory.mktemp("model")
    small_model_folder(folder, "clip", [])
    return folder


@pytest.fixture(scope="module")
def pictures():
    return [Image.open(path).convert("RGB") for path in sorted(QUERIES.glob("*.webp"))]


@pytest.fixture
def no_hub(monkeypatch):
    """The Hub's address leads to a port that nobody listens on."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")


def test_importing_the_package_imports_nothing_heavy():
    code = "import sys, imgret.encoders; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "open_clip", "onnxruntime", "transformers", "huggingface_hub"} & set(loaded)


def test_pictures_and_texts_become_float32_unit_rows_of_one_length(starter, pictures):
    images, texts = starter.embed_images(pictures), starter.embed_texts(["a dog", "a windmill on a hill"])
    assert images.dtype == texts.dtype == np.float32
    assert (images.shape, texts.shape) == ((len(pictures), starter.dim), (2, starter.dim))
    np.testing.assert_allclose(np.linalg.norm(np.vstack([images, texts]), axis=1), 1, atol=1e-6)
    assert (starter.uri, starter.dim, starter.languages) == ("starter", 512, ("en", "vi"))


def test_no_pictures_and_no_texts_give_no_rows(starter):
    assert starter.embed_images([]).shape == starter.embed_texts([]).shape == (0, 512)
    assert starter.embed_preprocessed(np.empty((0, 3, 224, 224), np.float32)).shape == (0, 512)


def test_a_vector_does_not_depend_on_its_batch_or_on_the_run(starter, pictures):
    texts = [f"{i} red apples" for i in range(40)]
    for embed, items in ((starter.embed_images, pictures * 3), (starter.embed_texts, texts)):
        together = embed(items)
        np.testing.assert_array_equal(together, embed(items))
        np.testing.assert_allclose(together, np.vstack([embed([item]) for item in items]), atol=1e-5)


def test_preprocessing_in_threads_and_embedding_the_stack_is_embedding_the_pictures(starter, pictures):
    with ThreadPoolExecutor(4) as pool:
        pixels = np.stack(list(pool.map(starter.preprocess, pictures)))
    assert (pixels.dtype, pixels.shape[1:]) == (np.float32, (3, 224, 224))
    np.testing.assert_allclose(starter.embed_preprocessed(pixels), starter.embed_images(pictures), atol=1e-6)


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "CMYK", "I;16", "F"])
def test_pictures_of_every_mode_are_taken(starter, mode):
    vector = starter.embed_images([Image.new(mode, (40, 30))])
    assert np.isfinite(vector).all()


@pytest.mark.parametrize("text", ["", " ", "\n\t", "con mèo đen 🐈‍⬛", "long " * 5000])
def test_any_text_has_a_finite_unit_vector(starter, text):
    assert np.linalg.norm(starter.embed_texts([text])) == pytest.approx(1, abs=1e-5)


def test_the_towers_give_the_vectors_of_the_original(starter):
    """Those that torch computed from the parts in full precision when the starter was made."""
    with np.load(Path(__file__).with_name("starter_reference.npz")) as reference:
        files, images = reference["files"], reference["images"].astype(np.float32)
        pictures = [Image.open(LIBRARY / name).convert("RGB") for name in files]
        assert len(files) > 20
        assert (starter.embed_images(pictures) * images).sum(axis=1).min() > 0.999
        with (LIBRARY / "metadata.csv").open(encoding="utf-8") as file:
            rows = {row["file_name"]: row for row in csv.DictReader(file)}
        for language, column in (("en", "caption"), ("vi", "caption_vi")):
            vectors = starter.embed_texts([rows[name][column] for name in files])
            assert (vectors * reference[language].astype(np.float32)).sum(axis=1).min() > 0.999


def test_decomposed_and_composed_vietnamese_give_the_same_vector(starter):
    text = "bông hoa màu đỏ, con voi, thuyền buồm"
    vectors = starter.embed_texts([text, unicodedata.normalize("NFD", text), unicodedata.normalize("NFKD", text)])
    np.testing.assert_allclose(vectors[1:], vectors[:1].repeat(2, axis=0), atol=1e-6)


def test_a_sentence_is_closest_to_the_picture_it_describes(starter, pictures):
    names = [p.stem for p in sorted(QUERIES.glob("*.webp"))]
    captions = {
        "tiger": "a tiger",
        "sportscar3": "A sports car.",
        "guitar_classical": "a photo of a guitar",
        "monarchbutterfly": "a butterfly",
        "747": "an airplane",
    }
    scores = starter.embed_texts(list(captions.values())) @ starter.embed_images(pictures).T
    assert [names[row.argmax()] for row in scores] == list(captions)


PAIRS = [  # English, Vietnamese, and a word of the caption or label of a right picture
    ("a red flower", "bông hoa màu đỏ", "flower"),
    ("an elephant", "con voi", "elephant"),
    ("a sailing boat", "thuyền buồm", "sail|boat|ship|yacht"),
    ("a musical instrument", "nhạc cụ", "hobbies/music"),
    ("a tiger", "con hổ", "tiger"),
    ("an insect", "côn trùng", "insects"),
    ("a car", "xe ô tô", "car"),
    ("a bird", "con chim", "birds"),
    ("fruit", "trái cây", "fruit"),
    ("a house", "ngôi nhà", "house"),
]


NOT_FOUND = [("a dog", "con chó", "dog|puppy|dingo"), ("a butterfly", "con bướm", "butterfly|monarch")]
"""Asked for like the pairs above, and missed: a dingo is the seventh hit and a butterfly none of the first twenty."""
MISSED = [
    pytest.param(*pair, marks=pytest.mark.xfail(strict=True, reason="the starter misses it")) for pair in NOT_FOUND
]


@pytest.mark.parametrize(("english", "vietnamese", "word"), [*PAIRS, *MISSED])
def test_a_text_in_either_language_finds_a_right_picture_among_the_first_three(retriever, english, vietnamese, word):
    for text in (english, vietnamese):
        hits = retriever.by_clip(text=text, k=3)
        assert any(re.search(word, f"{hit.label} {hit.caption} {hit.id}") for hit in hits), (text, hits)


SUGGESTED = {
    "en": ("flower", "tiger", "hobbies/music", "vehicles/ship", "elephant"),
    "vi": ("tiger", "hobbies/music", "vehicles/ship", "elephant", "guitar"),
}


@pytest.mark.parametrize("language", SUGGESTED)
def test_each_text_that_the_page_suggests_finds_a_right_picture_first(retriever, language):
    for text, word in zip(WORDS[language].suggested, SUGGESTED[language], strict=True):
        (hit,) = retriever.by_clip(text=text, k=1)
        assert re.search(word, f"{hit.label} {hit.caption}"), (text, hit)


def test_the_starter_needs_none_of_what_other_encoders_need_and_those_say_so():
    code = """
import sys
for name in ("torch", "torchvision", "open_clip", "timm", "transformers", "onnx", "onnxscript"):
    sys.modules[name] = None
from imgret.encoders import CATALOG, EncoderError, fingerprint, load_encoder, uri_of
from imgret.encoders.catalog import declared_languages
from imgret.encoders.onnx import compute_fingerprint
assert load_encoder("starter").embed_texts(["a dog"]).shape == (1, 512)
try:
    load_encoder("clip")
except EncoderError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'imgret[build]'" in run.stdout
    assert len(run.stdout.strip().splitlines()) == 1


def test_short_names_stand_for_uris_and_languages_are_declared():
    assert uri_of("clip") == SPACE_ENCODER
    assert uri_of("starter") == "starter"
    assert uri_of("org/other") == "org/other"
    assert {known.name for known in CATALOG} == {"starter", "clip", "multilingual", "siglip2"}
    assert declared_languages("xlm-roberta-base-ViT-B-32") == ("*",)
    assert declared_languages("ViT-B-32") is None


def test_the_fingerprint_of_the_starter_is_that_of_its_files(starter):
    assert starter.fingerprint == fingerprint("starter") == compute_fingerprint(starter.folder, starter.config)
    assert fingerprint("ViT-B-32/random") is None


def test_random_weights_are_the_same_each_time_and_say_that_they_mean_nothing(no_hub):
    vectors = []
    for _ in range(2):
        with pytest.warns(UserWarning, match="random weights"):
            encoder = load_encoder("RN50/random")
        vectors.append(encoder.embed_texts(["a dog"]))
    np.testing.assert_array_equal(*vectors)
    assert (encoder.uri, encoder.dim) == ("RN50/random", 1024)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("", "no architecture"),
        ("clap", "no architecture"),
        ("VIT-B-32/openai", "did you mean .*ViT-B-32"),
        ("ViT-B-32", "needs a pretrained tag"),
        ("ViT-B-32/laion2b", "laion2b_s34b_b79k"),
        ("ViT-B-32/openai", "cannot be reached"),
        ("hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K", "cannot be reached"),
        ("hf-hub:not a repo", "form org/name"),
        ("hf-hub:", "form org/name"),
        ("local-dir:/no/such/folder", "no folder"),
        ("local-dir:", "no folder"),
        ("local-dir:/", "open_clip_config.json"),
        ("xlm-roberta-base-ViT-B-32/random", "cannot be reached"),
    ],
)
def test_what_cannot_be_loaded_ends_in_one_sentence_within_seconds(no_hub, monkeypatch, tmp_path, uri, reason):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    start = time.monotonic()
    with pytest.raises(EncoderError, match=reason) as caught:
        load_encoder(uri)
    assert time.monotonic() - start < 10
    sentence = str(caught.value)
    assert sentence.startswith(f'The encoder "{uri}" cannot be used here: ')
    assert sentence.endswith('; the encoder "starter" works offline.')
    assert "\n" not in sentence


def test_a_hub_that_takes_the_call_and_never_answers_is_given_up_quickly(monkeypatch, tmp_path):
    from huggingface_hub import constants

    from imgret import network

    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setattr(network, "ANSWER_SECONDS", 0.5)
        start = time.monotonic()
        with pytest.raises(EncoderError, match="cannot be reached"):
            load_encoder("hf-hub:org/name")
        assert time.monotonic() - start < 5


@pytest.mark.parametrize(
    ("status", "code", "reason"),
    [
        (404, "RepoNotFound", "no such repo"),
        (404, "EntryNotFound", "open_clip_config.json"),
        (403, "GatedRepo", "gated"),
    ],
)
def test_what_the_hub_refuses_is_said_in_plain_words(monkeypatch, tmp_path, status, code, reason):
    from huggingface_hub import constants

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        with pytest.raises(EncoderError, match=reason):
            load_encoder("hf-hub:org/name")
        server.shutdown()


@pytest.mark.parametrize("by_variable", [False, True])
def test_a_model_in_the_hub_cache_loads_without_the_hub(no_hub, monkeypatch, tmp_path, model_folder, by_variable):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", by_variable)
    repo = tmp_path / "models--org--name"
    shutil.copytree(model_folder, repo / "snapshots" / ("a" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    cached = load_encoder("hf-hub:org/name")
    assert cached.uri == "hf-hub:org/name"
    own = load_encoder(f"local-dir:{model_folder}")
    np.testing.assert_array_equal(cached.embed_texts(["a dog"]), own.embed_texts(["a dog"]))
    assert by_variable == constants.HF_HUB_OFFLINE


def test_a_local_folder_loads_and_a_damaged_one_says_so(model_folder, tmp_path):
    assert load_encoder(f"local-dir:{model_folder}").embed_texts(["x"]).shape == (1, 48)
    damaged = tmp_path / "damaged"
    shutil.copytree(model_folder, damaged)
    weights = damaged / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EncoderError, match="local-dir"):
        load_encoder(f"local-dir:{damaged}")
    weights.unlink()
    with pytest.raises(EncoderError, match="pretrained weights"):
        load_encoder(f"local-dir:{damaged}")


def test_a_gpu_that_is_not_there_is_said(model_folder, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EncoderError, match="no GPU"):
        load_encoder(f"local-dir:{model_folder}", device="cuda")
    with pytest.raises(EncoderError, match="runs on the CPU only"):
        load_encoder("starter", device="cuda")


def test_vectors_that_are_not_finite_are_refused(starter):
    with pytest.raises(EncoderError, match="finite"):
        starter.embed_preprocessed(np.full((1, 3, 224, 224), np.nan, np.float32))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("size", [224, 96, (64, 96), (96, 64)])
def test_preprocessing_is_open_clips_to_the_last_bit(pictures, size, mode, interpolation):
    from open_clip.transform import PreprocessCfg, image_transform_v2

    config = {
        "size": size,
        "interpolation": interpolation,
        "resize_mode": mode,
        "fill_color": 7,
        "mean": [0.48, 0.46, 0.41],
        "std": [0.27, 0.26, 0.28],
    }
    ours, theirs = Preprocess.from_config(config), image_transform_v2(PreprocessCfg(**config), is_train=False)
    shapes = [(224, 224), (300, 200), (201, 305), (31, 17), (1, 1), (640, 97), (223, 225), (96, 97), (500, 20)]
    for shape, picture in zip(shapes, pictures, strict=False):
        picture = picture.resize(shape)
        np.testing.assert_array_equal(ours(picture), theirs(picture).numpy(), err_msg=f"{shape}")


def test_a_long_strip_is_preprocessed_in_little_memory():
    strip = Image.effect_noise((60_000, 3), 80)
    pixels = Preprocess.from_config(
        {"size": 224, "mean": 0.5, "std": 0.5, "interpolation": "bicubic", "resize_mode": "shortest"}
    )(strip)
    assert pixels.shape == (3, 224, 224)
