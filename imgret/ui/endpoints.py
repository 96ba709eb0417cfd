"""What may a program ask? The typed public endpoints of gradio_client, each answering JSON."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from gradio.data_classes import FileData
from PIL import Image

from imgret.images import load_image
from imgret.search import METHODS, Found, SearchError
from imgret.start import Ready, Start
from imgret.ui.answers import Answer, Thumbnails, answer, k_notice, language_notice
from imgret.ui.examples import QUERIES
from imgret.ui.texts import DEFAULT, translated
from imgret.ui.uploads import uploaded_file

P = ParamSpec("P")
R = TypeVar("R")


def told(function: Callable[P, R]) -> Callable[P, R]:
    """Turns the errors that a visitor can cause into `gr.Error`, whose sentence reaches page and client as it is; in
    the language that the page's handlers are given by the name of `language`.
    """
    names = list(signature(function).parameters)

    @wraps(function)
    def telling(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            language = args[names.index("language")] if "language" in names else DEFAULT
            raise gr.Error(translated(str(error), str(language)), print_exception=False) from error

    return telling


@dataclass(frozen=True)
class Query:
    """A picture to search with: one that was decoded, by its file's name if it is an example, or one of the library by
    its id.
    """

    picture: Image.Image | None
    like: str | None = None
    example: str | None = None


class Endpoints:
    """The answers to queries, for the page's own events and, by `publish`, for programs."""

    def __init__(self, start: Start, thumbnails: Thumbnails, shown: tuple[Path, ...], max_bytes: int) -> None:
        self.start, self.thumbnails = start, thumbnails
        self._shown, self._max_bytes = shown, max_bytes

    def publish(self) -> None:
        """Makes the endpoints of the Blocks that are being built."""
        for function in (self.search_pixels, self.search_clip, self.compare, self.library):
            gr.events.api(told(function), api_name=function.__name__)

    def search_pixels(self, image: FileData, metric: str = "l2", k: int = 10) -> dict[str, Any]:
        """Finds the pictures of the library that are the most similar to a picture, pixel by pixel.

        Parameters:
            image: the query picture.
            metric: "l1", "l2", "cosine" or "correlation"; the smallest l1 and l2, the largest cosine and correlation
            are the closest. k: how many to return, best first.
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
    ) -> dict[str, Any]:
        """Finds the pictures of the library that are the closest in meaning to a picture, a text, or both.

        Parameters:
            image: the query picture, if any.
            text: what the pictures should show, if anything.
            negative: what they should not show.
            text_weight: from 0 (the picture alone) to 1 (the text alone), where both are given.
            labels: only pictures with one of these labels.
            k: how many to return, best first.
        """
        ready = self.start.wait()
        query = Query(None if image is None else self._picture(image))
        return self.by_clip(ready, query, text, negative, text_weight, labels, k).as_dict()

    def compare(self, image: FileData, k: int = 5) -> list[dict[str, Any]]:
        """Asks all five methods for the same picture: l1, l2, cosine, correlation, clip, in this order.

        Parameters:
            image: the query picture.
            k: how many to return by each method, best first.
        """
        return [found.as_dict() for found in self.by_all(self.start.wait(), Query(self._picture(image)), k)]

    def library(self) -> dict[str, Any]:
        """Says what is searched: how many pictures, their labels, the encoder, the pixel size, how many true neighbours
        the vector index finds.
        """
        ready = self.start.wait()
        manifest = ready.retriever.index.manifest
        return {
            "library": manifest.library.name,
            "split": manifest.library.split,
            "revision": manifest.library.revision,
            "count": manifest.count,
            "skipped": manifest.skipped_count,
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

    def query(self, ready: Ready, value: Any) -> Query | None:
        """What the page's picture field holds; a thumbnail that the page showed is that picture of the library."""
        if not value:
            return None
        path = uploaded_file(value, self._shown)
        like = self.thumbnails.id_of(ready.retriever, path)
        if like is not None:
            return Query(None, like)
        return Query(load_image(path, max_bytes=self._max_bytes), example=path.name if path.parent == QUERIES else None)

    def by_pixels(self, ready: Ready, query: Query, metric: Any, k: Any) -> Answer:
        """The answer by one of the four metrics."""
        if not isinstance(metric, str):
            raise SearchError(f"The metric must be a name, not {type(metric).__name__}.")
        notice = k_notice(ready.retriever, k)

        def search() -> Found:
            return ready.retriever.find_by_pixels(query.picture, metric, k, like=query.like)

        return answer(ready, self.thumbnails, metric, search, notice)

    def by_clip(
        self, ready: Ready, query: Query, text: Any, negative: Any, text_weight: Any, labels: Any, k: Any
    ) -> Answer:
        """The answer by CLIP."""
        notices = (k_notice(ready.retriever, k), language_notice(ready.retriever, text, negative))

        def search() -> Found:
            retriever, like = ready.retriever, query.like
            return Found(retriever.by_clip(query.picture, text, negative, text_weight, labels, k, like=like))

        notice = " ".join(sentence for sentence in notices if sentence) or None
        return answer(ready, self.thumbnails, "clip", search, notice)

    def by_all(self, ready: Ready, query: Query, k: Any) -> list[Answer]:
        """The answers by all five methods, in the order of METHODS."""
        pixels = [self.by_pixels(ready, query, metric, k) for metric in METHODS[:-1]]
        return [*pixels, self.by_clip(ready, query, None, None, 0.5, None, k)]

    def _picture(self, value: Any) -> Image.Image:
        return load_image(uploaded_file(value, self._shown), max_bytes=self._max_bytes)
