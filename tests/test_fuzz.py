"""Whatever is given to a public function, it answers or says why not in one of our errors; a minute of it is fuzzed."""

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from imgret import Hit, ImageError, SearchError, load_image
from imgret.encoders import EncoderError
from imgret.metrics import METRICS
from imgret.pixels import PixelIndex
from tests import corpus
from tests.conftest import QUERIES, ROOT

TIGER = QUERIES / "tiger.webp"
quickly = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
texts = st.text(st.characters(), max_size=60) | st.text(st.sampled_from("\0\u202e\u200f\ud800a\n\t\u0301"), max_size=20)
anything = (
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.binary(max_size=60)
    | st.lists(st.integers() | texts, max_size=4) | st.dictionaries(texts, st.integers(), max_size=2)
    | st.just(10**4000) | st.complex_numbers() | st.fractions() | st.decimals()
    | arrays.arrays(arrays.scalar_dtypes(), arrays.array_shapes(min_dims=0, max_dims=4, max_side=5))
)  # fmt: skip


def said(error):
    """An error is one sentence that a visitor can read."""
    assert "\n" not in str(error)
    assert len(str(error)) < 1500


@quickly
@given(anything | st.binary(max_size=2000))
@example(np.zeros((3, 3), object))
@example(memoryview(b"a"))
@example(np.full((2, 2), np.nan))
@example("a" * 10**6)
@example("\ud800.png")
def test_what_claims_to_be_a_picture_is_one_or_is_refused(source):
    try:
        image = load_image(source)
    except ImageError as error:
        said(error)
    else:
        assert image.mode == "RGB"


@quickly
@given(st.sampled_from(sorted(METRICS)), anything, anything)
def test_a_metric_gives_scores_or_a_value_error(metric, query, data):
    try:
        scores = METRICS[metric](query, data)
    except ValueError:
        return
    assert scores.shape == (len(data),)
    assert scores.dtype == np.float64


@pytest.fixture(scope="module")
def pixel_indexes():
    """One that numpy reads, and one that compiled code does."""
    return [PixelIndex.fit(np.random.default_rng(0).integers(0, 256, (rows, 12), np.uint8)) for rows in (40, 700)]


@quickly
@given(anything, st.sampled_from(sorted(METRICS)) | anything, anything, st.booleans(), st.sampled_from((0, 1)))
def test_a_pixel_index_answers_or_raises_a_value_error(pixel_indexes, query, metric, k, many, size):
    index = pixel_indexes[size]
    try:
        rows, scores = (index.search_many if many else index.search)(query, metric, k)
    except ValueError:
        return
    assert rows.shape == scores.shape


def answered(ask):
    try:
        hits = ask()
    except (SearchError, ImageError, EncoderError) as error:
        said(error)
        return
    assert all(isinstance(hit, Hit) for hit in hits)
    assert [hit.rank for hit in hits] == list(range(1, len(hits) + 1))


@quickly
@given(st.just(TIGER) | anything, st.sampled_from(sorted(METRICS)) | anything, st.integers(1, 9) | anything, anything)
@example(TIGER, "l2", 10**4000, None)
@example(TIGER, "l2" * 10**6, 3, None)
def test_by_pixels_answers_or_says_why_not(retriever, image, metric, k, like):
    answered(lambda: retriever.by_pixels(image, metric, k))
    answered(lambda: retriever.by_pixels(TIGER, k=1, like=like))


@quickly
@given(texts | anything, texts | anything, st.floats(0, 1) | anything, anything, st.integers(1, 9) | anything)
@example("a" * 10**6, None, 0.5, None, 3)
@example("\ud800", None, 0.5, None, 3)
@example("a bird", None, float("nan"), None, 3)
@example("a bird", None, 10**400, None, 3)
@example("a bird", None, 0.5, [f"label {n}" for n in range(10_000)], 3)
@example("a bird", None, 0.5, ["animals/birds"] * 10_000, 3)
def test_by_clip_answers_or_says_why_not(retriever, text, negative, weight, labels, k):
    answered(lambda: retriever.by_clip(text=text, negative=negative, text_weight=weight, labels=labels, k=k))


@quickly
@given(anything)
@example("a" * 10**6)
@example(["a"])
def test_a_thumbnail_is_webp_or_the_id_is_refused(retriever, id):
    try:
        assert retriever.thumbnail(id)[:4] == b"RIFF"
    except SearchError as error:
        said(error)


@settings(quickly, max_examples=15)
@given(st.sampled_from(["png-rgb", "jpeg-rgb", "gif-frames", "tiff-tiff_lzw", "webp-alpha", "bmp-palette"]), st.data())
def test_a_file_with_a_piece_of_another_is_a_picture_or_is_refused(name, data):
    seeds = corpus.seeds()
    whole, other = seeds[name](), seeds["png-interlaced-text"]()
    cut, at = data.draw(st.integers(0, len(whole))), data.draw(st.integers(0, len(other)))
    assert corpus.take(whole[:cut] + other[at : at + 50] + whole[cut:])[0] in ("picture", "refused")


@pytest.mark.parametrize("target", ["pictures", "manifests"])
def test_a_few_seconds_of_fuzzing_find_nothing(target, tmp_path, cache):
    command = [sys.executable, "-m", "tests.fuzz", "--only", target, "--minutes", "0.1", "--found", str(tmp_path / "f")]
    environment = os.environ | {"IMGRET_CACHE": str(cache)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr[-3000:]
