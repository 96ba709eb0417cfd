"""The section of the pixels tab that changes the query and shows what the metric does not see of it."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
import numpy as np
from gradio.blocks import Block
from PIL import Image

from imgret.blindness import (
    CANNOT_MOVE,
    TRANSFORMS,
    Dethroning,
    Transform,
    cannot_move,
    changed,
    clips,
    dethroning,
    ranking,
)
from imgret.images import PixelVector
from imgret.search import Retriever
from imgret.startup import ReadyIndex
from imgret.ui.endpoints import Endpoints, Query
from imgret.ui.handlers import gradio_handler
from imgret.ui.i18n import WORDS, Words
from imgret.ui.localized import LocalizedComponents
from imgret.ui.names import hit_name, separated
from imgret.ui.results import hits_gallery
from imgret.ui.tab import INTERNAL_EVENT

SIDE, HITS, RANKED = 256, 5, 10


class BlindnessSection:
    """Sliders that change the query, what that does to the ranking, and the smallest change that moves the first."""

    def __init__(self, localized: LocalizedComponents) -> None:
        with localized(gr.Accordion, {"label": lambda words: words.blindness}, open=False, elem_id="blindness"):
            self.statement = gr.Markdown("", elem_classes="small")
            with gr.Row():
                self._sliders = [_slider(localized, each) for each in TRANSFORMS.values()]
            self._find = localized(
                gr.Button, {"value": lambda words: words.find_dethroning}, size="sm", elem_id="blindness-find"
            )
            self._text = gr.Markdown("", elem_id="blindness-text")
            self._pictures = hits_gallery("blindness-pictures")
        self.outputs: list[Block] = [self.statement, self._text, self._pictures]

    @staticmethod
    def cleared(language: str, metric: str) -> list[Any]:
        """The values of `outputs` for another query or metric."""
        return [statement(WORDS[language], metric), "", []]

    def wire(
        self, endpoints: Endpoints, language: Block, picture: Block, part: Block, metric: Block, liked: Block
    ) -> None:
        """Connects the sliders and the button."""

        def asked(ready: ReadyIndex, picture: Any, part: Any, liked: str) -> tuple[PixelVector, list[int]]:
            """The query, and the rows that are no hits of it."""
            query, likes = endpoints.query(ready, picture, part) or Query(None), separated(liked)
            itself = [] if query.like is None else [query.like]
            rows = [ready.retriever.row_of(id) for id in [*itself, *likes]]
            return ready.retriever.pixel_query(query.picture, query.like, likes), rows

        def change(language: str, picture: Any, part: Any, metric: str, liked: str, *strengths: float) -> list[Any]:
            ready = endpoints.start.wait()
            query, without = asked(ready, picture, part, liked)
            given = dict(zip(TRANSFORMS, map(float, strengths), strict=True))
            text, rows, scores = _compared(ready.retriever, language, query, metric, given, without)
            path = endpoints.thumbnails.path
            side = ready.retriever.index.manifest.pixel_size
            pixels = np.rint(changed(query, given)).astype(np.uint8).reshape(side, side, 3)
            seen = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
            shown: list[Any] = [(seen, WORDS[language].changed_query)]
            for hit in ready.retriever.hits(rows[:HITS], scores[:HITS]):
                shown.append((str(path(ready.retriever, hit.row)), f"{hit.rank}. {hit_name(hit, language)}"))
            return [text, shown]

        def find(language: str, picture: Any, part: Any, metric: str, liked: str) -> list[Any]:
            ready = endpoints.start.wait()
            query, without = asked(ready, picture, part, liked)
            pixels = ready.retriever.index.pixels
            found = {name: dethroning(pixels, query, metric, name, without=without) for name in TRANSFORMS}
            return [_table(ready.retriever, language, metric, found), []]

        given, outputs = [language, picture, part, metric, liked], [self._text, self._pictures]
        gr.on(
            [slider.change for slider in self._sliders],  # a number that is typed is no `release`
            gradio_handler(change),
            [*given, *self._sliders],
            outputs,
            trigger_mode="always_last",
            **INTERNAL_EVENT,
        )
        self._find.click(gradio_handler(find), given, outputs, **INTERNAL_EVENT)


def _slider(localized: LocalizedComponents, transform: Transform) -> gr.Slider:
    return localized(
        gr.Slider,
        {"label": lambda words: words.transforms[transform.name]},
        minimum=transform.low,
        maximum=transform.high,
        value=transform.neutral,
        step=1 if transform.high > 2 else 0.01,
        min_width=180,
        elem_id=f"blindness-{transform.name}",
    )


def statement(words: Words, metric: str) -> str:
    """What no change of these kinds can move, known before anything is computed."""
    blind = CANNOT_MOVE[metric]
    sees = words.sees_all.format(metric=words.metrics[metric])
    return "\n\n".join(words.blind_to[key] for key in blind.values()) if blind else sees


def _compared(
    retriever: Retriever,
    language: str,
    query: PixelVector,
    metric: str,
    strengths: Mapping[str, float],
    without: Sequence[int],
) -> tuple[str, Any, Any]:
    """What the changes did to the first hits, as a text; the hits of the changed query as rows and scores."""
    words, pixels = WORDS[language], retriever.index.pixels
    before, _ = ranking(pixels, query.astype(np.float64), metric, RANKED, without=without)
    rows, scores = ranking(pixels, changed(query, strengths), metric, RANKED, without=without)
    moved = [name for name, each in TRANSFORMS.items() if strengths[name] != each.neutral]
    kept = len({*before.tolist()} & {*rows.tolist()})
    if (before == rows).all():
        text = words.ranking_stays.format(count=len(rows))
    else:
        (then,) = retriever.hits(rows[:1], scores[:1])
        text = words.ranking_moves.format(kept=kept, count=len(rows), first=hit_name(then, language))
    if moved and cannot_move(metric, *moved):
        text += " " + (words.breaks_statement if clips(query, strengths) else words.as_stated)
    elif clips(query, strengths):
        text += " " + words.clipped
    return text, rows, scores


def _table(retriever: Retriever, language: str, metric: str, found: Mapping[str, Dethroning | None]) -> str:
    words = WORDS[language]
    lines = ["| {} | {} | {} |".format(*words.dethroning_columns), "|---|---|---|"]
    for name, each in found.items():
        if each is None:
            low, high = TRANSFORMS[name].low, TRANSFORMS[name].high
            lines.append(f"| {words.transforms[name]} | {words.never.format(low=low, high=high)} | |")
            continue
        (then,) = retriever.hits([each.then], [0.0])
        clipped = f" ({words.only_by_clipping})" if each.clipped else ""
        lines.append(f"| {words.transforms[name]} | {each.strength_after:.4g}{clipped} | {hit_name(then, language)} |")
    return "\n".join(lines)
