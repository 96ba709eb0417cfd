"""The tab that shows the library: its pictures, its map, and the figures of the evaluation."""

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr
from gradio.blocks import Block

from imgret.index import FilterShare, Index
from imgret.projection import locate
from imgret.search import METHODS, SearchError
from imgret.ui.duplicates_section import DuplicatesSection
from imgret.ui.endpoints import Endpoints
from imgret.ui.handlers import gradio_handler
from imgret.ui.i18n import WORDS, Words
from imgret.ui.localized import LocalizedComponents
from imgret.ui.map_picture import MapPicture
from imgret.ui.names import label_name
from imgret.ui.results import hits_gallery
from imgret.ui.tab import INTERNAL_EVENT
from imgret.vectors import FilterAudit

PER_PAGE = 27
MEASURES = ("precision@1", "precision@5", "precision@10", "map")
ALL = ""


class LibraryTab:
    """The library by label, page by page, its map, and the figures of `imgret evaluate`."""

    name = "library"

    def __init__(
        self, endpoints: Endpoints, localized: LocalizedComponents, language: gr.Radio, latest: Sequence[gr.Textbox]
    ) -> None:
        """`latest` holds the path of the last query picture, and its part."""
        self._endpoints = endpoints
        self._drawing = threading.Lock()
        self._picture: tuple[str, MapPicture] | None = None
        with localized(gr.Tab, {"label": lambda words: words.library_tab}, id=self.name) as self.tab:
            with gr.Row():
                label = localized(
                    gr.Dropdown,
                    {"label": lambda words: words.label},
                    choices=[("", ALL)],
                    value=ALL,
                    elem_id="library-label",
                    scale=3,
                )
                number = localized(
                    gr.Number,
                    {"label": lambda words: words.page},
                    value=1,
                    minimum=1,
                    precision=0,
                    scale=1,
                    min_width=90,
                )
                previous = localized(gr.Button, {"value": lambda words: f"← {words.previous}"}, scale=1, min_width=110)
                following = localized(gr.Button, {"value": lambda words: f"{words.next} →"}, scale=1, min_width=110)
            status = gr.Markdown("", elem_classes="small")
            self.pictures = hits_gallery("library-pictures")
            localized(gr.Markdown, {"value": lambda words: f"## {words.map}\n{words.map_lead}"})
            self.map = localized(
                gr.Image,
                {"alt_text": lambda words: words.map_lead},
                interactive=False,
                show_label=False,
                container=False,
                format="webp",
                buttons=["fullscreen"],
                elem_id="library-map",
            )
            duplicates = DuplicatesSection(endpoints, localized)
            localized(gr.Markdown, {"value": lambda words: f"## {words.evaluation}"})
            lead = gr.Markdown("", elem_classes="small")
            with gr.Row():
                plot = gr.HTML(visible=False, elem_id="evaluation-plot")
                table = gr.Dataframe(
                    interactive=False, visible=False, elem_id="evaluation-table", show_search="none", buttons=[]
                )
            held_out_lead = gr.Markdown("", elem_classes="small")
            held_out = gr.Dataframe(
                interactive=False, visible=False, elem_id="evaluation-held-out", show_search="none", buttons=[]
            )
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
            localized(gr.Markdown, {"value": lambda words: f"## {words.description}"})
            description = gr.Markdown("", elem_classes="small", elem_id="library-description")
        duplicates.wire(self.tab, language)
        where: list[Block] = [language, label, number]
        browsed: list[Block] = [number, status, self.pictures]
        figures: list[Block] = [lead, plot, table]
        for event, step in ((previous.click, -1), (following.click, 1), (number.submit, 0)):

            def turn(language: str, label: str, number: Any, step: int = step) -> list[Any]:
                return self._browse(language, label, int(number or 1) + step)

            event(gradio_handler(turn), where, browsed, **INTERNAL_EVENT)

        def choose(language: str, label: str) -> list[Any]:
            return [*self._browse(language, label, 1), *self._figures(language, label)]

        label.input(gradio_handler(choose), [language, label], [*browsed, *figures], **INTERNAL_EVENT)

        def speak(language: str, label: str, number: Any) -> list[Any]:
            index = endpoints.start.wait().retriever.index
            words, labels = WORDS[language], index.manifest.labels
            choices = [
                (words.all_labels, ALL),
                *((f"{label_name(name)}: {count}", name) for name, count in labels.items()),
            ]
            return [
                gr.update(choices=choices),
                *self._browse(language, label, int(number or 1)),
                *self._figures(language, label),
                *_held_out(index.evaluation, words),
                _by_label(index.evaluation, words.label),
                _filtered(index.manifest.filtered, words),
                "\n".join(f"- {line}" for line in index.manifest.description),
            ]

        spoken_parts = [label, *browsed, *figures, held_out_lead, held_out, by_label, filtered, description]
        self.tab.select(gradio_handler(speak), where, spoken_parts, **INTERNAL_EVENT)
        self.tab.select(gradio_handler(self._map), [*latest], self.map, **INTERNAL_EVENT)
        language.input(gradio_handler(speak), where, spoken_parts, **INTERNAL_EVENT)

    def _browse(self, language: str, label: str, number: int) -> list[Any]:
        """The pictures of one page: its number, a sentence, the gallery."""
        ready = self._endpoints.start.wait()
        index = ready.retriever.index
        rows = index.rows_of(label) if label else range(len(index))
        pages = max(1, -(-len(rows) // PER_PAGE))
        number = min(max(1, number), pages)
        start = (number - 1) * PER_PAGE
        pictures = []
        for row in map(int, rows[start : start + PER_PAGE]):
            record = index.record(row)
            name = record.captions.get(language) or record.caption or record.label or record.id
            pictures.append((str(self._endpoints.thumbnails.path(ready.retriever, row)), name))
        return [number, WORDS[language].browse.format(count=len(rows), page=number, pages=pages), pictures]

    def _map(self, latest: str, part: str) -> Any:
        """The map, with a ring where the latest query belongs."""
        ready = self._endpoints.start.wait()
        index = ready.retriever.index
        if index.map is None:
            return gr.update(visible=False)
        query = self._endpoints.query(ready, {"path": latest}, part) if latest else None
        vector = None if query is None else ready.retriever.embed_query(query.picture, like=query.like)
        point = None if vector is None else locate(index, vector)
        return gr.update(value=self._drawn(index).with_ring(point), visible=True)

    def clicked(self, x: float, y: float) -> str:
        """The thumbnail of the picture at a point of the map, in pixels. Raises SearchError."""
        ready = self._endpoints.start.wait()
        if ready.retriever.index.map is None:
            raise SearchError("This library has no map.")
        row = self._drawn(ready.retriever.index).row_at(x, y)
        return str(self._endpoints.thumbnails.path(ready.retriever, row))

    def _drawn(self, index: Index) -> MapPicture:
        with self._drawing:  # visitors who come meanwhile wait for the one picture
            if self._picture is None or self._picture[0] != index.manifest.data:
                self._picture = index.manifest.data, MapPicture(index)
            return self._picture[1]

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
