"""Every command answers, or ends with exit code 2 and one line."""

import csv
import io
import itertools
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import warnings

import pytest
from PIL import Image

from imgret import Index, Retriever, SearchWarning, load_image
from imgret.cli import main
from tests.conftest import QUERIES, ROOT

TIGER = str(QUERIES / "tiger.webp")


def refused(result, says):
    assert result.returncode == 2, result
    assert result.stdout == ""
    (line,) = result.stderr.strip().splitlines()
    assert re.search(says, line), line
    return True


def test_course_layout_is_built_searched_and_evaluated(imgret_process, small_library, tmp_path):
    shutil.copytree(small_library, tmp_path / "data" / "train")
    built = imgret_process("build", tmp_path / "data" / "train", "--out", tmp_path / "index", "--pixel-size", 32)
    assert built.returncode == 0, built.stderr
    assert "40 pictures, 4 labels, 0 skipped; encoder starter" in built.stdout
    bird = next((tmp_path / "data" / "train" / "birds").iterdir())
    found = json.loads(imgret_process("search", tmp_path / "index", "--image", bird, "-k", 2, "--json").stdout)
    assert 0 < found["hits"][0].pop("p") <= 1
    assert found["hits"][0] == {
        "rank": 1, "id": f"birds/{bird.name}", "label": "birds", "labels": ["birds"], "caption": None, "score": 0.0,
    }  # fmt: skip
    figures = json.loads(imgret_process("evaluate", tmp_path / "index", "--json").stdout)
    assert figures["queries"] == 40
    assert set(figures["by_label"]) == {"birds", "fruit", "insects", "vehicles"}
    assert figures["captions"] is None
    assert 0.25 < figures["methods"]["clip"]["precision@1"] <= 1


@pytest.mark.parametrize("metric", ["l1", "l2", "cosine", "correlation", "clip"])
def test_search_prints_the_hits_of_the_retriever(imgret, index_folder, retriever, metric):
    expected = retriever.by_clip(image=TIGER, k=4) if metric == "clip" else retriever.by_pixels(TIGER, metric, 4)
    answer = imgret("search", index_folder, "--image", TIGER, "--metric", metric, "-k", 4, "--json")
    hits = json.loads(answer.stdout)["hits"]
    assert [hit["id"] for hit in hits] == [hit.id for hit in expected]
    assert [hit["score"] for hit in hits] == pytest.approx([hit.score for hit in expected], abs=1e-6)
    table = imgret("search", index_folder, "--image", TIGER, "--metric", metric, "-k", 4).stdout
    assert [line.split()[2] for line in table.splitlines()] == [hit.id for hit in expected]


def test_a_text_is_searched_by_clip(imgret_process, index_folder, retriever: Retriever):
    answer = json.loads(imgret_process("search", index_folder, "--text", "a red flower", "-k", 3, "--json").stdout)
    assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in retriever.by_clip(text="a red flower", k=3)]


def printed_by(capsys, *arguments):
    assert main(list(map(str, arguments))) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("pictured", [{}, {"image": TIGER}, {"like": "animals/birds/ostrich.webp"}], ids=str)
def test_search_asks_whatever_by_clip_can(index_folder, retriever, cache, capsys, monkeypatch, pictured):
    monkeypatch.setenv("IMGRET_CACHE", str(cache))
    monkeypatch.setattr("imgret.search.Retriever", lambda index: retriever)  # 180 times the same towers
    options = {
        "text": "--text",
        "negative": "--not",
        "text_weight": "--weight",
        "image": "--image",
        "like": "--like",
        "offset": "--offset",
    }
    dog, fish = str(QUERIES / "dog.webp"), str(QUERIES / "butterflyfish.webp")
    lists = {
        "labels": "--label",
        "images": "--also",
        "negative_images": "--not-image",
        "likes": "--also-like",
        "dislikes": "--unlike",
    }
    known = [retriever.index.record(row).id for row in (3, 40)]
    for parts in itertools.product(
        ({}, {"text": "a bird"}),
        ({}, {"negative": "a tree"}),
        ({}, {"text_weight": 0.2}),
        ({}, {"labels": ["animals/birds", "food/fruit"]}),
        ({}, {"images": [dog, fish], "likes": known[:1]}),
        ({}, {"negative_images": [fish], "dislikes": known[1:], "offset": 2}),
    ):
        query = dict(pictured)
        for part in parts:
            query |= part
        if not (pictured or query.keys() & {"text", "images", "likes"}):
            continue
        command = ["search", index_folder, "--metric", "clip", "-k", 4, "--json"]
        for name, option in options.items():
            command += [option, query[name]] if name in query else []
        for name, option in lists.items():
            for value in query.get(name, ()):
                command += [option, value]
        answer = json.loads(printed_by(capsys, *command))
        assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in retriever.by_clip(**query, k=4)], query


def test_a_part_of_a_picture_many_pictures_and_a_grid_of_hits(
    index_folder, retriever, cache, capsys, monkeypatch, tmp_path
):
    monkeypatch.setenv("IMGRET_CACHE", str(cache))
    search = ("search", index_folder, "-k", 7)
    half = load_image(TIGER)
    half = half.crop((0, 0, half.width // 2, half.height))
    part = ("--image", TIGER, "--part", "0,0,0.5,1")
    printed = printed_by(capsys, *search, *part, "--csv", "--save", tmp_path / "a.png")
    rows = list(csv.DictReader(io.StringIO(printed)))
    expected = retriever.by_pixels(half, k=7)
    assert [(row["id"], float(row["score"])) for row in rows] == [(hit.id, hit.score) for hit in expected]
    with Image.open(tmp_path / "a.png") as grid:
        assert grid.size == (5 * 200, 2 * 222)
        corner = grid.crop((4, 4, 196, 196)).convert("L")
        assert corner.getextrema()[0] < 255  # the first hit is painted

    rows = list(csv.DictReader(io.StringIO(printed_by(capsys, *search, "--images", QUERIES, "--csv"))))
    answers = json.loads(printed_by(capsys, *search, "--images", QUERIES, "--json"))["queries"]
    assert [row["query"] for row in rows[::7]] == [str(path) for path in sorted(QUERIES.glob("*.webp"))]
    assert [answer["query"] for answer in answers] == [row["query"] for row in rows[::7]]
    for answer in answers:
        assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in retriever.by_pixels(answer["query"], k=7)]


def test_info_says_what_the_manifest_says(imgret, index_folder):
    manifest = json.loads((index_folder / "manifest.json").read_text())
    assert json.loads(imgret("info", index_folder, "--json").stdout)["count"] == manifest["count"]
    said = imgret("info", index_folder).stdout
    for part in (
        "545, 0 skipped",
        "animals/mammals 68",
        "and 50 more",
        manifest["encoder"]["uri"],
        "64 x 64",
        *manifest["description"],
        *(f"{audit['recall']:.4f} of {audit['k']} in {audit['rows']} rows" for audit in manifest["filtered"].values()),
    ):
        assert part in said
    assert refused(imgret("info", index_folder / "nowhere"), "holds no finished index")


def test_the_cache_is_listed_and_cleared(tmp_path, imgret):
    kept = tmp_path / "cache" / "indexes" / "a"
    kept.mkdir(parents=True)
    (kept / "file").write_bytes(b"x" * 2_000_000)
    (kept / "link").symlink_to(ROOT)
    told = imgret("cache", IMGRET_CACHE=str(tmp_path / "cache")).stdout
    assert told.split() == ["2.0", "MB", "indexes", "2.0", "MB", "in", str(tmp_path / "cache")]
    assert "cleared" in imgret("cache", "--clear", IMGRET_CACHE=str(tmp_path / "cache")).stdout
    assert list((tmp_path / "cache").iterdir()) == []
    assert (ROOT / "README.md").exists()
    assert "0.0 MB" in imgret("cache", IMGRET_CACHE=str(tmp_path / "nothing")).stdout


def test_search_and_evaluate_take_the_metrics_on_embeddings(imgret, index_folder, retriever):
    hits = json.loads(imgret("search", index_folder, "--image", TIGER, "--metric", "clip-l1", "--json").stdout)["hits"]
    assert [hit["id"] for hit in hits] == [hit.id for hit in retriever.by_embedding(TIGER, "l1")]
    asked = imgret("evaluate", index_folder, "--queries", 20, "--method", "clip", "--method", "clip-correlation")
    assert [line.split()[0] for line in asked.stdout.splitlines()[2:4]] == ["clip", "clip-correlation"]
    assert refused(imgret("evaluate", index_folder, "--method", "l3"), "no method l3")
    asked = imgret(
        "search", index_folder, "--text", "a bird", "--metric", "clip-l1", "--label", "animals/birds", "--json"
    )
    expected = retriever.find_by_clip(text="a bird", labels=["animals/birds"], metric="l1").hits
    assert [hit["id"] for hit in json.loads(asked.stdout)["hits"]] == [hit.id for hit in expected]
    assert refused(imgret("search", index_folder, "--text", "x", "--metric", "l2"), "needs --image or --like")


def test_evaluate_prints_a_row_a_method_and_the_captions(imgret, index_folder):
    printed = imgret("evaluate", index_folder, "--queries", 20).stdout
    assert [line.split()[0] for line in printed.splitlines()[2:7]] == ["l1", "l2", "cosine", "correlation", "clip"]
    assert "caption to picture: recall@1" in printed


def test_errors_end_in_one_line_and_exit_code_2(imgret, index_folder, tmp_path):
    (tmp_path / "no.jpg").write_text("<html>")
    search = ("search", index_folder)
    assert refused(imgret(*search), "nothing to search for")
    assert refused(imgret(*search, "--image", tmp_path / "no.jpg"), "not a picture")
    assert refused(imgret(*search, "--image", tmp_path / "gone.jpg"), "no picture file at")
    assert refused(imgret(*search, "--image", TIGER, "-k", 0), "whole number of at least 1")
    assert refused(imgret(*search, "--image", TIGER, "-k", 1.5), "invalid int value")
    assert refused(imgret(*search, "--image", TIGER, "--metric", "l3"), "invalid choice")
    assert refused(imgret(*search, "--text", ""), "text is empty")
    assert refused(imgret(*search, "--text", "a cat", "--metric", "l1"), "needs --image")
    assert refused(imgret(*search, "--image", TIGER, "--label", "food", "--metric", "l1"), "pictures alone")
    assert refused(imgret(*search, "--text", "x", "--part", "0,0,1,1"), "needs --image")
    assert refused(imgret(*search, "--images", QUERIES, "--save", "x.webp"), "goes without")
    assert refused(imgret(*search, "--images", tmp_path / "nowhere"), "no pictures in")
    assert refused(imgret(*search, "--image", TIGER, "--save", tmp_path / "x.doc"), "name a .webp")
    assert imgret(*search, "--image", TIGER, "--save", tmp_path / "no" / "x.webp").returncode == 2
    assert refused(imgret(*search, "--text", "x", "--encoder", "ViT-B-32/random"), "built with the encoder starter")
    assert refused(imgret("search", tmp_path, "--text", "a cat"), "holds no finished index")
    assert refused(imgret("build", tmp_path, "--out", tmp_path / "index"), "no picture that can be used")
    (tmp_path / "empty").mkdir()
    assert refused(imgret("build", tmp_path / "empty", "--out", tmp_path / "index2"), "no pictures in")
    assert refused(imgret("serve", tmp_path / "empty"), "holds no finished index")
    assert refused(imgret("evaluate", index_folder, "--queries", 0), "at least 1")
    assert refused(imgret("evaluate", index_folder, IMGRET_PIXEL_SIZE="big"), "IMGRET_PIXEL_SIZE is 'big'")


def test_the_version_is_that_of_the_package(imgret_process):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert imgret_process("--version").stdout == f"imgret {project['version']}\n"


def test_an_encoder_that_cannot_be_loaded_names_itself_and_the_one_that_works(imgret, small_library, tmp_path):
    for uri in ("nonsense", f"local-dir:{tmp_path}"):
        result = imgret("build", small_library, "--out", tmp_path / "index", "--encoder", uri)
        assert refused(result, re.escape(uri) + ".*starter")


def test_a_build_says_first_what_it_took_and_left_out(imgret, small_library, tmp_path):
    folder = shutil.copytree(small_library, tmp_path / "library")
    (folder / "birds" / "empty.png").write_bytes(b"")
    (folder / "notes.docx").write_bytes(b"x")
    built = imgret("build", folder, "--out", tmp_path / "index", "--pixel-size", 16)
    taken, left_out, *_ = built.stdout.splitlines()
    assert taken == "pictures from all picture files of the folder; labels from the folders; no captions; no splits"
    assert left_out == "left out: 1 picture that cannot be read, 1 .docx"
    manifest = json.loads((tmp_path / "index" / "manifest.json").read_text())
    assert manifest["description"] == [taken, left_out]


def test_notices_reach_the_command_line(imgret_process, index_folder):
    for text, says in [("тигр", "reads English and Vietnamese only"), ("word " * 200, "cut after 126 tokens")]:
        found = imgret_process("search", index_folder, "--text", text, "-k", 1, "--json")
        assert len(json.loads(found.stdout)["hits"]) == 1
        assert re.search(says, found.stderr)
        assert len(found.stderr.splitlines()) == 1
    assert "so k is" in imgret_process("search", index_folder, "--image", TIGER, "-k", 10**6).stderr
    assert imgret_process("search", index_folder, "--text", "a tiger", "-k", 1).stderr == ""


def test_only_a_number_of_hits_that_was_asked_for_is_told_to_be_cut(imgret, small_library, tmp_path, cache):
    imgret("build", small_library / "birds", "--out", tmp_path / "index", "--limit", 5, "--pixel-size", 16)
    for query in (["--image", TIGER], ["--text", "a bird"]):
        found = imgret("search", tmp_path / "index", *query)
        assert (len(found.stdout.splitlines()), found.stderr) == (5, "")
        assert "so k is 5" in imgret("search", tmp_path / "index", *query, "-k", 10).stderr
    few = Retriever(Index.open(tmp_path / "index"), cache=cache)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(few.by_pixels(TIGER)) == len(few.by_clip(text="a tiger")) == 5  # nobody asked for ten
    with pytest.warns(SearchWarning, match="so k is 5"):
        few.by_pixels(TIGER, k=10)
    few.index.close()


@pytest.mark.parametrize("address", ["https://example.com/a.jpg", "file:///pictures/a.jpg", "data:image/png;base64,AA"])
def test_an_address_is_no_picture(imgret, index_folder, address):
    assert refused(imgret("search", index_folder, "--image", address), "is an address, and only files are read")


def test_a_line_break_in_a_name_keeps_the_table_in_its_lines(imgret, small_library, tmp_path):
    picture = next(small_library.rglob("*.webp"))
    (tmp_path / "library" / "a\nb").mkdir(parents=True)
    shutil.copy(picture, tmp_path / "library" / "a\nb" / "c.webp")
    imgret("build", tmp_path / "library", "--out", tmp_path / "index", "--pixel-size", 16)
    (line,) = imgret("search", tmp_path / "index", "--image", picture).stdout.splitlines()
    assert "a\\nb/c.webp" in line


@pytest.mark.skipif(not shutil.which("setpriv") or os.name != "posix", reason="needs setpriv")
def test_a_home_that_cannot_be_written_is_no_error(index_folder, tmp_path):
    if os.getuid() != 0:
        pytest.skip("only root can become nobody")
    index = shutil.copytree(index_folder, tmp_path / "index")
    for path in [tmp_path, *tmp_path.parents]:
        if not os.access(path, os.X_OK) or not path.stat().st_mode & 0o005:
            path.chmod(path.stat().st_mode | 0o055)
    names = {name: value for name, value in os.environ.items() if name != "IMGRET_CACHE"} | {"HOME": "/nonexistent"}
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", sys.executable, "-m", "imgret.cli"]
    command += ["search", str(index), "--text", "a tiger", "-k", "1"]
    run = subprocess.run(command, env=names, capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert run.returncode == 0, run.stderr
    assert "tiger" in run.stdout
    names["IMGRET_CACHE"] = "/nonexistent/cache"
    refused(subprocess.run(command, env=names, capture_output=True, text=True, timeout=120, cwd=ROOT), "IMGRET_CACHE")
