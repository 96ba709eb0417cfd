"""The section of the library tab that shows the groups of equal and nearly equal pictures."""

from typing import Any

import gradio as gr

from imgret.search import SearchError
from imgret.ui.endpoints import Endpoints
from imgret.ui.handlers import gradio_handler
from imgret.ui.i18n import WORDS
from imgret.ui.localized import LocalizedComponents
from imgret.ui.results import hits_gallery
from imgret.ui.tab import INTERNAL_EVENT
from imgret.vietnamese import translated

MAX_SHOWN = 60


class DuplicatesSection:
    """A heading, a sentence, and the pictures of the first groups one after the other."""

    def __init__(self, endpoints: Endpoints, localized: LocalizedComponents) -> None:
        self._endpoints = endpoints
        localized(gr.Markdown, {"value": lambda words: f"## {words.duplicates}"})
        self._lead = gr.Markdown("", elem_classes="small", elem_id="duplicates-lead")
        self.pictures = hits_gallery("duplicates")

    def wire(self, tab: gr.Tab, language: gr.Radio) -> None:
        """Shows the groups when the tab is opened, and again in another language."""
        for event in (tab.select, language.input):
            event(gradio_handler(self._shown), language, [self._lead, self.pictures], **INTERNAL_EVENT)

    def _shown(self, language: str) -> list[Any]:
        ready, words = self._endpoints.start.wait(), WORDS[language]
        try:
            groups = self._endpoints.duplicate_groups(ready)
        except SearchError as error:
            return [translated(error.sentence, language), []]
        named = [
            (row, f"{number}. {words.duplicates_kinds[group.kind]} · {id}")
            for number, group in enumerate(groups, 1)
            for id, row in zip(group.ids, group.rows, strict=True)
        ]
        thumbnails = self._endpoints.thumbnails
        shown = [(str(thumbnails.path(ready.retriever, row)), name) for row, name in named[:MAX_SHOWN]]
        lead = words.duplicates_lead.format(groups=len(groups), pictures=len(named))
        return [lead if groups else words.duplicates_none, shown]
