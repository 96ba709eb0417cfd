"""The tab that asks all five methods for the same picture, a row each."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from imgret.search import METHODS
from imgret.startup import Ready
from imgret.ui.endpoints import Endpoints, Query
from imgret.ui.examples import Example
from imgret.ui.i18n import WORDS, translated
from imgret.ui.localized import Spoken
from imgret.ui.responses import Answer
from imgret.ui.results import captioned, first_line, hits_gallery
from imgret.ui.tab import Tab, k_from, k_slider, picture_field

MAX_K = 10


class CompareTab(Tab):
    """L1, L2, cosine, correlation and CLIP side by side."""

    name = "compare"

    def __init__(self, endpoints: Endpoints, spoken: Spoken, examples: Sequence[Example]) -> None:
        self._endpoints = endpoints
        self._labels = {example.path.name: example.label for example in examples}
        with (
            spoken(gr.Tab, {"label": lambda words: words.compare_tab}, id=self.name) as self.tab,
            gr.Row(elem_classes="search"),
        ):
            with gr.Column(scale=1, min_width=240, elem_classes="query"):
                self.picture, self.part = picture_field(spoken, "compare-query")
                k = k_slider(spoken, value=6, most=MAX_K)
                legend = gr.Markdown("", elem_classes="small")
            with gr.Column(scale=4, min_width=320, elem_id="compare-rows", elem_classes="results"):
                first_line(spoken)
                rows = [
                    (gr.Markdown("", elem_classes="status"), hits_gallery(f"compare-{method}")) for method in METHODS
                ]
        self.form = [k]
        self.outputs = [legend, *(component for row in rows for component in row)]
        self.hits = [gallery for _, gallery in rows]
        self.triggers = [k.release]

    def search(self, ready: Ready, language: str, query: Query | None, *form: Any) -> list[Any]:
        if query is None:
            return self.cleared(language)
        words = WORDS[language]
        label = self._label_of(ready, query)
        answers = self._endpoints.by_all(ready, query, form[0])
        by_clip = {hit.id for hit in answers[-1].hits}
        legend = [words.compare, *([words.compare_agrees] if by_clip else [])]
        if label:
            legend.append(words.compare_label.format(label=label))
        values: list[Any] = ["\n\n".join(legend)]
        for answer in answers:
            agrees = by_clip if answer.method != "clip" else set()
            marks = {
                hit.id: ("● " if hit.id in agrees else "") + ("✓ " if label is not None and hit.label == label else "")
                for hit in answer.hits
            }
            values += [_title(language, answer, by_clip, label), captioned(answer, language, marks)]
        return values

    def cleared(self, language: str, *form: Any) -> list[Any]:
        empty: list[Any] = ["", []]
        return ["", *(empty * len(METHODS))]

    def address(self, *form: Any) -> dict[str, str]:
        return {"k": str(form[0])}

    def from_address(self, parameters: Mapping[str, str], *form: Any) -> list[Any]:
        return [k_from(parameters, form[0], MAX_K)]

    def _label_of(self, ready: Ready, query: Query) -> str | None:
        """The label of the query, where it is known: of an example, or of a picture of the library."""
        index = ready.retriever.index
        if query.like is not None:
            return index.record(index.row_of(query.like)).label
        label = self._labels.get(query.example or "")
        return label if label in index.manifest.labels else None


def _title(language: str, answer: Answer, by_clip: set[str], label: str | None) -> str:
    count = len(answer.hits)
    parts = [f"**{WORDS[language].metrics[answer.method]}**"]
    if answer.method != "clip" and by_clip:
        parts.append(f"● {sum(hit.id in by_clip for hit in answer.hits)} / {count}")
    if label and count:
        parts.append(f"✓ precision@{count} {sum(hit.label == label for hit in answer.hits) / count:.2f}")
    if answer.notice and not count:  # why there are none; of what was found, all five say the same
        parts.append(translated(answer.notice, language))
    return " · ".join(parts)
