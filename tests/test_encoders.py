"""What the encoders promise: unit vectors, close where pictures and words mean the same; otherwise one sentence."""

import http.server
import shutil
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from imgret.encoders import EncoderError, load_encoder
from imgret.encoders.preprocess import Preprocess

QUERIES = Path(__file__).parent.parent / "examples" / "queries"


@pytest.fixture(scope="module")
def starter(cache):
    return load_encoder("starter", cache=cache)


@pytest.fixture(scope="module")
def starter_folder(starter):
    return Path(starter.model_config["text_cfg"]["hf_model_name"])


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
    assert (starter.uri, starter.dim, starter.languages) == ("starter", 512, ("en",))


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


def test_the_picture_tower_is_the_classifier_that_it_was_taken_from(starter, pictures):
    """The two packages' tensors are matched by position alone; a wrong match would know no class."""
    from timm.data import ImageNetInfo

    from imgret.encoders.starter import classifier_weights

    names = [p.stem for p in sorted(QUERIES.glob("*.webp"))]
    projection = starter.model.visual.head.proj.weight.detach().numpy()
    weights = classifier_weights()
    classes = (weights - weights.mean(axis=0)) @ projection.T
    scores = dict(zip(names, starter.embed_images(pictures) @ classes.T, strict=True))
    for name, word in {"tiger": "tiger", "guitar_classical": "guitar", "monarchbutterfly": "monarch"}.items():
        assert word in ImageNetInfo().index_to_description(int(scores[name].argmax()))


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


def test_the_map_in_the_package_is_what_its_script_computes(starter):
    from imgret.encoders import make_starter
    from imgret.encoders.starter import classifier_weights

    with np.load(Path(make_starter.__file__).with_name("starter.npz")) as maps:
        np.testing.assert_allclose(maps["picture"], make_starter.picture_projection(classifier_weights()), atol=1e-3)
        assert (maps["text"].shape, maps["text"].dtype) == ((512, 384), np.float16)
    embeddings, targets = np.eye(384)[:5] * 3, np.arange(5 * 512).reshape(5, 512) / 1000.0
    projection = make_starter.text_projection(embeddings, targets)
    np.testing.assert_allclose(projection[:, 2], targets[2] * 3 / (9 + make_starter.RIDGE))


def test_several_processes_may_make_the_starter_at_once(tmp_path):
    code = "import sys, pathlib, imgret.encoders.starter as s; print(s.model_folder(pathlib.Path(sys.argv[1])))"
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    folders = {run.communicate()[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0, 0]
    assert [str(path) for path in tmp_path.iterdir()] == list(folders)


def test_the_starter_says_so_where_its_cache_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(EncoderError, match="set IMGRET_CACHE"):
        load_encoder("starter", cache=tmp_path / "file")


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
        ("clip", "no architecture"),
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
def test_a_model_in_the_hub_cache_loads_without_the_hub(
    no_hub, monkeypatch, tmp_path, starter, starter_folder, by_variable
):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", by_variable)
    repo = tmp_path / "models--org--name"
    shutil.copytree(starter_folder, repo / "snapshots" / ("a" * 40))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("a" * 40)
    cached = load_encoder("hf-hub:org/name")
    assert cached.uri == "hf-hub:org/name"
    np.testing.assert_array_equal(cached.embed_texts(["a dog"]), starter.embed_texts(["a dog"]))
    assert by_variable == constants.HF_HUB_OFFLINE


def test_a_local_folder_loads_and_a_damaged_one_says_so(starter, starter_folder, tmp_path):
    np.testing.assert_array_equal(
        load_encoder(f"local-dir:{starter_folder}").embed_texts(["x"]), starter.embed_texts(["x"])
    )
    damaged = tmp_path / "damaged"
    shutil.copytree(starter_folder, damaged)
    weights = damaged / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(EncoderError, match="local-dir"):
        load_encoder(f"local-dir:{damaged}")
    weights.unlink()
    with pytest.raises(EncoderError, match="pretrained weights"):
        load_encoder(f"local-dir:{damaged}")


def test_a_gpu_that_is_not_there_is_said(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(EncoderError, match="no GPU"):
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
