"""The tab for CLIP search: by picture, by text, by both, minus a text, among some labels."""

from collections.abc import Mapping
from typing import Any

import gradio as gr

from imgret.startup import Ready
from imgret.ui.endpoints import Endpoints, Query
from imgret.ui.explanations import why_clip
from imgret.ui.i18n import WORDS
from imgret.ui.localized import Spoken
from imgret.ui.results import Results
from imgret.ui.tab import QUIETLY, Tab, k_from, k_slider, picture_field


class ClipTab(Tab):
    """What a trained network sees in pictures and texts."""

    name = "clip"

    def __init__(self, endpoints: Endpoints, spoken: Spoken, language: gr.Radio) -> None:
        self._endpoints = endpoints
        with (
            spoken(gr.Tab, {"label": lambda words: words.clip_tab}, id=self.name) as self.tab,
            gr.Row(elem_classes="search"),
        ):
            with gr.Column(scale=2, min_width=280, elem_classes="query"):
                self.picture, self.part = picture_field(spoken, "clip-query")
                text = spoken(
                    gr.Textbox,
                    {"label": lambda words: words.text, "placeholder": lambda words: words.text_example},
                    elem_id="clip-text",
                )
                negative = spoken(
                    gr.Textbox,
                    {"label": lambda words: words.negative, "placeholder": lambda words: words.negative_example},
                )
                button = spoken(
                    gr.Button, {"value": lambda words: words.search}, variant="primary", elem_id="clip-search"
                )
                self.labels = spoken(gr.Dropdown, {"label": lambda words: words.labels}, choices=[], multiselect=True)
                weight = spoken(
                    gr.Slider, {"label": lambda words: words.weight}, minimum=0, maximum=1, value=0.5, step=0.05
                )
                k = k_slider(spoken)
            with gr.Column(scale=5, min_width=320, elem_classes="results"):
                suggestions = spoken(
                    gr.Radio,
                    {"label": lambda words: words.suggestions, "choices": lambda words: list(words.suggested)},
                    value=None,
                    elem_id="clip-suggestions",
                )
                self._results = Results(spoken, "clip")
                self.starter = gr.Markdown("", elem_classes="small")
        suggestions.input(
            lambda suggestion: (suggestion, None),
            suggestions,
            [text, self.picture],
            **QUIETLY,
        ).then(None, js="() => document.querySelector('#clip-search').click()", api_visibility="private")
        self.form = [text, negative, weight, self.labels, k]
        self.besides = (text, negative)
        self.outputs = self._results.outputs
        self.hits = [self._results.hits]
        self._results.wire(endpoints, why_clip, language, [self.picture, self.part], self.form)
        self.triggers = [button.click, text.submit, negative.submit, weight.release, self.labels.input, k.release]

    def search(self, ready: Ready, language: str, query: Query | None, *form: Any) -> list[Any]:
        text, negative, weight, labels, k = form
        # An empty field of the form means "not given"; a program that sends an empty text is told so instead.
        answer = self._endpoints.by_clip(
            ready, query or Query(None), text or None, negative or None, weight, labels or None, k
        )
        status = WORDS[language].clip_status.format(
            hits=len(answer.hits), count=len(ready.retriever.index), ms=answer.elapsed_ms
        )
        return self._results.shown(answer, language, status)

    def cleared(self, language: str, *form: Any) -> list[Any]:
        return self._results.cleared()

    def address(self, *form: Any) -> dict[str, str]:
        text, negative, weight, labels, k = form
        given = {"text": text or "", "negative": negative or "", "label": "|".join(labels or ()), "k": str(k)}
        return {name: value for name, value in given.items() if value} | ({} if weight == 0.5 else {"w": str(weight)})

    def from_address(self, parameters: Mapping[str, str], *form: Any) -> list[Any]:
        text, negative, weight, labels, k = form
        try:
            weight = min(1.0, max(0.0, float(parameters.get("w", weight))))
        except ValueError:
            weight = 0.5
        labels = parameters["label"].split("|") if "label" in parameters else labels
        return [
            parameters.get("text", text),
            parameters.get("negative", negative),
            weight,
            labels,
            k_from(parameters, k),
        ]
