"""The tab that searches for one picture with all five methods, a row of hits each."""

from collections.abc import Mapping, Set
from typing import Any

import gradio as gr

from imgret.search import METHODS
from imgret.startup import ReadyIndex
from imgret.ui.endpoints import Endpoints, Query
from imgret.ui.i18n import WORDS
from imgret.ui.localized import LocalizedComponents
from imgret.ui.names import label_name
from imgret.ui.responses import Response
from imgret.ui.results import captioned, first_line, hits_gallery
from imgret.ui.tab import Tab, k_from, k_slider, picture_field
from imgret.vietnamese import translated

MAX_K = 10


class CompareTab(Tab):
    """L1, L2, cosine, correlation and CLIP side by side."""

    name = "compare"

    def __init__(self, endpoints: Endpoints, localized: LocalizedComponents) -> None:
        self._endpoints = endpoints
        with (
            localized(gr.Tab, {"label": lambda words: words.compare_tab}, id=self.name) as self.tab,
            gr.Row(elem_classes="search"),
        ):
            with gr.Column(scale=1, min_width=240, elem_classes="query"):
                self.picture, self.part = picture_field(localized, "compare-query")
                k = k_slider(localized, value=6, most=MAX_K)
                legend = gr.Markdown("", elem_classes="small")
            with gr.Column(scale=4, min_width=320, elem_id="compare-rows", elem_classes="results"):
                first_line(localized)
                rows = [
                    (gr.Markdown("", elem_classes="status"), hits_gallery(f"compare-{method}")) for method in METHODS
                ]
        self.form = [k]
        self.outputs = [legend, *(component for row in rows for component in row)]
        self.hits = [gallery for _, gallery in rows]
        self.triggers = [k.release]

    def search(self, ready: ReadyIndex, language: str, query: Query | None, *form: Any) -> list[Any]:
        if query is None:
            return self.cleared(language)
        words = WORDS[language]
        labels = self._labels_of(ready, query)
        answers = self._endpoints.by_all(ready, query, form[0])
        by_clip = {hit.id for hit in answers[-1].hits}
        legend = [words.compare, *([words.compare_agrees] if by_clip else [])]
        if labels:
            legend.append(words.compare_label.format(label=", ".join(map(label_name, labels))))
        values: list[Any] = ["\n\n".join(legend)]
        for response in answers:
            agrees = by_clip if response.method != "clip" else set()
            marks = {
                hit.id: ("● " if hit.id in agrees else "") + ("✓ " if labels & {*hit.labels} else "")
                for hit in response.hits
            }
            values += [_title(language, response, by_clip, labels), captioned(response, language, marks)]
        return values

    def cleared(self, language: str, *form: Any) -> list[Any]:
        empty: list[Any] = ["", []]
        return ["", *(empty * len(METHODS))]

    def address(self, *form: Any) -> dict[str, str]:
        return {"k": str(form[0])}

    def from_address(self, parameters: Mapping[str, str], *form: Any) -> list[Any]:
        return [k_from(parameters, form[0], MAX_K)]

    def _labels_of(self, ready: ReadyIndex, query: Query) -> Set[str]:
        """The labels of the query, if it is an example or a picture of the library."""
        index = ready.retriever.index
        if query.like is not None:
            return frozenset(index.record(index.row_of(query.like)).labels)
        labels = {label for one in self._endpoints.examples() if one.name == query.example for label in one.labels}
        return labels & index.manifest.labels.keys()


def _title(language: str, response: Response, by_clip: set[str], labels: Set[str]) -> str:
    count = len(response.hits)
    parts = [f"**{WORDS[language].metrics[response.method]}**"]
    if response.method != "clip" and by_clip:
        parts.append(f"● {sum(hit.id in by_clip for hit in response.hits)} / {count}")
    if labels and count:
        parts.append(f"✓ precision@{count} {sum(bool(labels & {*hit.labels}) for hit in response.hits) / count:.2f}")
    if response.notice and not count:  # why there are none; of what was found, all five say the same
        parts.append(translated(response.notice, language))
    return " · ".join(parts)
