"""The course's own functions give what its formulas give on a folder of pictures, on pixels and on embeddings."""

import math
import shutil
import subprocess
import sys

import chromadb
import matplotlib
import numpy as np
import pytest
from PIL import Image

import imgret
from imgret import ImageError, ImgretError, LibraryError, course
from imgret.metrics import METRICS, best_first
from tests.conftest import QUERIES, ROOT

FUNCTIONS = {
    "l1": imgret.get_l1_score,
    "l2": imgret.get_l2_score,
    "cosine": imgret.get_cosine_similarity_score,
    "correlation": imgret.get_correlation_coefficient_score,
}
LARGEST_FIRST = ("cosine", "correlation")


def l1(a, b):
    return sum(abs(x - y) for x, y in zip(a, b, strict=True))


def l2(a, b):
    return math.sqrt(sum((x - y) ** 2 for x, y in zip(a, b, strict=True)))


def cosine(a, b):
    above = sum(x * y for x, y in zip(a, b, strict=True))
    return above / (math.sqrt(sum(x**2 for x in a)) * math.sqrt(sum(y**2 for y in b)))


def correlation(a, b):
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    above = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    return above / math.sqrt(sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b))


FORMULAS = {"l1": l1, "l2": l2, "cosine": cosine, "correlation": correlation}
"""Sections 3.1.1 to 3.1.4 of the course, written out over lists of numbers."""


def resized(path, size):
    return np.asarray(Image.open(path).convert("RGB").resize(size, Image.Resampling.BICUBIC))


@pytest.fixture
def starter(cache, monkeypatch):
    """The encoder from the tests' own cache."""
    monkeypatch.setenv("IMGRET_CACHE", str(cache))


@pytest.fixture
def drawn(monkeypatch):
    """Draws without a screen; gives the titles and the pictures of the axes of a plot."""
    monkeypatch.setattr(matplotlib, "rcParams", matplotlib.rcParams.copy())
    from matplotlib import pyplot

    pyplot.switch_backend("agg")
    monkeypatch.setattr(pyplot, "show", lambda: None)
    yield lambda: [
        (axes.get_title(), axes.images[0].get_array() if axes.images else None) for axes in pyplot.gcf().axes
    ]
    pyplot.close("all")


@pytest.mark.parametrize("metric", METRICS)
def test_scores_are_the_formula_on_resized_pictures_best_first(metric, small_library):
    query, scored = FUNCTIONS[metric](str(small_library), str(QUERIES / "dog.webp"), size=(12, 8))
    assert query.shape == (8, 12, 3)
    assert query.dtype == np.uint8
    paths = sorted(str(path) for path in small_library.rglob("*.webp"))
    assert sorted(path for path, _ in scored) == paths
    for path, score in scored:
        picture = resized(path, (12, 8)).ravel().tolist()
        assert score == pytest.approx(FORMULAS[metric](query.ravel().tolist(), picture), rel=1e-12, abs=1e-12)
    scores = [score for _, score in scored]
    assert scores == sorted(scores, reverse=metric in LARGEST_FIRST)


@pytest.mark.parametrize("metric", METRICS)
def test_with_an_embedding_the_same_formula_compares_vectors(metric, small_library, starter):
    folder, size = small_library / "birds", (64, 64)
    asked = course.get_single_image_embedding(resized(QUERIES / "tucan.webp", size)).tolist()
    by_name = FUNCTIONS[metric](folder, QUERIES / "tucan.webp", size, embedding=course.get_single_image_embedding)
    assert len(by_name[1]) == 10
    for path, score in by_name[1]:
        vector = course.get_single_image_embedding(resized(path, size)).tolist()
        assert score == pytest.approx(FORMULAS[metric](asked, vector), rel=1e-9, abs=1e-12)
    assert FUNCTIONS[metric](folder, QUERIES / "tucan.webp", size, embedding=True)[1] == by_name[1]


def test_an_embedding_may_be_any_function_of_a_picture(small_library):
    def colours(picture):
        return picture.reshape(-1, 3).mean(axis=0)

    query, scored = course.get_l1_score(small_library, QUERIES / "dog.webp", (8, 8), embedding=colours)
    assert query.shape == (8, 8, 3)  # the picture stays what is shown
    for path, score in scored:
        assert score == pytest.approx(l1(colours(query), colours(resized(path, (8, 8)))))
    with pytest.raises(ImgretError, match="'clip'; it must be True, or a function"):
        course.get_l1_score(small_library, QUERIES / "dog.webp", (8, 8), embedding="clip")
    with pytest.raises(ImgretError, match="all must have one shape"):
        course.get_l1_score(small_library, QUERIES / "dog.webp", (8, 8), embedding=lambda p: np.zeros(1 + p.sum() % 2))


def test_the_default_size_is_that_of_the_course(small_library, tmp_path):
    shutil.copy(next(small_library.rglob("*.webp")), tmp_path / "one.webp")
    query, scored = imgret.get_l1_score(tmp_path, tmp_path / "one.webp")
    assert query.shape == (448, 448, 3)
    assert scored == [(str(tmp_path / "one.webp"), 0.0)]
    assert course.folder_to_images(tmp_path)[0].shape == (1, 448, 448, 3)


def test_a_file_that_is_no_picture_is_left_out_and_no_picture_at_all_is_an_error(small_library, tmp_path):
    folder = shutil.copytree(small_library, tmp_path / "library")
    (folder / "birds" / "broken.jpg").write_bytes(b"no")
    assert len(imgret.get_l2_score(folder, QUERIES / "dog.webp", size=(8, 8))[1]) == 40
    with pytest.raises(LibraryError, match="no pictures"):
        imgret.get_l2_score(tmp_path / "nowhere", QUERIES / "dog.webp")
    with pytest.raises(ImageError):
        imgret.get_l2_score(folder, folder / "birds" / "broken.jpg")
    (tmp_path / "only").mkdir()
    shutil.move(folder / "birds" / "broken.jpg", tmp_path / "only")
    for wanting in (course.folder_to_images, lambda folder: course.get_l1_score(folder, QUERIES / "dog.webp")):
        with pytest.raises(LibraryError, match="no pictures"):
            wanting(tmp_path / "only")


def test_a_class_folder_is_read_as_arrays_and_paths(small_library):
    images, paths = course.folder_to_images(str(small_library / "birds"), (20, 10))
    assert images.shape == (10, 10, 20, 3)
    assert images.dtype == np.uint8
    assert paths.tolist() == sorted(str(path) for path in (small_library / "birds").iterdir())
    for image, path in zip(images, paths, strict=True):
        assert np.array_equal(image, resized(path, (20, 10)))
        assert np.array_equal(image, course.read_image_from_path(path, (20, 10)))


def test_the_files_of_a_folder_are_those_of_all_its_class_folders(small_library, tmp_path):
    assert course.get_files_path(str(small_library)) == sorted(str(path) for path in small_library.rglob("*.webp"))
    with pytest.raises(LibraryError, match="no pictures"):
        course.get_files_path(tmp_path)


def test_a_single_embedding_is_that_of_the_encoder(retriever, starter):
    picture = imgret.load_image(QUERIES / "dog.webp")
    embedding = imgret.get_single_image_embedding(np.asarray(picture))
    assert embedding.shape == (retriever.encoder.dim,)
    np.testing.assert_allclose(embedding, retriever.encoder.embed_images([picture])[0], atol=1e-6)


def test_on_unit_vectors_l2_and_cosine_rank_alike_and_l1_does_not(retriever):
    vectors = retriever.index.embeddings
    tops = {
        metric: [best_first(METRICS[metric](vector, vectors), metric)[:10].tolist() for vector in vectors[::20]]
        for metric in ("l1", "l2", "cosine")
    }
    assert tops["l2"] == tops["cosine"]
    alike = [one == other for one, other in zip(tops["l1"], tops["cosine"], strict=True)]
    assert sum(alike) < len(alike) / 2


@pytest.fixture
def collections(small_library, starter):
    """The course's two collections over the pictures, and the pictures."""
    client, files = chromadb.EphemeralClient(), course.get_files_path(small_library)
    made = {}
    for space in ("l2", "cosine"):
        name, metadata = f"{space}_collection", {"hnsw:space": space}
        made[space] = client.get_or_create_collection(name, metadata=metadata, embedding_function=None)
        course.add_embedding(made[space], files)
    yield files, made
    for collection in made.values():
        client.delete_collection(collection.name)


def test_the_two_collections_of_the_course_differ_by_the_distance_alone(collections):
    files, made = collections
    asked = course.get_single_image_embedding(QUERIES / "tucan.webp").tolist()
    cosines = [cosine(asked, course.get_single_image_embedding(file).tolist()) for file in files]
    best = sorted(range(len(files)), key=lambda number: -cosines[number])[:5]
    found = {space: course.search(QUERIES / "tucan.webp", collection, 5) for space, collection in made.items()}
    for results in found.values():
        assert results["ids"] == [[f"id_{number}" for number in best]]
    assert found["cosine"]["distances"][0] == pytest.approx([1 - cosines[number] for number in best], abs=1e-5)
    assert found["l2"]["distances"][0] == pytest.approx([2 - 2 * cosines[number] for number in best], abs=1e-5)


def test_adding_again_changes_nothing_and_more_files_than_a_block_are_all_there(collections, small_library):
    files, made = collections
    course.add_embedding(made["l2"], files)
    assert made["l2"].count() == 40
    course.add_embedding(made["l2"], [files[0]] * 30 + files)
    assert made["l2"].count() == 70
    assert course.search(files[39], made["l2"], 1)["ids"] == [["id_69"]]
    (first,) = made["l2"].get(ids=["id_5"], include=["embeddings"])["embeddings"]
    assert first == pytest.approx(course.get_single_image_embedding(files[0]), abs=1e-6)  # the new one took its place
    with pytest.raises(ImageError):
        course.add_embedding(made["l2"], [ROOT / "README.md"])


@pytest.mark.parametrize("metric", METRICS)
def test_a_plot_shows_the_query_and_the_five_best_with_their_classes(metric, small_library, drawn):
    query, scored = FUNCTIONS[metric](small_library, QUERIES / "dog.webp", (8, 8))
    shuffled = [scored[row] for row in np.random.default_rng(0).permutation(len(scored))]
    course.plot_results(QUERIES / "dog.webp", shuffled, metric in LARGEST_FIRST)
    titles, pictures = zip(*drawn(), strict=True)
    folders = [path.replace("\\", "/").split("/")[-2] for path, _ in scored[:5]]
    assert list(titles) == ["Query: queries", *(f"Top {rank}: {label}" for rank, label in enumerate(folders, 1))]
    assert np.array_equal(pictures[0], course.read_image_from_path(QUERIES / "dog.webp"))
    for (path, _), picture in zip(scored, pictures[1:], strict=False):
        assert np.array_equal(picture, course.read_image_from_path(path))
    course.plot_results(query=query, ls_path_score=scored[:2], reverse=metric in LARGEST_FIRST)
    assert [title for title, _ in drawn()][:4] == ["Query", f"Top 1: {folders[0]}", f"Top 2: {folders[1]}", ""]


def test_a_plot_of_a_collection_calls_the_best_hit_the_first(collections, small_library, drawn):
    files, made = collections
    results = course.search(files[3], made["cosine"], 5)
    course.plot_results(files[3], files, results)
    (query, _), (best, picture), *_ = drawn()
    assert query == "Query: birds"
    assert best == "Top 1: birds"
    assert np.array_equal(picture, course.read_image_from_path(files[3]))
    assert len(drawn()) == 6
    course.plot_results(image_path=files[3], files_path=files, results=results)
    assert [title for title, _ in drawn()][1] == best
    with pytest.raises(ImgretError, match="none of the 2 files"):
        course.plot_results(files[3], files[:2], results)


def test_without_matplotlib_a_plot_says_how_to_get_it_and_all_else_works(small_library):
    code = (
        "import sys; sys.modules['matplotlib'] = None\n"
        "from imgret import ImgretError, course\n"
        "query, scored = course.get_l1_score(sys.argv[1], sys.argv[2], (8, 8))\n"
        "try: course.plot_results(query, scored, False)\n"
        "except ImgretError as error: print(error)"
    )
    command = [sys.executable, "-c", code, str(small_library), str(QUERIES / "dog.webp")]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert "pip install 'imgret[course]'" in printed
