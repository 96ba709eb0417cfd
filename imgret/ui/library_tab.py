"""The tab that shows the library: its map, its pictures, the equal ones, and the figures of the evaluation."""

from collections.abc import Sequence

import gradio as gr

from imgret.ui.duplicates_section import DuplicatesSection
from imgret.ui.endpoints import Endpoints
from imgret.ui.evaluation_section import EvaluationSection
from imgret.ui.handlers import gradio_handler
from imgret.ui.localized import LocalizedComponents
from imgret.ui.map_section import MapSection
from imgret.ui.pictures_section import PicturesSection
from imgret.ui.tab import INTERNAL_EVENT


class LibraryTab:
    """The map beside the pictures of the library, and below them one section after the other.

    Attributes:
        pictures: the gallery of the library's pictures.
        map: the section with the map.
    """

    name = "library"

    def __init__(
        self, endpoints: Endpoints, localized: LocalizedComponents, language: gr.Radio, latest: Sequence[gr.Textbox]
    ) -> None:
        """`latest` holds the path of the last query picture, and its part."""
        self._endpoints = endpoints
        with localized(gr.Tab, {"label": lambda words: words.library_tab}, id=self.name) as self.tab:
            with gr.Row(elem_classes="library"):
                with gr.Column(scale=1, min_width=320, elem_classes="map-column"):
                    self.map = MapSection(endpoints, localized)
                with gr.Column(scale=1, min_width=320):
                    pictures = PicturesSection(endpoints, localized)
            duplicates = DuplicatesSection(endpoints, localized)
            evaluation = EvaluationSection(endpoints, localized)
            localized(gr.Markdown, {"value": lambda words: f"## {words.description}"})
            description = gr.Markdown("", elem_classes="small", elem_id="library-description")
        self.pictures = pictures.pictures
        self.map.wire(self.tab, language, latest)
        pictures.wire(self.tab, language, self.map.area)
        duplicates.wire(self.tab, language)
        evaluation.wire(self.tab, language, pictures.label)
        self.tab.select(gradio_handler(self._description), None, description, **INTERNAL_EVENT)

    def _description(self) -> str:
        lines = self._endpoints.start.wait().retriever.index.manifest.description
        return "\n".join(f"- {line}" for line in lines)
