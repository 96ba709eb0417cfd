"""Errors: a user's are sentences in both languages, and a bug is logged, numbered and never taken for one of theirs."""

import ast
import pickle
import re
import subprocess
import sys

import pytest
from gradio_client import Client, handle_file

from imgret.encoders import EncoderError
from imgret.errors import ImgretError, Sentence
from imgret.search import SearchError
from imgret.vietnamese import VIETNAMESE, translated
from tests.conftest import QUERIES, ROOT, serving
from tests.sentences import fields, made_sentences, template_of, templates

TIGER = QUERIES / "tiger.webp"
BUGS = """
import numpy as np
import imgret.explain, imgret.pixels.exact, imgret.ui.endpoints, imgret.vectors.store

def broken(*_, **__):
    return np.zeros(2) + np.zeros(3)  # numpy's own ValueError

imgret.pixels.exact.PixelIndex.nearest = broken
imgret.vectors.store.VectorStore.query = broken
"""
IN_A_HANDLER = BUGS + "imgret.ui.endpoints.Endpoints.by_all = broken\n"


def test_every_error_gives_its_template_and_not_a_finished_text():
    finished = [where for where, call in made_sentences() if isinstance(template_of(call), ast.JoinedStr)]
    assert finished == []


def test_every_sentence_has_its_vietnamese_with_the_same_values():
    used = templates()
    assert len(used) > 100
    assert [f"{where}: {template}" for template, where in used.items() if template not in VIETNAMESE] == []
    assert [template for template in VIETNAMESE if template not in used] == []
    for template, vietnamese in VIETNAMESE.items():
        assert fields(vietnamese) <= fields(template), template


def test_a_sentence_is_translated_with_the_sentences_in_it():
    inner = SearchError("k is {k}; it must be a whole number of at least 1.", k=0)
    outer = Sentence("This is all of the library that could be indexed. {error}", error=inner)
    assert outer == f"This is all of the library that could be indexed. {inner}"
    told = translated(outer, "vi")
    assert "k phải là số nguyên" in told
    assert "indexed" not in told
    assert translated(outer, "en") == outer
    assert translated(Sentence.joined(None, inner.sentence, ""), "vi") == translated(inner.sentence, "vi")


@pytest.mark.parametrize(
    "error",
    [
        ImgretError("A text {with} braces as it is."),
        SearchError("k is {k}.", k="{a brace}"),
        EncoderError("org/a", "there is no folder {folder!r}", folder="x"),
        EncoderError("org/a", "it broke ({error})", error=OSError(2, "gone")),
    ],
)
def test_an_error_is_the_same_in_another_process(error):
    there = pickle.loads(pickle.dumps(error))
    assert (type(there), str(there), there.sentence.template) == (type(error), str(error), error.sentence.template)
    assert there.sentence.values == error.sentence.values


def imgret(planted, *arguments):
    door = f"import sys\n{planted}\nfrom imgret.cli import main\nsys.exit(main())"
    command = [sys.executable, "-c", door, *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("query", [["--image", TIGER], ["--text", "a tiger"]], ids=["kernel", "store"])
def test_a_bug_ends_a_command_with_code_1_its_traceback_and_a_number(query, index_folder, cache, monkeypatch):
    monkeypatch.setenv("IMGRET_CACHE", str(cache))
    done = imgret(BUGS, "search", index_folder, *query)
    assert (done.returncode, done.stdout) == (1, "")
    assert "ValueError: operands could not be broadcast" in done.stderr
    assert "in broken" in done.stderr
    last = done.stderr.strip().splitlines()[-1]
    (number,) = re.findall(r"could not be answered, number (\w{12})", last)
    assert f"bug {number}" in done.stderr


def test_a_bug_in_a_handler_the_kernel_or_the_store_is_logged_and_answered_with_its_number(
    index_folder, cache, tmp_path
):
    with serving(index_folder, cache, tmp_path, planted=IN_A_HANDLER) as served:
        client = Client(served.address, verbose=False)
        asked = [
            ("/search_pixels", {"image": handle_file(str(TIGER))}),
            ("/search_clip", {"text": "a secret tiger"}),
            ("/compare", {"image": handle_file(str(TIGER))}),
        ]
        for endpoint, arguments in asked:
            with pytest.raises(Exception, match="could not be answered, number") as told:
                client.predict(**arguments, api_name=endpoint)
            (number,) = re.findall(r"number (\w{12})", str(told.value))
            logged = served.log.read_text().partition(f"request {number}: ValueError")[2]
            assert "in broken" in logged.partition("request")[0]
            assert f'"request": "{number}"' in logged
            assert '"outcome": "failed: ValueError"' in logged
        assert "secret" not in served.log.read_text()
        with pytest.raises(Exception, match="k is 0"):
            client.predict(handle_file(str(TIGER)), k=0, api_name="/search_pixels")
        assert '"outcome": "refused: SearchError"' in served.log.read_text()
