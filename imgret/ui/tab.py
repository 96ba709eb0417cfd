"""The base class of the search tabs, and the fields that they share."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.blocks import Block

from imgret.startup import ReadyIndex
from imgret.ui.area import AreaFilter
from imgret.ui.crop import FULL_IMAGE
from imgret.ui.endpoints import Query
from imgret.ui.likes import Likes
from imgret.ui.localized import LocalizedComponents

MAX_K = 100

# Options of the page's own events. `preprocess`: pictures arrive as files, since imgret.images alone decodes uploads.
# `show_progress_on`: no component, since Gradio's script updates every component that ever showed progress, at 280 ms a
# click.
INTERNAL_EVENT: dict[str, Any] = {"preprocess": False, "show_progress_on": [], "api_visibility": "private"}


class Tab(ABC):
    """A tab with a query picture: its Gradio components, and the search that fills them.

    Attributes:
        name: its name in the address of the page.
        tab: the Gradio tab.
        picture: the field of the query picture.
        part: the part of it to search with.
        form: the other fields that a search depends on.
        cleared_on_example: the fields of the form that are emptied when an example is chosen.
        asking: the fields of the form that can be searched for without a picture.
        likes: the pictures of the library that a visitor marked, if the tab takes them.
        area: the area of the library's map that its searches can be kept to, if there is one.
        more: the button for further hits and the field for k, of a tab that has one.
        outputs: the components that a search fills.
        hits: the galleries among the outputs; a click on a hit searches for more like it.
        triggers: the events that start a search.
    """

    name: str
    tab: gr.Tab
    picture: gr.Image
    part: gr.Textbox
    form: list[Block]
    cleared_on_example: tuple[Block, ...] = ()
    asking: tuple[Block, ...] = ()
    likes: Likes | None = None
    area: AreaFilter | None = None
    more: tuple[gr.Button, gr.Slider] | None = None
    outputs: list[Block]
    hits: list[gr.Gallery]
    triggers: list[Any]

    @abstractmethod
    def search(self, ready: ReadyIndex, language: str, query: Query | None, *form: Any) -> list[Any]:
        """The values of `outputs`."""

    @abstractmethod
    def cleared(self, language: str, *form: Any) -> list[Any]:
        """The values of `outputs` if there is nothing to search for."""

    @abstractmethod
    def address(self, *form: Any) -> dict[str, str]:
        """The parameters of the address for the values of the form."""

    @abstractmethod
    def from_address(self, parameters: Mapping[str, str], *form: Any) -> list[Any]:
        """The values of the form for the parameters of the address; of what they leave out, the value in `form`."""


def picture_field(localized: LocalizedComponents, elem_id: str) -> tuple[gr.Image, gr.Textbox]:
    """The field of a query picture, from a file, the clipboard or a camera, and the field of its part, which crop.js
    fills.
    """
    picture = localized(
        gr.Image,
        {
            "label": lambda words: words.query_picture,
            "alt_text": lambda words: words.query_picture,
            "placeholder": lambda words: words.drop,
        },
        type="filepath",
        sources=["upload", "clipboard", "webcam"],
        height=220,
        elem_id=elem_id,
        elem_classes="query-picture",
        buttons=[],
    )
    localized(
        gr.Markdown, {"value": lambda words: words.part}, elem_id=f"{elem_id}-hint", elem_classes="small by-mouse"
    )
    localized(gr.Markdown, {"value": lambda words: words.part_by_touch}, elem_classes="small by-touch")
    return picture, gr.Textbox(FULL_IMAGE, visible="hidden", elem_id=f"{elem_id}-part")


def k_slider(localized: LocalizedComponents, value: int = 10, most: int = MAX_K) -> gr.Slider:
    """The field for k."""
    return localized(gr.Slider, {"label": lambda words: words.k}, minimum=1, maximum=most, value=value, step=1)


def k_from(parameters: Mapping[str, str], k: Any, most: int = MAX_K) -> Any:
    """k from the address, if it is a value of the slider."""
    asked = parameters.get("k", "")
    return int(asked) if asked.isascii() and asked.isdigit() and 1 <= int(asked) <= most else k
