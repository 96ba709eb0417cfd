"""The public endpoints for gradio_client, with typed arguments and JSON answers."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import gradio as gr
from gradio.components.api_component import Api
from gradio.data_classes import FileData
from gradio.utils import get_function_description, get_function_params
from PIL import Image

from imgret.duplicates import MAX_PICTURES, DuplicateGroup
from imgret.encoders import EncoderError
from imgret.images import load_image
from imgret.metrics import checked_metric
from imgret.search import METHODS, SearchError, SearchResult, checked_images
from imgret.startup import ReadyIndex, Startup
from imgret.ui.crop import FULL_IMAGE, crop
from imgret.ui.examples import Examples
from imgret.ui.handlers import gradio_handler
from imgret.ui.responses import Response, empty_response, respond
from imgret.ui.thumbnails import Thumbnails
from imgret.ui.uploads import uploaded_file
from imgret.vectors import VectorError

Metric = Literal["l1", "l2", "cosine", "correlation"]

# One queue for whoever searches, from the page or a program: each is answered in turn, and a core does one at a time.
SEARCH_QUEUE: dict[str, Any] = {"concurrency_id": "search", "concurrency_limit": max(2, os.cpu_count() or 2)}


@dataclass(frozen=True)
class Query:
    """A picture to search with: decoded, with its name if it is an example; or one of the library by its id, of
    which a part was decoded if there is a picture, too.
    """

    picture: Image.Image | None
    like: str | None = None
    example: str | None = None


class Endpoints:
    """The answers to queries, for the page's own events and, by `register`, for programs."""

    def __init__(self, start: Startup, thumbnails: Thumbnails, shown: tuple[Path, ...], max_bytes: int) -> None:
        self.start, self.thumbnails = start, thumbnails
        self.examples = Examples(start, thumbnails)
        self._shown, self.max_bytes = shown, max_bytes

    def register(self) -> None:
        """Adds the endpoints to the Blocks that are being built."""
        for function in (self.search_pixels, self.search_clip, self.compare, self.library, self.duplicates):
            says, _, answers = get_function_description(function)
            described = f"{says} Answers {' '.join(answers)}"
            endpoint = gr.events.api(
                gradio_handler(function), api_name=function.__name__, api_description=described, **SEARCH_QUEUE
            )
            _document(endpoint, function)

    def search_pixels(self, image: FileData, metric: Metric = "l2", k: int = 10) -> dict[str, Any]:
        """Finds the pictures of the library that are the most similar to a picture, pixel by pixel.

        Parameters:
            image: The query picture.
            metric: l1 and l2 are distances, smaller is closer; cosine and correlation similarities, larger is closer.
            k: How many pictures to return, best first, at least 1.
        Returns:
            {"hits": [{"rank", "id", "label", "labels", "caption", "score", "p", "image"}], "method", "elapsed_ms",
            "library", "notice", "matches"}; matches is how many of the hits, from the first on, have a p of at most
            0.1, where p says how often a query without a match in the library finds a hit as good (null where that is
            not known); image is a file that the client downloads, notice null or a sentence.
        """
        return self.by_pixels(self.start.wait(), Query(self._picture(image)), metric, k).as_dict()

    def search_clip(
        self,
        image: FileData | None = None,
        text: str | None = None,
        negative: str | None = None,
        text_weight: float = 0.5,
        labels: list[str] | None = None,
        k: int = 10,
        images: list[FileData] | None = None,
        negative_images: list[FileData] | None = None,
        offset: int = 0,
    ) -> dict[str, Any]:
        """Finds the pictures of the library that are the closest in meaning to a picture, a text, or both.

        Parameters:
            image: The query picture, if any.
            text: What the pictures should show, if anything.
            negative: What they should not show.
            text_weight: From 0 (the picture alone) to 1 (the text alone), where both are given.
            labels: Only pictures with one of these labels, as /library lists them.
            k: How many pictures to return, best first, at least 1.
            images: Further pictures that the hits should be like, if any.
            negative_images: Pictures that they should not be like.
            offset: How many of the best hits to leave out, to go on after them.
        Returns:
            {"hits": [{"rank", "id", "label", "labels", "caption", "score", "p", "image"}], "method", "elapsed_ms",
            "library", "notice", "matches"}; matches is how many of the hits, from the first on, have a p of at most
            0.1, where p says how often a query without a match in the library finds a hit as good (null where that is
            not known); image is a file that the client downloads, notice null or a sentence.
        """
        ready = self.start.wait()
        query = Query(None if image is None else self._picture(image))
        liked, disliked = self._pictures(images), self._pictures(negative_images)
        return self.by_clip(
            ready, query, text, negative, text_weight, labels, k, images=liked, negative_images=disliked, offset=offset
        ).as_dict()

    def compare(self, image: FileData, k: int = 5) -> list[dict[str, Any]]:
        """Asks all five methods for the same picture: l1, l2, cosine, correlation, clip, in this order.

        Parameters:
            image: The query picture.
            k: How many pictures to return by each method, best first, at least 1.
        Returns:
            a list of five answers like those of /search_pixels, one a method; while CLIP cannot be asked, its answer
            has no hits and a notice that says why.
        """
        return [found.as_dict() for found in self.by_all(self.start.wait(), Query(self._picture(image)), k)]

    def library(self) -> dict[str, Any]:
        """Says what is searched: how many pictures, their labels, the encoder, the pixel size, how many true neighbours
        the vector index finds.

        Returns:
            {"count", "labels": {label: count}, "encoder", "languages", "pixel_size", "recall", "library", "split",
            "revision", "skipped", "description", "dim", "origin", "notice"}; description says in lines what was taken
            as pictures, labels and captions, and what was left out.
        """
        ready = self.start.wait()
        manifest = ready.retriever.index.manifest
        return {
            "library": manifest.library.name,
            "split": manifest.library.split,
            "revision": manifest.library.revision,
            "count": manifest.count,
            "skipped": manifest.skipped_count,
            "description": list(manifest.description),
            "labels": dict(manifest.labels),
            "encoder": manifest.encoder.uri,
            "dim": manifest.encoder.dim,
            "languages": list(manifest.encoder.languages),
            "pixel_size": manifest.pixel_size,
            "recall": {
                "queries": manifest.recall.queries,
                "k": manifest.recall.k,
                "recall": manifest.recall.recall,
                "ef_search": manifest.recall.ef_search,
            },
            "origin": ready.origin,
            "notice": ready.notice,
        }

    def duplicates(self) -> dict[str, Any]:
        """Says which pictures of the library are equal or nearly equal: resized, recompressed, cropped a little,
        brighter, or in a frame.

        Returns:
            {"groups": [{"kind", "ids"}], "library", "notice"}; kind is "exact" where all have the same content or the
            same decoded pixels, else "near".
        """
        ready = self.start.wait()
        groups = self.duplicate_groups(ready)
        return {
            "groups": [group.as_dict() for group in groups],
            "library": ready.retriever.index.manifest.library.name,
            "notice": ready.notice,
        }

    def duplicate_groups(self, ready: ReadyIndex) -> tuple[DuplicateGroup, ...]:
        """The groups of equal pictures. Raises SearchError where nobody could wait until they are found."""
        index = ready.retriever.index
        if index.duplicates is None and len(index) > MAX_PICTURES:
            raise SearchError(
                "The library has {count} pictures, too many to look for duplicates while somebody waits; imgret "
                "duplicates does.",
                count=len(index),
            )
        return ready.retriever.duplicates

    def query(self, ready: ReadyIndex, value: Any, part: Any = FULL_IMAGE) -> Query | None:
        """What the page's picture field holds; a thumbnail that the page showed is that picture of the library. `part`
        is the part to search with, as `crop.py` has it.
        """
        if not value:
            return None
        path = uploaded_file(value, self._shown)
        row = self.thumbnails.row_of(ready.retriever, path)
        like = None if row is None else ready.retriever.index.record(row).id
        if like is not None and part == FULL_IMAGE:
            return Query(None, like)
        picture = crop(load_image(path, max_bytes=self.max_bytes), part)
        example = None if like else self.examples.at(path)
        return Query(picture, like, example.name if example else None)

    def by_pixels(self, ready: ReadyIndex, query: Query, metric: Any, k: Any, likes: Sequence[str] = ()) -> Response:
        """The answer by one of the four metrics; with `likes`, ids of the library, for the mean of them all."""
        metric = checked_metric(metric, SearchError)

        def search() -> SearchResult:
            return ready.retriever.find_by_pixels(query.picture, metric, k, like=query.like, likes=[*likes])

        return respond(ready, self.thumbnails, metric, search)

    def by_clip(
        self,
        ready: ReadyIndex,
        query: Query,
        text: Any,
        negative: Any,
        text_weight: Any,
        labels: Any,
        k: Any,
        metric: Any = "cosine",
        **more: Any,
    ) -> Response:
        """The answer by CLIP, with another metric on the embeddings than the cosine where one is named; `more` are the
        likes, the dislikes and the offset of `find_by_clip`.
        """
        if metric != "cosine":
            more["metric"] = checked_metric(metric, SearchError)

        def search() -> SearchResult:
            retriever, like = ready.retriever, query.like
            return retriever.find_by_clip(query.picture, text, negative, text_weight, labels, k, like=like, **more)

        return respond(ready, self.thumbnails, "clip" if metric == "cosine" else f"clip-{metric}", search)

    def by_all(self, ready: ReadyIndex, query: Query, k: Any) -> list[Response]:
        """The answers by all five methods, in the order of METHODS; the pixel metrics' also while CLIP has none."""
        answers = [self.by_pixels(ready, query, metric, k) for metric in METHODS[:-1]]
        try:
            answers.append(self.by_clip(ready, query, None, None, 0.5, None, k))
        except (EncoderError, VectorError) as error:
            answers.append(empty_response(ready, "clip", error.sentence))
        return answers

    def _picture(self, value: Any) -> Image.Image:
        return load_image(uploaded_file(value, self._shown), max_bytes=self.max_bytes)

    def _pictures(self, values: Any) -> list[Image.Image]:
        return [self._picture(value) for value in checked_images(values)]


def _document(endpoint: gr.events.Dependency, function: Callable[..., Any]) -> None:
    """Puts the names of the parameters of `function`, what its docstring says of them, and a picture that can be tried
    where Gradio's page for programs shows them; by itself Gradio numbers them and shows dots.
    """
    _, says, _ = get_function_description(function)
    assert gr.context.Context.root_block is not None
    inputs = [gr.context.Context.root_block.blocks[number] for number in endpoint["inputs"]]
    for component, (name, *_, kind) in zip(inputs, get_function_params(function), strict=True):
        assert isinstance(component, Api)
        component.label = name
        component._api_info["additional_description"] = says[name]
        if kind is FileData:
            component.example_payload = gr.Image(render=False).example_payload  # type: ignore[method-assign]
