"""The section of the library tab that shows its pictures page by page, of one label or area of the map or of all."""

from typing import Any

import gradio as gr
import numpy as np
from gradio.blocks import Block

from imgret.ui.area import rows_in
from imgret.ui.endpoints import Endpoints
from imgret.ui.handlers import gradio_handler
from imgret.ui.i18n import WORDS
from imgret.ui.localized import LocalizedComponents
from imgret.ui.names import label_name
from imgret.ui.results import hits_gallery
from imgret.ui.tab import INTERNAL_EVENT

PER_PAGE = 27
ALL = ""


class PicturesSection:
    """The fields that choose what is shown, a sentence about it, and a gallery."""

    def __init__(self, endpoints: Endpoints, localized: LocalizedComponents) -> None:
        self._endpoints = endpoints
        with gr.Row(elem_classes="pages"):
            self.label = localized(
                gr.Dropdown,
                {"label": lambda words: words.label},
                choices=[("", ALL)],
                value=ALL,
                elem_id="library-label",
                scale=3,
                min_width=180,
            )
            self._number = localized(
                gr.Number, {"label": lambda words: words.page}, value=1, minimum=1, precision=0, scale=1, min_width=90
            )
            says = {"value": lambda words: f"← {words.previous}"}
            self._previous = localized(gr.Button, says, size="sm", scale=1, min_width=100)
            says = {"value": lambda words: f"{words.next} →"}
            self._next = localized(gr.Button, says, size="sm", scale=1, min_width=100)
        self._status = gr.Markdown("", elem_classes="small", elem_id="library-status")
        self.pictures = hits_gallery("library-pictures")

    def wire(self, tab: gr.Tab, language: gr.Radio, area: gr.Textbox) -> None:
        """Shows a page when the tab is opened, and another one when a field or the area of the map changes."""
        where: list[Block] = [language, self.label, area, self._number]
        shown: list[Block] = [self._number, self._status, self.pictures]
        for event, step in ((self._previous.click, -1), (self._next.click, 1), (self._number.submit, 0)):

            def turn(language: str, label: str, area: str, number: Any, step: int = step) -> list[Any]:
                return self._page(language, label, area, int(number or 1) + step)

            event(gradio_handler(turn), where, shown, **INTERNAL_EVENT)

        def first(language: str, label: str, area: str) -> list[Any]:
            return self._page(language, label, area, 1)

        for event in (self.label.input, area.change):
            event(gradio_handler(first), where[:-1], shown, **INTERNAL_EVENT)

        def speak(language: str, label: str, area: str, number: Any) -> list[Any]:
            words, labels = WORDS[language], self._endpoints.start.wait().retriever.index.manifest.labels
            named = [(f"{label_name(name)}: {count}", name) for name, count in labels.items()]
            choices = [(words.all_labels, ALL), *named]
            return [gr.update(choices=choices), *self._page(language, label, area, int(number or 1))]

        for event in (tab.select, language.input):
            event(gradio_handler(speak), where, [self.label, *shown], **INTERNAL_EVENT)

    def _page(self, language: str, label: str, area: str, number: int) -> list[Any]:
        """One page of pictures: its number, a sentence, the gallery."""
        ready = self._endpoints.start.wait()
        index, words = ready.retriever.index, WORDS[language]
        rows = index.rows_of(label) if label else np.arange(len(index))
        marked = rows_in(index, area)
        if marked is not None:
            rows = np.intersect1d(rows, marked)
        pages = max(1, -(-len(rows) // PER_PAGE))
        number = min(max(1, number), pages)
        start = (number - 1) * PER_PAGE
        pictures = []
        for row in map(int, rows[start : start + PER_PAGE]):
            record = index.record(row)
            name = record.captions.get(language) or record.caption or record.label or record.id
            pictures.append((str(self._endpoints.thumbnails.path(ready.retriever, row)), name))
        return [number, words.browse.format(count=len(rows), page=number, pages=pages), pictures]
