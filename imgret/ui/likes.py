"""The pictures of the library that a visitor marked with a heart or a cross: hits should be like them, or not."""

import json
from collections.abc import Sequence
from typing import Any

import gradio as gr

from imgret.search import SearchError
from imgret.startup import ReadyIndex
from imgret.ui.endpoints import Endpoints
from imgret.ui.localized import LocalizedComponents
from imgret.ui.names import joined, separated

Marks = dict[gr.Textbox, str]
HEART, CROSS = "♥", "✕"


class Likes:
    """Small pictures beside the query, and the two fields that name them, as `names.joined` does.

    hits.js writes what a visitor marks into `marked`: [the mark, the id of the hit, a number that makes it new].
    """

    def __init__(self, localized: LocalizedComponents, prefix: str) -> None:
        self.liked = gr.Textbox("", visible="hidden")
        self.disliked = gr.Textbox("", visible="hidden")
        self.marked = gr.Textbox("", visible="hidden", elem_id=f"{prefix}-marked")
        self.pictures = localized(
            gr.Gallery,
            {"label": lambda words: words.likes},
            elem_id=f"{prefix}-likes",
            elem_classes="likes",
            height="auto",
            interactive=False,
            allow_preview=False,
            buttons=[],
            visible=False,
        )

    @property
    def fields(self) -> tuple[gr.Textbox, gr.Textbox]:
        """The fields that a search depends on: the ids of the liked pictures, and of the others."""
        return self.liked, self.disliked

    def shown(self, endpoints: Endpoints, ready: ReadyIndex, liked: str, disliked: str) -> Any:
        """The value of `pictures`."""
        rows = [
            (ready.retriever.row_of(name), mark)
            for ids, mark in ((liked, HEART), (disliked, CROSS))
            for name in separated(ids)
        ]
        path = endpoints.thumbnails.path
        return gr.update(value=[(str(path(ready.retriever, row)), mark) for row, mark in rows], visible=bool(rows))

    def mark(self, marked: str, liked: str, disliked: str) -> Marks:
        """The fields after a hit was marked: it gets that mark, and loses the other."""
        try:
            mark, name, _ = json.loads(marked)
        except (TypeError, ValueError):
            mark = name = None
        if mark not in (HEART, CROSS) or not isinstance(name, str):
            raise SearchError("There is no such hit.")
        likes, dislikes = ([each for each in separated(ids) if each != name] for ids in (liked, disliked))
        (likes if mark == HEART else dislikes).append(name)
        return self._fields(likes, dislikes)

    def without(self, number: Any, liked: str, disliked: str) -> Marks:
        """The fields without the picture of that number."""
        likes, dislikes = separated(liked), separated(disliked)
        if not isinstance(number, int) or not 0 <= number < len(likes) + len(dislikes):
            raise SearchError("There is no such hit.")
        if number < len(likes):
            del likes[number]
        else:
            del dislikes[number - len(likes)]
        return self._fields(likes, dislikes)

    def _fields(self, likes: Sequence[str], dislikes: Sequence[str]) -> Marks:
        return {self.liked: joined(likes), self.disliked: joined(dislikes)}
