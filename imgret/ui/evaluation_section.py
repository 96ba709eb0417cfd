"""The section of the library tab with the figures of `imgret evaluate`, for all pictures or one label."""

from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.blocks import Block

from imgret.index import FilterShare
from imgret.search import METHODS
from imgret.ui.endpoints import Endpoints
from imgret.ui.handlers import gradio_handler
from imgret.ui.i18n import WORDS, Words
from imgret.ui.localized import LocalizedComponents
from imgret.ui.tab import INTERNAL_EVENT
from imgret.vectors import FilterAudit

MEASURES = ("precision@1", "precision@5", "precision@10", "map")


class EvaluationSection:
    """A heading, a sentence, a plot and a table; the figures of held-out queries, by label, and of label filters."""

    def __init__(self, endpoints: Endpoints, localized: LocalizedComponents) -> None:
        self._endpoints = endpoints
        localized(gr.Markdown, {"value": lambda words: f"## {words.evaluation}"})
        lead = gr.Markdown("", elem_classes="small")
        with gr.Row():
            plot = gr.HTML(visible=False, elem_id="evaluation-plot")
            table = _table_field("evaluation-table")
        held_out_lead = gr.Markdown("", elem_classes="small")
        held_out = _table_field("evaluation-held-out")
        by_label = localized(
            gr.Dataframe,
            {"label": lambda words: f"{words.by_label}: {words.precision}"},
            show_label=True,
            interactive=False,
            visible=False,
            max_height=360,
            buttons=[],
            elem_id="evaluation-by-label",
        )
        filtered = gr.Markdown("", elem_classes="small", elem_id="filter-audit")
        self._of_label: list[Block] = [lead, plot, table]
        self._of_all: list[Block] = [held_out_lead, held_out, by_label, filtered]

    def wire(self, tab: gr.Tab, language: gr.Radio, label: gr.Dropdown) -> None:
        """Shows the figures when the tab is opened, in another language, and those of another label."""
        label.input(gradio_handler(self._figures), [language, label], self._of_label, **INTERNAL_EVENT)

        def speak(language: str, label: str) -> list[Any]:
            index, words = self._endpoints.start.wait().retriever.index, WORDS[language]
            return [
                *self._figures(language, label),
                *_held_out(index.evaluation, words),
                _by_label(index.evaluation, words.label),
                _filtered(index.manifest.filtered, words),
            ]

        for event in (tab.select, language.input):
            event(gradio_handler(speak), [language, label], [*self._of_label, *self._of_all], **INTERNAL_EVENT)

    def _figures(self, language: str, label: str) -> list[Any]:
        """The evaluation of the build, for all pictures or one label: a sentence, the plot, the table."""
        words, found = WORDS[language], self._endpoints.start.wait().retriever.index.evaluation
        hidden: dict[str, Any] = gr.update(visible=False)
        captions = [
            words.evaluation_captions.format(language=words.languages[language], recall=recalls["recall@10"])
            for language, recalls in (found or {}).get("captions_by_language", {}).items()
            if language in words.languages and recalls
        ]
        if not found or not found["methods"]:
            return ["\n\n".join([words.evaluation_none, *captions]), hidden, hidden]
        methods = found["by_label"].get(label, {}) if label else found["methods"]
        lead = "\n\n".join([words.evaluation_lead.format(queries=found["queries"]), *captions])
        if not methods:
            return [lead, hidden, hidden]
        return [
            lead,
            gr.update(value=_bars(methods, words), visible=True),
            gr.update(value=_table(methods, words), visible=True),
        ]


def _table_field(elem_id: str) -> gr.Dataframe:
    return gr.Dataframe(interactive=False, visible=False, elem_id=elem_id, show_search="none", buttons=[])


def _table(methods: Mapping[str, Mapping[str, float]], words: Words) -> dict[str, Any]:
    data = [
        [words.metrics[method], *(f"{figures[name]:.2f}" for name in MEASURES)] for method, figures in methods.items()
    ]
    return {"headers": [words.method, *MEASURES], "data": data}


def _held_out(evaluation: Mapping[str, Any] | None, words: Words) -> list[Any]:
    """A sentence about the queries that are not in the library, and the table of their figures."""
    found = (evaluation or {}).get("held_out")
    if not found:
        return ["", gr.update(visible=False)]
    lead = words.evaluation_held_out.format(queries=found["queries"])
    return [lead, gr.update(value=_table(found["methods"], words), visible=True)]


def _by_label(evaluation: Mapping[str, Any] | None, title: str) -> Any:
    if not evaluation or not evaluation["by_label"]:
        return gr.update(visible=False)
    data = [
        [label, *(f"{methods[method]['precision@10']:.2f}" if method in methods else "" for method in METHODS)]
        for label, methods in sorted(evaluation["by_label"].items())
    ]
    return gr.update(value={"headers": [title, *METHODS], "data": data}, visible=True)


def _filtered(audits: Mapping[FilterShare, FilterAudit | None], words: Words) -> str:
    """A sentence about the audit of label filters."""
    parts = [
        words.filtered_part.format(share=f"{100 * float(share):g} %", rows=audit.rows, recall=audit.recall, k=audit.k)
        for share, audit in audits.items()
        if audit
    ]
    return words.filtered.format(parts="; ".join(parts)) if parts else ""


def _bars(methods: Mapping[str, Mapping[str, float]], words: Words) -> str:
    """The first measure of each method as a bar, in HTML: Gradio's own plots load half a megabyte of scripts."""
    bars = "".join(
        f"<dt>{words.metrics[method]}</dt><dd><span style='width: {100 * figures[MEASURES[0]]:.1f}%'></span>"
        f"{figures[MEASURES[0]]:.2f}</dd>"
        for method, figures in methods.items()
    )
    return f"<p>{MEASURES[0]}</p><dl class='bars'>{bars}</dl>"
