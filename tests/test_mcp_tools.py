"""The MCP tools, called by a real MCP client of a real server, answer as the Retriever does."""

import asyncio
import base64
import json
import re
import urllib.request
from contextlib import asynccontextmanager
from urllib.parse import parse_qsl

import pytest
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client

from imgret.search import METHODS
from tests.conftest import QUERIES

TIGER = QUERIES / "tiger.webp"
TIGER_URL = f"data:image/webp;base64,{base64.b64encode(TIGER.read_bytes()).decode()}"
TOOLS = {"search_text", "search_picture", "search_pixels", "compare", "library", "duplicates"}


@asynccontextmanager
async def connect(server, transport):
    opened = (
        streamable_http_client(f"{server}/gradio_api/mcp/")
        if transport == "http"
        else sse_client(f"{server}/gradio_api/mcp/sse")
    )
    async with opened as (read, write, *_), ClientSession(read, write) as session:
        await session.initialize()
        yield session


@pytest.fixture
def ask(server):
    """Calls a tool of the server, and gives the text of its one answer."""

    def call(name, *, refused=False, transport="http", **arguments):
        async def ask_once():
            async with connect(server, transport) as session:
                return await session.call_tool(name, arguments)

        answer = asyncio.run(ask_once())
        (content,) = answer.content
        assert answer.isError == refused, content.text
        return content.text

    return call


def assert_hits(answer, expected, retriever):
    assert [(hit["rank"], hit["id"], hit["label"], hit["caption"]) for hit in answer["hits"]] == [
        (hit.rank, hit.id, hit.label, hit.caption) for hit in expected
    ]
    assert [hit["score"] for hit in answer["hits"]] == pytest.approx([hit.score for hit in expected], abs=1e-5)
    for hit in answer["hits"]:
        assert urllib.request.urlopen(hit["image"], timeout=10).read() == retriever.thumbnail(hit["id"])


@pytest.mark.parametrize("transport", ["http", "sse"])
def test_each_tool_and_each_of_its_parameters_is_described(server, transport):
    async def list_tools():
        async with connect(server, transport) as session:
            return (await session.list_tools()).tools

    tools = {tool.name: tool for tool in asyncio.run(list_tools())}
    assert set(tools) == TOOLS
    for tool in tools.values():
        assert re.match(r"(Finds|Searches|Says) .*JSON", tool.description)
        for name, parameter in tool.inputSchema["properties"].items():
            assert len(parameter["description"]) > 20, f"{tool.name}: {name}"
            assert parameter["description"].endswith("."), f"{tool.name}: {name}"
    required = {name: tool.inputSchema.get("required", []) for name, tool in tools.items()}
    picture = ["image"]
    assert required == {
        "search_text": ["text"],
        "search_picture": picture,
        "search_pixels": picture,
        "compare": picture,
        "library": [],
        "duplicates": [],
    }


def test_search_text_answers_as_the_retriever(ask, retriever):
    query = {"text": "a pet", "negative": "a dog", "labels": ["animals/mammals", "animals/birds"], "k": 3}
    assert_hits(json.loads(ask("search_text", **query)), retriever.by_clip(**query), retriever)


def test_a_model_says_which_hits_it_likes_and_gets_the_address_that_shows_the_same(ask, retriever):
    likes, dislikes = [retriever.index.record(3).id], [retriever.index.record(40).id, retriever.index.record(41).id]
    query = {"text": "a pet", "labels": ["animals/mammals"], "k": 3, "likes": likes, "dislikes": dislikes}
    answer = json.loads(ask("search_text", **query))
    assert_hits(answer, retriever.by_clip(**query), retriever)
    assert dict(parse_qsl(answer["page"].removeprefix("?"))) == {
        "tab": "clip",
        "text": "a pet",
        "label": "animals/mammals",
        "like": likes[0],
        "dislike": "|".join(dislikes),
        "k": "3",
    }
    more = {"text": "a bird", "text_weight": 0.7, "k": 4, "dislikes": dislikes}
    answer = json.loads(ask("search_picture", image=likes[0], **more))
    assert_hits(answer, retriever.by_clip(like=likes[0], **more), retriever)
    asked = {"tab": "clip", "id": likes[0], "text": "a bird", "weight": "0.7", "dislike": "|".join(dislikes), "k": "4"}
    assert dict(parse_qsl(answer["page"].removeprefix("?"))) == asked
    assert json.loads(ask("search_picture", image=TIGER_URL, k=1))["page"] is None
    assert "no picture" in ask("search_text", text="a pet", likes=["nowhere.webp"], refused=True)


def test_duplicates_says_which_pictures_are_alike(ask, retriever):
    groups = json.loads(ask("duplicates"))["groups"]
    assert [group["ids"] for group in groups] == [list(group.ids) for group in retriever.duplicates]


def test_search_picture_answers_as_the_retriever(ask, retriever):
    query = {"text": "a bird", "text_weight": 0.7, "k": 3}
    answer = json.loads(ask("search_picture", image=TIGER_URL, **query))
    assert_hits(answer, retriever.by_clip(TIGER, **query), retriever)


def test_search_pixels_answers_as_the_retriever_over_the_older_transport_too(ask, retriever):
    answer = json.loads(ask("search_pixels", image=TIGER_URL, metric="correlation", k=3, transport="sse"))
    assert_hits(answer, retriever.by_pixels(TIGER, "correlation", 3), retriever)


def test_compare_answers_by_all_five_methods_in_order(ask, retriever):
    answers = json.loads(ask("compare", image=TIGER_URL, k=2))
    assert [answer["method"] for answer in answers] == list(METHODS)
    for answer in answers[:-1]:
        assert_hits(answer, retriever.by_pixels(TIGER, answer["method"], 2), retriever)


def test_library_says_what_is_searched(ask, retriever):
    assert json.loads(ask("library"))["labels"] == dict(retriever.index.manifest.labels)


def test_a_hit_is_the_next_query_by_its_id_or_by_its_url(ask, retriever):
    hit = json.loads(ask("search_text", text="a tiger", k=1))["hits"][0]
    expected = retriever.by_clip(like=hit["id"], k=3)
    for image in (hit["id"], hit["image"]):
        assert_hits(json.loads(ask("search_picture", image=image, k=3)), expected, retriever)


def test_an_uploaded_file_is_a_query_by_its_path_or_by_its_url(ask, server, retriever):
    form = b'--part\r\nContent-Disposition: form-data; name="files"; filename="tiger.webp"\r\n\r\n'
    body = form + TIGER.read_bytes() + b"\r\n--part--\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=part"}
    request = urllib.request.Request(f"{server}/gradio_api/upload", body, kind)
    (path,) = json.load(urllib.request.urlopen(request, timeout=10))
    for image in (path, f"{server}/gradio_api/file={path}"):
        assert_hits(json.loads(ask("search_pixels", image=image, k=3)), retriever.by_pixels(TIGER, "l2", 3), retriever)


@pytest.mark.parametrize(
    ("tool", "arguments", "says"),
    [
        ("search_text", {"text": " "}, "The text is empty; .*"),
        ("search_text", {"text": "a cat", "labels": ["cats"]}, "There is no label 'cats'.*"),
        ("search_text", {"text": "a cat", "k": 0}, "k is 0; .*at least 1.*"),
        ("search_text", {}, "Input validation error: 'text' is a required property"),
        ("search_pixels", {"image": TIGER_URL, "metric": "l3"}, "Input validation error: 'l3' is not one of .*"),
        ("search_pixels", {"image": "data:image/png,xxxx"}, "A data: URL of a picture looks like .*"),
        ("search_pixels", {"image": "data:image/png;base64,xxxx"}, ".* is not a picture that can be read; .*"),
        ("search_pixels", {"image": "no/such.webp"}, "There is no picture 'no/such.webp' in the library.*"),
        ("search_picture", {"image": "/etc/hostname"}, "The picture must be a file that was uploaded to this server."),
        ("search_picture", {"image": "http://127.0.0.1:9/a.png"}, "There is no picture at http://127.0.0.1:9/a.png .*"),
        ("compare", {"image": "file:///etc/hostname"}, "There is no picture 'file:///etc/hostname' in the library.*"),
    ],
)
def test_a_refused_call_is_an_error_with_the_sentence(ask, tool, arguments, says):
    answer = ask(tool, refused=True, **arguments)
    assert re.fullmatch(says, answer)


def test_a_file_of_the_server_cannot_be_named_by_its_url(ask, server):
    image = f"{server}/gradio_api/file=/etc/hostname"
    assert "There is no picture at" in ask("search_picture", refused=True, image=image)
