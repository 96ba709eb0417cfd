"""The tab for the four basic metrics."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from imgret.metrics import LARGER_IS_CLOSER, METRICS
from imgret.startup import ReadyIndex
from imgret.ui.blindness_section import BlindnessSection
from imgret.ui.endpoints import Endpoints, Query
from imgret.ui.explanations import pixel_explanation
from imgret.ui.i18n import WORDS, Words
from imgret.ui.likes import Likes
from imgret.ui.localized import LocalizedComponents
from imgret.ui.names import separated
from imgret.ui.results import Results
from imgret.ui.tab import MAX_K, Tab, k_from, k_slider, picture_field

FORMULAS = {
    "l1": r"$$L_1(\vec a, \vec b) = \sum_{i=1}^{N} \left| a_i - b_i \right|$$",
    "l2": r"$$L_2(\vec a, \vec b) = \sqrt{\sum_{i=1}^{N} (a_i - b_i)^2}$$",
    "cosine": r"$$\cos(\vec a, \vec b) = \frac{\sum a_i b_i}{\sqrt{\sum a_i^2} \sqrt{\sum b_i^2}}$$",
    "correlation": r"$$r = \frac{\sum (a_i - \mu_a)(b_i - \mu_b)}{\sqrt{\sum (a_i - \mu_a)^2 \sum (b_i - \mu_b)^2}}$$",
}
LATEX: list[dict[str, str | bool]] = [{"left": "$$", "right": "$$", "display": True}]
DEFAULT = "l2"


class PixelsTab(Tab):
    """L1, L2, cosine and correlation."""

    name = "pixels"
    likes: Likes

    def __init__(self, endpoints: Endpoints, localized: LocalizedComponents, language: gr.Radio) -> None:
        self._endpoints = endpoints
        with (
            localized(gr.Tab, {"label": lambda words: words.pixels_tab}, id=self.name) as self.tab,
            gr.Row(elem_classes="search"),
        ):
            with gr.Column(scale=2, min_width=280, elem_classes="query"):
                self.picture, self.part = picture_field(localized, "pixel-query")
                self.likes = Likes(localized, "pixel")
                metric = localized(
                    gr.Radio,
                    {"label": lambda words: words.metric, "choices": _choices},
                    value=DEFAULT,
                    elem_id="pixel-metric",
                )
                self.about = gr.Markdown(self.default_formula("en"), latex_delimiters=LATEX, elem_classes="formula")
                k = k_slider(localized)
            with gr.Column(scale=5, min_width=320, elem_classes="results"):
                self._results = Results(localized, "pixel", "likable")
                self._blindness = BlindnessSection(localized)
        liked, disliked = self.likes.fields
        self.form = [metric, k, liked, disliked]
        self.cleared_on_example, self.asking = (liked, disliked), (liked,)
        self.more = self._results.more, k
        self.outputs = [self.about, self.likes.pictures, *self._results.outputs, *self._blindness.outputs]
        self.hits = [self._results.hits]
        self.triggers = [metric.input, k.release]
        self._results.wire(endpoints, pixel_explanation, language, [self.picture, self.part], self.form)
        self._blindness.wire(endpoints, language, self.picture, self.part, metric, liked)

    @staticmethod
    def default_formula(language: str) -> str:
        """What `about` says of the metric that is chosen when the page opens."""
        return _about(language, DEFAULT)

    def search(self, ready: ReadyIndex, language: str, query: Query | None, *form: Any) -> list[Any]:
        metric, k, liked, disliked = form
        if query is None and not liked:
            return self.cleared(language, *form)
        words, likes = WORDS[language], separated(liked)
        response = self._endpoints.by_pixels(ready, query or Query(None), metric, k, likes=likes)
        count, rows_scanned = len(ready.retriever.index), response.rows_scanned
        saved = rows_scanned is not None and rows_scanned < count
        status = words.pixels_status.format(
            hits=len(response.hits),
            count=count,
            metric=words.metrics[metric],
            scanned=words.rows_scanned.format(rows_scanned=rows_scanned) if saved else "",
            ms=response.elapsed_ms,
        )
        if likes:
            status += f" · {words.mean_of_likes}"
        return [
            _about(language, metric),
            self.likes.shown(self._endpoints, ready, liked, disliked),
            *self._results.shown(response, language, status, more=k < min(MAX_K, count - len(likes))),
            *self._blindness.cleared(language, metric),
        ]

    def cleared(self, language: str, *form: Any) -> list[Any]:
        return [
            _about(language, form[0]),
            gr.update(visible=False),
            *self._results.cleared(),
            *self._blindness.cleared(language, form[0]),
        ]

    def address(self, *form: Any) -> dict[str, str]:
        metric, k, liked, _ = form
        return {"method": str(metric), "k": str(k)} | ({"like": liked} if liked else {})

    def from_address(self, parameters: Mapping[str, str], *form: Any) -> list[Any]:
        metric, k, liked, disliked = form
        metric = parameters["method"] if parameters.get("method") in METRICS else metric
        return [metric, k_from(parameters, k), parameters.get("like", liked), disliked]


def _choices(words: Words) -> list[tuple[str, str]]:
    return [(words.metrics[metric], metric) for metric in METRICS]


def _about(language: str, metric: Any) -> str:
    if metric not in FORMULAS:
        return ""
    words = WORDS[language]
    direction = words.larger if metric in LARGER_IS_CLOSER else words.smaller
    return f"{FORMULAS[metric]}\n\n{words.rewards[metric]} {direction}"
