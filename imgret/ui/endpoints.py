"""What may a program ask? The typed public endpoints of gradio_client, each answering JSON."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import gradio as gr
from gradio.data_classes import FileData
from PIL import Image

from imgret.images import load_image
from imgret.search import METHODS, SearchError
from imgret.start import Ready, Start
from imgret.ui.answers import Answer, Thumbnails, answer, k_notice, language_notice
from imgret.ui.uploads import uploaded_file

P = ParamSpec("P")
R = TypeVar("R")


def told(function: Callable[P, R]) -> Callable[P, R]:
    """Turns the errors that a visitor can cause into `gr.Error`, whose sentence reaches page and client as it is."""

    @wraps(function)
    def telling(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            raise gr.Error(str(error), print_exception=False) from error

    return telling


class Endpoints:
    """The answers to queries, for the page's own events and, by `publish`, for programs."""

    def __init__(self, start: Start, thumbnails: Thumbnails, shown: tuple[Path, ...], max_bytes: int) -> None:
        self._start, self._thumbnails, self._shown, self._max_bytes = start, thumbnails, shown, max_bytes

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
        return self._by_pixels(self._start.wait(), self._picture(image), metric, k)

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
        ready = self._start.wait()
        picture = None if image is None else self._picture(image)
        return self._by_clip(ready, picture, text, negative, text_weight, labels, k)

    def compare(self, image: FileData, k: int = 5) -> list[dict[str, Any]]:
        """Asks all five methods for the same picture: l1, l2, cosine, correlation, clip, in this order.

        Parameters:
            image: the query picture.
            k: how many to return by each method, best first.
        """
        ready, picture = self._start.wait(), self._picture(image)
        pixel_answers = [self._by_pixels(ready, picture, metric, k) for metric in METHODS[:-1]]
        return [*pixel_answers, self._by_clip(ready, picture, None, None, 0.5, None, k)]

    def library(self) -> dict[str, Any]:
        """Says what is searched: how many pictures, their labels, the encoder, the pixel size, how many true neighbours
        the vector index finds.
        """
        ready = self._start.wait()
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

    def _picture(self, value: Any) -> Image.Image:
        return load_image(uploaded_file(value, self._shown), max_bytes=self._max_bytes)

    def _by_pixels(self, ready: Ready, picture: Image.Image, metric: str, k: Any) -> Answer:
        if not isinstance(metric, str):
            raise SearchError(f"The metric must be a name, not {type(metric).__name__}.")
        notice = k_notice(ready.retriever, k)
        return answer(ready, self._thumbnails, metric, lambda: ready.retriever.by_pixels(picture, metric, k), notice)

    def _by_clip(
        self, ready: Ready, picture: Image.Image | None, text: Any, negative: Any, text_weight: Any, labels: Any, k: Any
    ) -> Answer:
        notices = (k_notice(ready.retriever, k), language_notice(ready.retriever, text, negative))
        return answer(
            ready,
            self._thumbnails,
            "clip",
            lambda: ready.retriever.by_clip(picture, text, negative, text_weight, labels, k),
            " ".join(sentence for sentence in notices if sentence) or None,
        )
