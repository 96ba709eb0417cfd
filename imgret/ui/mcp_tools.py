"""The tools of the MCP server, for language models: pictures arrive as URLs or ids, answers leave as JSON."""

import base64
import binascii
import json
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import unquote, urlencode, urlsplit

import gradio as gr
import gradio.mcp
from gradio.processing_utils import add_root_url
from gradio_client.utils import is_file_obj_with_meta, synchronize_async, traverse

from imgret.images import load_image
from imgret.search import SearchError
from imgret.startup import ReadyIndex
from imgret.ui.downloads import download
from imgret.ui.endpoints import Endpoints, Metric, Query
from imgret.ui.handlers import logged
from imgret.ui.names import joined

SERVED = "/gradio_api/file="
AVAILABLE = find_spec("mcp") is not None


class Tools:
    """The tools over the answers of `endpoints`. A picture is always required or not taken at all, and is a text: an
    optional file would reach a function as whatever text the model wrote. Errors are ValueErrors, a sentence each.
    """

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints

    def register(self) -> None:
        """Makes the tools of the Blocks that are being built."""
        tools = (self.search_text, self.search_picture, self.search_pixels, self.compare, self.library, self.duplicates)
        for function in tools:
            # Out of the queue, which would answer a tool by way of an HTTP request of this server to itself.
            name = f"tool_{function.__name__}"
            gr.events.api(logged(function), api_name=name, api_visibility="undocumented", queue=False)

    def search_text(
        self,
        text: str,
        negative: str | None = None,
        labels: list[str] | None = None,
        k: int = 10,
        likes: list[str] | None = None,
        dislikes: list[str] | None = None,
    ) -> dict[str, Any]:
        """Finds the pictures of the library that show what a text says, by CLIP embeddings. Answers JSON: "hits", best
        first, each with rank, id, label, caption, score (cosine similarity, larger is closer) and the URL of its image;
        "page": what to add to the address of the demo to see the same hits there.

        Parameters:
            text: what the pictures should show, for example "a red flower". The tool library says which languages.
            negative: what the pictures should not show.
            labels: only pictures with one of these labels, as the tool library lists them.
            k: how many hits to return, at least 1.
            likes: ids of hits that further ones should be like, too.
            dislikes: ids of hits that further ones should not be like.
        """
        return self._by_clip(Query(None), text, negative, 0.5, labels, k, likes, dislikes)

    def search_picture(
        self,
        image: str,
        text: str | None = None,
        negative: str | None = None,
        text_weight: float = 0.5,
        labels: list[str] | None = None,
        k: int = 10,
        likes: list[str] | None = None,
        dislikes: list[str] | None = None,
    ) -> dict[str, Any]:
        """Finds the pictures of the library whose content is like a picture's, by CLIP embeddings, wherever in the
        picture it is and whatever its colours. A text can say what should be different. Answers JSON: "hits", best
        first, each with rank, id, label, caption, score (cosine similarity, larger is closer) and the URL of its image;
        "page": what to add to the address of the demo to see the same hits there, null for a picture of your own.

        Parameters:
            image: the query picture: its URL, a data: URL, or the id of a hit to find more like it.
            text: what the pictures should show besides, for example "at night".
            negative: what the pictures should not show.
            text_weight: from 0 (the picture alone) to 1 (the text alone), where there is a text.
            labels: only pictures with one of these labels, as the tool library lists them.
            k: how many hits to return, at least 1.
            likes: ids of hits that further ones should be like, too.
            dislikes: ids of hits that further ones should not be like.
        """
        query = self._query(self._endpoints.start.wait(), image)
        return self._by_clip(query, text, negative, text_weight, labels, k, likes, dislikes)

    def search_pixels(self, image: str, metric: Metric = "l2", k: int = 10) -> dict[str, Any]:
        """Finds the pictures of the library that have the same colours in the same places as a picture, by a formula on
        the pixels; it knows nothing of what they show. Answers JSON: "hits", best first, each with rank, id, label,
        caption, score and the URL of its image.

        Parameters:
            image: the query picture: its URL, a data: URL, or the id of a hit to find more like it.
            metric: l1 and l2 are distances (smaller is closer), cosine and correlation similarities (larger is closer).
            k: how many hits to return, at least 1.
        """
        ready = self._endpoints.start.wait()
        return self._endpoints.by_pixels(ready, self._query(ready, image), metric, k).as_dict()

    def compare(self, image: str, k: int = 5) -> list[dict[str, Any]]:
        """Searches for a picture by all five methods, to see what each finds. Answers JSON: a list of five answers, by
        l1, l2, cosine, correlation (formulas on the pixels) and clip (content), in this order, each with its "method"
        and "hits", best first.

        Parameters:
            image: the query picture: its URL, a data: URL, or the id of a hit to find more like it.
            k: how many hits to return by each method, at least 1.
        """
        ready = self._endpoints.start.wait()
        return [found.as_dict() for found in self._endpoints.by_all(ready, self._query(ready, image), k)]

    def library(self) -> dict[str, Any]:
        """Says what is searched. Answers JSON: how many pictures, their labels with counts, the encoder and the
        languages it reads, the pixel size, and how many true neighbours the vector index finds.
        """
        return self._endpoints.library()

    def duplicates(self) -> dict[str, Any]:
        """Says which pictures of the library are equal or nearly equal. Answers JSON: "groups", each with "kind" (exact
        or near) and the "ids" of its pictures.
        """
        return self._endpoints.duplicates()

    def _by_clip(
        self,
        query: Query,
        text: str | None,
        negative: str | None,
        weight: float,
        labels: list[str] | None,
        k: int,
        likes: list[str] | None,
        dislikes: list[str] | None,
    ) -> dict[str, Any]:
        ready = self._endpoints.start.wait()
        answer = self._endpoints.by_clip(
            ready, query, text, negative, weight, labels, k, likes=likes, dislikes=dislikes
        ).as_dict()
        asked = {
            "id": query.like,
            "text": text,
            "negative": negative,
            "weight": None if weight == 0.5 else str(weight),
            "label": joined(labels or ()),
            "like": joined(likes or ()),
            "dislike": joined(dislikes or ()),
            "k": str(k),
        }
        address = urlencode({"tab": "clip"} | {name: value for name, value in asked.items() if value})
        return answer | {"page": None if query.picture is not None and query.like is None else f"?{address}"}

    def _query(self, ready: ReadyIndex, image: str) -> Query:
        """The picture behind a URL of the web or of this server, a data: URL, a path that an upload answered, or an id
        of the library.
        """
        if image.startswith("data:"):
            return Query(load_image(_decoded(image), max_bytes=self._endpoints.max_bytes))
        if image.startswith("/"):
            return self._required(ready, image)
        if not image.startswith(("http://", "https://")):
            return Query(None, like=image)
        if path := unquote(urlsplit(image).path).partition(SERVED)[2]:
            try:
                return self._required(ready, path)
            except SearchError:
                pass  # a file of another Gradio server
        with TemporaryDirectory() as folder:
            file = synchronize_async(download, image, Path(folder), self._endpoints.max_bytes)
            return Query(load_image(file, max_bytes=self._endpoints.max_bytes))

    def _required(self, ready: ReadyIndex, path: str) -> Query:
        query = self._endpoints.query(ready, {"path": path})
        assert query is not None  # the path is not empty
        return query


class ToolServer(gradio.mcp.GradioMCPServer):
    """Gradio's MCP server with our tools and with answers in JSON.

    Gradio makes a tool of each public endpoint, and prints what it returns as Python does (`None`, single quotes); it
    has no setting for either.
    """

    def get_tool_to_endpoint(self) -> dict[str, str]:
        """The endpoints that are no part of the public API are the tools; a tool is called as its function is."""
        every = self.blocks.get_api_info(all_endpoints=True)["named_endpoints"]
        tools = {name: info for name, info in every.items() if info["api_visibility"] == "undocumented"}
        self.api_info = {"named_endpoints": tools, "unnamed_endpoints": {}}
        return super().get_tool_to_endpoint()

    def postprocess_output_data(self, data: Any, root_url: str) -> list[Any]:
        """What a function returned as JSON, its files as URLs."""
        from mcp.types import TextContent

        data = traverse(add_root_url(data, root_url, None), lambda file: file["url"], is_file_obj_with_meta)
        return [TextContent(type="text", text=json.dumps(answer, ensure_ascii=False)) for answer in data]


# Gradio looks its server up under this name when it launches with `mcp_server=True`.
gradio.mcp.GradioMCPServer = ToolServer  # type: ignore[misc]


def _decoded(url: str) -> bytes:
    """The bytes of a data: URL. Raises SearchError."""
    head, comma, data = url.partition(",")
    try:
        if not comma or not head.endswith(";base64"):
            raise binascii.Error
        return base64.b64decode(data, validate=True)
    except (binascii.Error, ValueError):
        raise SearchError("A data: URL of a picture looks like data:image/png;base64,iVBORw0K…") from None
