"""The course's own functions give what its formulas give on a folder of pictures."""

import shutil

import numpy as np
import pytest
from PIL import Image

import imgret
from imgret import ImageError, LibraryError
from imgret.metrics import METRICS
from tests.conftest import QUERIES

FUNCTIONS = {
    "l1": imgret.get_l1_score,
    "l2": imgret.get_l2_score,
    "cosine": imgret.get_cosine_similarity_score,
    "correlation": imgret.get_correlation_coefficient_score,
}


@pytest.mark.parametrize("metric", METRICS)
def test_scores_are_the_formula_on_resized_pictures_best_first(metric, small_library):
    query, scored = FUNCTIONS[metric](str(small_library), str(QUERIES / "dog.webp"), size=(60, 40))
    assert query.shape == (40, 60, 3)
    assert query.dtype == np.uint8
    paths = sorted(str(path) for path in small_library.rglob("*.webp"))
    assert sorted(path for path, _ in scored) == paths
    for path, score in scored:
        picture = np.asarray(Image.open(path).convert("RGB").resize((60, 40), Image.Resampling.BICUBIC))
        assert score == pytest.approx(METRICS[metric](query, picture[None])[0], abs=1e-12)
    scores = [score for _, score in scored]
    assert scores == sorted(scores, reverse=metric in ("cosine", "correlation"))


def test_the_default_size_is_that_of_the_course(small_library, tmp_path):
    shutil.copy(next(small_library.rglob("*.webp")), tmp_path / "one.webp")
    query, scored = imgret.get_l1_score(tmp_path, tmp_path / "one.webp")
    assert query.shape == (448, 448, 3)
    assert scored == [(str(tmp_path / "one.webp"), 0.0)]


def test_a_file_that_is_no_picture_is_left_out_and_no_picture_at_all_is_an_error(small_library, tmp_path):
    folder = shutil.copytree(small_library, tmp_path / "library")
    (folder / "birds" / "broken.jpg").write_bytes(b"no")
    assert len(imgret.get_l2_score(folder, QUERIES / "dog.webp", size=(8, 8))[1]) == 40
    with pytest.raises(LibraryError, match="no pictures"):
        imgret.get_l2_score(tmp_path / "nowhere", QUERIES / "dog.webp")
    with pytest.raises(ImageError):
        imgret.get_l2_score(folder, folder / "birds" / "broken.jpg")


def test_a_single_embedding_is_that_of_the_encoder(retriever, monkeypatch, cache):
    monkeypatch.setenv("IMGRET_CACHE", str(cache))
    picture = imgret.load_image(QUERIES / "dog.webp")
    embedding = imgret.get_single_image_embedding(np.asarray(picture))
    assert embedding.shape == (retriever.encoder.dim,)
    np.testing.assert_allclose(embedding, retriever.encoder.embed_images([picture])[0], atol=1e-6)
