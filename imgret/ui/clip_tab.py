"""The tab for CLIP search, by picture, text or both, with a negative text and label filters."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from imgret.metrics import METRICS
from imgret.search import EMBEDDING_METHODS
from imgret.startup import ReadyIndex
from imgret.ui.area import AreaFilter, rows_in
from imgret.ui.endpoints import Endpoints, Query
from imgret.ui.explanations import clip_explanation
from imgret.ui.i18n import WORDS, Words
from imgret.ui.likes import Likes
from imgret.ui.localized import LocalizedComponents
from imgret.ui.names import joined, separated
from imgret.ui.results import Results
from imgret.ui.tab import INTERNAL_EVENT, MAX_K, Tab, k_from, k_slider, picture_field

COSINE = "cosine"


class ClipTab(Tab):
    """What a trained network sees in pictures and texts."""

    name = "clip"
    likes: Likes
    area: AreaFilter

    def __init__(self, endpoints: Endpoints, localized: LocalizedComponents, language: gr.Radio) -> None:
        self._endpoints = endpoints
        with (
            localized(gr.Tab, {"label": lambda words: words.clip_tab}, id=self.name) as self.tab,
            gr.Row(elem_classes="search"),
        ):
            with gr.Column(scale=2, min_width=280, elem_classes="query"):
                self.picture, self.part = picture_field(localized, "clip-query")
                self.likes = Likes(localized, "clip")
                text = localized(
                    gr.Textbox,
                    {"label": lambda words: words.text, "placeholder": lambda words: words.text_example},
                    elem_id="clip-text",
                )
                negative = localized(
                    gr.Textbox,
                    {"label": lambda words: words.negative, "placeholder": lambda words: words.negative_example},
                )
                button = localized(
                    gr.Button, {"value": lambda words: words.search}, variant="primary", elem_id="clip-search"
                )
                self.area = AreaFilter("clip-area")
                self.labels = localized(
                    gr.Dropdown, {"label": lambda words: words.labels}, choices=[], multiselect=True
                )
                weight = localized(
                    gr.Slider, {"label": lambda words: words.weight}, minimum=0, maximum=1, value=0.5, step=0.05
                )
                metric = localized(
                    gr.Radio,
                    {"label": lambda words: words.metric_on_embeddings, "choices": _choices},
                    value=COSINE,
                    elem_id="clip-metric",
                )
                k = k_slider(localized)
            with gr.Column(scale=5, min_width=320, elem_classes="results"):
                suggestions = localized(
                    gr.Radio,
                    {"label": lambda words: words.suggestions, "choices": lambda words: list(words.suggested)},
                    value=None,
                    elem_id="clip-suggestions",
                )
                self._results = Results(localized, "clip", "likable dislikable")
                self.starter = gr.Markdown("", elem_classes="small")
        suggestions.input(
            lambda suggestion: (suggestion, None, "", ""),
            suggestions,
            [text, self.picture, *self.likes.fields],
            **INTERNAL_EVENT,
        ).then(None, js="() => document.querySelector('#clip-search').click()", api_visibility="private")
        liked, disliked = self.likes.fields
        self.form = [text, negative, weight, liked, disliked, self.labels, k, metric, self.area.value]
        self.cleared_on_example = (text, negative, liked, disliked)
        self.asking = (text, liked)
        self.more = self._results.more, k
        self.outputs = [self.likes.pictures, self.area.button, *self._results.outputs]
        self.hits = [self._results.hits]
        self._results.wire(endpoints, clip_explanation, language, [self.picture, self.part], self.form)
        self.triggers = [
            button.click,
            text.submit,
            negative.submit,
            weight.release,
            self.labels.input,
            k.release,
            metric.input,
        ]

    def search(self, ready: ReadyIndex, language: str, query: Query | None, *form: Any) -> list[Any]:
        text, negative, weight, liked, disliked, labels, k, metric, area = form
        likes, dislikes = separated(liked), separated(disliked)
        among = rows_in(ready.retriever.index, area)
        # An empty field of the form means "not given"; a program that sends an empty text gets an error instead.
        response = self._endpoints.by_clip(
            ready,
            query or Query(None),
            text or None,
            negative or None,
            weight,
            labels or None,
            k,
            metric,
            likes=likes,
            dislikes=dislikes,
            among=among,
        )
        words, count = WORDS[language], len(ready.retriever.index) if among is None else len(among)
        status = words.clip_status.format(
            hits=len(response.hits),
            count=count,
            metric="" if metric == COSINE else f", {words.metrics[metric]}",
            ms=response.elapsed_ms,
        )
        if metric == "l2":
            status += f" · {words.alike}"
        more = len(response.hits) >= k and k < min(MAX_K, count - len(likes) - len(dislikes))
        return [
            self.likes.shown(self._endpoints, ready, liked, disliked),
            self.area.shown(language, among),
            *self._results.shown(response, language, status, more=more),
        ]

    def cleared(self, language: str, *form: Any) -> list[Any]:
        among = rows_in(self._endpoints.start.wait().retriever.index, form[-1])
        return [gr.update(visible=False), self.area.shown(language, among), *self._results.cleared()]

    def address(self, *form: Any) -> dict[str, str]:
        text, negative, weight, liked, disliked, labels, k, metric, area = form
        given = {"text": text or "", "negative": negative or "", "label": joined(labels or ()), "k": str(k)}
        given |= {"like": liked, "dislike": disliked, "area": area}
        if metric != COSINE:
            given["method"] = f"{self.name}-{metric}"
        return {name: value for name, value in given.items() if value} | (
            {} if weight == 0.5 else {"weight": str(weight)}
        )

    def from_address(self, parameters: Mapping[str, str], *form: Any) -> list[Any]:
        text, negative, weight, liked, disliked, labels, k, metric, area = form
        try:
            weight = min(1.0, max(0.0, float(parameters.get("weight", parameters.get("w", weight)))))
        except ValueError:
            weight = 0.5
        labels = separated(parameters["label"]) if "label" in parameters else labels
        return [
            parameters.get("text", text),
            parameters.get("negative", negative),
            weight,
            parameters.get("like", liked),
            parameters.get("dislike", disliked),
            labels,
            k_from(parameters, k),
            EMBEDDING_METHODS.get(parameters.get("method", ""), metric),
            parameters.get("area", area),
        ]


def _choices(words: Words) -> list[tuple[str, str]]:
    return [(words.metrics[metric], metric) for metric in (COSINE, *(name for name in METRICS if name != COSINE))]
