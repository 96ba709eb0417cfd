"""The explanation of a hit as heat maps below the hits of a tab."""

import json
from collections.abc import Callable
from typing import Any

import gradio as gr
import numpy as np
from gradio.blocks import Block
from PIL import Image

from imgret.explain import explain_clip, explain_pixels, heat_map
from imgret.images import load_image
from imgret.search import SearchError
from imgret.startup import ReadyIndex
from imgret.ui.endpoints import Endpoints, Query
from imgret.ui.handlers import gradio_handler
from imgret.ui.i18n import WORDS
from imgret.ui.localized import LocalizedComponents
from imgret.ui.names import separated

SIDE = 256

Pictures = list[tuple[Image.Image, str]]
Explain = Callable[..., tuple[Pictures, str]]


class Explanation:
    """The selector of a hit by rank, and the explanation of that hit."""

    def __init__(self, localized: LocalizedComponents, elem_id: str) -> None:
        self.rank = localized(
            gr.Radio, {"label": lambda words: words.why}, choices=[], elem_id=elem_id, elem_classes="why", visible=False
        )
        self.text = gr.Markdown("", elem_classes="small")
        self.pictures = gr.Gallery(
            show_label=False,
            elem_id=f"{elem_id}-pictures",
            elem_classes="reason",
            columns=3,
            height="auto",
            object_fit="contain",
            interactive=False,
            allow_preview=False,
            buttons=[],
        )
        self.outputs: list[Block] = [self.rank, self.text, self.pictures]

    @staticmethod
    def cleared(hits: int) -> list[Any]:
        """The values of `outputs` after a search that found `hits`."""
        choices = [(str(rank), rank) for rank in range(1, hits + 1)]
        return [gr.update(choices=choices, value=None, visible=hits > 0), "", []]

    def wire(
        self,
        endpoints: Endpoints,
        explain: Explain,
        language: Block,
        answer: gr.Textbox,
        query: list[Block],
        form: list[Block],
    ) -> None:
        """Calls `explain(ready, language, query, id, *form)` for the selected hit; `query`: a picture and its part."""

        def show(language: str, rank: Any, answer: Any, picture: Any, part: Any, *form: Any) -> list[Any]:
            ready = endpoints.start.wait()
            hits = json.loads(answer)["hits"] if answer else ()
            if not isinstance(rank, int) or not 1 <= rank <= len(hits):
                raise SearchError("Search first; then a hit can be explained.")
            asked = endpoints.query(ready, picture, part)
            pictures, text = explain(ready, language, asked, hits[rank - 1]["id"], *form)
            return [text, pictures]

        self.rank.input(
            gradio_handler(show),
            [language, self.rank, answer, *query, *form],
            [self.text, self.pictures],
            preprocess=False,
            show_progress="minimal",
            api_visibility="private",
        )


def pixel_explanation(
    ready: ReadyIndex, language: str, query: Query | None, id: str, metric: str, k: Any, liked: str, *rest: Any
) -> tuple[Pictures, str]:
    """The two pictures as the metric sees them, and a map of the terms that add up to the score."""
    words, query = WORDS[language], query or Query(None)
    reason = explain_pixels(ready.retriever, query.picture, id, metric, like=query.like, likes=separated(liked))
    seen = [
        Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST) for pixels in (reason.query, reason.hit)
    ]
    pictures = [*seen, heat_map(reason.terms, size=SIDE, smooth=False)]
    captions = (words.why_query, words.why_hit, words.why_map)
    text = words.why_pixels[metric].format(total=reason.total, score=reason.score)
    return list(zip(pictures, captions, strict=True)), text


def clip_explanation(
    ready: ReadyIndex,
    language: str,
    query: Query | None,
    id: str,
    text: Any,
    negative: Any,
    weight: Any,
    liked: str,
    disliked: str,
    *rest: Any,
) -> tuple[Pictures, str]:
    """The hit, and which of its regions carry the similarity."""
    words, retriever = WORDS[language], ready.retriever
    query = query or Query(None)
    likes, dislikes = separated(liked), separated(disliked)
    vector = retriever.embed_query(
        query.picture, text or None, negative or None, weight, like=query.like, likes=likes, dislikes=dislikes
    )
    reason = explain_clip(retriever, vector, id)
    hit = load_image(retriever.thumbnail(id))
    pictures = [(hit, words.why_rank), (heat_map(reason.drops, hit, SIDE), words.why_map)]
    return pictures, words.why_clip.format(score=reason.score, drop=float(np.max(reason.drops)))
