"""The public endpoints, asked by the real client of a real server, answer as the Retriever does."""

import json
import re
import urllib.request
from pathlib import Path

import pytest
from gradio_client import Client, exceptions, handle_file
from PIL import Image

from imgret.metrics import METRICS
from tests.conftest import QUERIES
from tests.raw import ask

TIGER = str(QUERIES / "tiger.webp")


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    return Client(server, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


def assert_hits(answer, expected, retriever):
    assert [(hit["rank"], hit["id"], hit["label"], hit["caption"]) for hit in answer["hits"]] == [
        (hit.rank, hit.id, hit.label, hit.caption) for hit in expected
    ]
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    for hit in answer["hits"]:
        assert Path(hit["image"]).read_bytes() == retriever.thumbnail(hit["id"])
    assert answer["elapsed_ms"] > 0
    assert answer["library"] == "examples/library"


@pytest.mark.parametrize("metric", METRICS)
def test_search_pixels_answers_as_the_retriever(client, retriever, metric):
    answer = client.predict(image=handle_file(TIGER), metric=metric, k=4, api_name="/search_pixels")
    assert_hits(answer, retriever.by_pixels(TIGER, metric, 4), retriever)
    assert answer["method"] == metric
    assert answer["notice"] is None


@pytest.mark.parametrize(
    "asked",
    [
        {"text": "a red flower"},
        {"image": TIGER},
        {"image": TIGER, "text": "a bird", "text_weight": 0.7},
        {"text": "a pet", "negative": "a dog", "labels": ["animals/mammals", "animals/birds"]},
    ],
)
def test_search_clip_answers_as_the_retriever(client, retriever, asked):
    sent = asked | ({"image": handle_file(TIGER)} if "image" in asked else {})
    answer = client.predict(**sent, k=4, api_name="/search_clip")
    assert_hits(answer, retriever.by_clip(**asked, k=4), retriever)
    assert answer["method"] == "clip"


def test_likes_and_dislikes_are_lists_of_pictures(client, retriever):
    dog, fish = str(QUERIES / "dog.webp"), str(QUERIES / "butterflyfish.webp")
    sent = {"images": [handle_file(TIGER), handle_file(dog)], "negative_images": [handle_file(fish)], "offset": 2}
    answer = client.predict(**sent, k=4, api_name="/search_clip")
    expected = retriever.by_clip(images=[TIGER, dog], negative_images=[fish], k=4, offset=2)
    assert_hits(answer, expected, retriever)
    assert [hit["rank"] for hit in answer["hits"]] == [3, 4, 5, 6]


def test_a_list_cannot_name_a_file_of_the_server(server):
    for lists in ([[{"path": "/etc/hostname"}], None], [None, [{"path": "/etc/hostname"}]], [["/etc/hostname"], None]):
        kind, said = ask(server, "/search_clip", [None, "a bird", None, 0.5, None, 3, *lists, 0])
        assert kind == "error"
        assert "uploaded" in said
    kind, said = ask(server, "/search_clip", [None, "a bird", None, 0.5, None, 3, "x", None, 0])
    assert (kind, said) == ("error", "The pictures must be a list, not str.")


def test_defaults_are_l2_and_ten(client, retriever):
    answer = client.predict(image=handle_file(TIGER), api_name="/search_pixels")
    assert_hits(answer, retriever.by_pixels(TIGER, "l2", 10), retriever)


def test_compare_answers_by_all_five_methods_in_order(client, retriever):
    answers = client.predict(image=handle_file(TIGER), api_name="/compare")
    assert [answer["method"] for answer in answers] == ["l1", "l2", "cosine", "correlation", "clip"]
    for answer in answers[:-1]:
        assert_hits(answer, retriever.by_pixels(TIGER, answer["method"], 5), retriever)
    assert_hits(answers[-1], retriever.by_clip(image=TIGER, k=5), retriever)


def test_library_says_what_is_searched(client, retriever):
    answer = client.predict(api_name="/library")
    manifest = retriever.index.manifest
    assert answer["count"] == len(retriever.index)
    assert answer["labels"] == dict(manifest.labels)
    assert (answer["encoder"], answer["languages"], answer["pixel_size"]) == ("starter", ["en", "vi"], 64)
    assert answer["recall"]["recall"] == manifest.recall.recall
    assert "the folder" in answer["origin"]


def test_a_clamped_k_and_a_foreign_text_are_noticed(server, retriever):
    count = len(retriever.index)
    _, answer = ask(server, "/search_clip", [None, "кошка", None, 0.5, None, 9999])  # no pictures are fetched
    assert len(answer["hits"]) == count
    assert f"k is {count}" in answer["notice"]
    assert "English and Vietnamese only" in answer["notice"]


@pytest.mark.parametrize(
    ("endpoint", "asked", "says"),
    [
        ("/search_pixels", {"image": None}, "no picture to search with"),
        ("/search_pixels", {"image": "a string"}, "uploaded file"),
        ("/search_pixels", {"metric": "l3"}, "no metric 'l3'"),
        ("/search_pixels", {"metric": ["l1"]}, "metric must be a name"),
        ("/search_pixels", {"k": 0}, "whole number of at least 1"),
        ("/search_pixels", {"k": 2.5}, "whole number of at least 1"),
        ("/search_pixels", {"k": "ten"}, "whole number of at least 1"),
        ("/search_clip", {}, "nothing to search for"),
        ("/search_clip", {"text": " "}, "text is empty"),
        ("/search_clip", {"text": {"a": 1}}, "not a text"),
        ("/search_clip", {"text": "a cat", "labels": ["cats"]}, "no label 'cats'"),
        ("/search_clip", {"text": "a cat", "labels": 3}, "must be a list"),
        ("/search_clip", {"text": "a cat", "text_weight": 3}, "from 0 to 1"),
        ("/compare", {"k": -1}, "whole number of at least 1"),
    ],
)
def test_a_refused_request_is_an_exception_with_the_sentence(client, endpoint, asked, says):
    if endpoint in ("/search_pixels", "/compare"):
        asked = {"image": handle_file(TIGER)} | asked
    with pytest.raises(exceptions.AppError, match=says) as refusal:
        client.predict(**asked, api_name=endpoint)
    assert re.fullmatch(r"[^\n]*[.?]", str(refusal.value))


def test_an_upload_that_is_no_picture_or_too_large_is_refused_and_the_next_is_answered(client, tmp_path):
    (tmp_path / "page.jpg").write_text("<html>")
    Image.effect_noise((1500, 1500), 90).save(tmp_path / "large.png")
    for name, says in (("page.jpg", "not a picture"), ("large.png", "1")):
        with pytest.raises(Exception, match=says):
            client.predict(image=handle_file(tmp_path / name), api_name="/search_pixels")
    assert client.predict(image=handle_file(TIGER), k=1, api_name="/search_pixels")["hits"]


def test_a_file_of_the_server_cannot_be_named_in_a_request(server):
    body = json.dumps({"data": [{"path": "/etc/hostname"}, "l2", 3]}).encode()
    request = urllib.request.Request(
        f"{server}/gradio_api/call/search_pixels", body, {"Content-Type": "application/json"}
    )
    event = json.load(urllib.request.urlopen(request, timeout=10))["event_id"]
    answer = urllib.request.urlopen(f"{server}/gradio_api/call/search_pixels/{event}", timeout=20).read().decode()
    assert "event: error" in answer
    assert "uploaded to this server" in answer


def test_events_of_the_page_are_no_public_endpoints(client):
    named = client.view_api(return_format="dict")["named_endpoints"]
    assert set(named) == {"/search_pixels", "/search_clip", "/compare", "/library", "/duplicates"}


def test_the_page_for_programs_says_what_each_parameter_is_and_what_is_answered(server):
    info = json.load(urllib.request.urlopen(f"{server}/gradio_api/info", timeout=10))["named_endpoints"]
    for name, endpoint in info.items():
        assert re.match(r"(Finds|Asks|Says) .* Answers ", endpoint["description"])
        for parameter in endpoint["parameters"]:
            assert parameter["label"] == parameter["parameter_name"]
            assert parameter["python_type"]["description"], f"{name}: {parameter['label']}"
            assert parameter["python_type"]["type"] != "Any"
    metric = info["/search_pixels"]["parameters"][1]
    assert metric["python_type"]["type"] == "Literal['l1', 'l2', 'cosine', 'correlation']"
    assert "handle_file('http" in info["/search_pixels"]["code_snippets"]["python"]
