"""What do the search tabs have in common? A picture to search with, a form, and galleries of hits to go on from."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import gradio as gr
from gradio.blocks import Block

from imgret.startup import Ready
from imgret.ui.crop import WHOLE
from imgret.ui.endpoints import Query
from imgret.ui.localized import Spoken

MAX_K = 50

# How the page's own events are asked for. Without preprocessing a picture arrives as the file it is, undecoded:
# images/ alone decodes what strangers send. Without a place for progress, because Gradio's script writes the state of
# each event to every component that ever was such a place, and reads much of the page for it: 280 ms a click.
QUIETLY: dict[str, Any] = {"preprocess": False, "show_progress_on": [], "api_visibility": "private"}


class Tab(ABC):
    """A tab with a query picture: its components, made when it is, and the search behind them.

    Attributes:
        name: what the address calls it.
        tab: the Gradio tab.
        picture: the field of the query picture.
        part: the part of it to search with.
        form: what a search depends on besides the picture.
        besides: the fields of the form that are emptied where an example is the whole query.
        outputs: what a search fills.
        hits: the galleries among them, whose pictures can be clicked.
        triggers: the events that search anew.
    """

    name: str
    tab: gr.Tab
    picture: gr.Image
    part: gr.Textbox
    form: list[Block]
    besides: tuple[Block, ...] = ()
    outputs: list[Block]
    hits: list[gr.Gallery]
    triggers: list[Any]

    @abstractmethod
    def search(self, ready: Ready, language: str, query: Query | None, *form: Any) -> list[Any]:
        """The values of `outputs`."""

    @abstractmethod
    def cleared(self, language: str, *form: Any) -> list[Any]:
        """The values of `outputs` where there is nothing to search for."""

    @abstractmethod
    def address(self, *form: Any) -> dict[str, str]:
        """What the address keeps of the form."""

    @abstractmethod
    def from_address(self, parameters: Mapping[str, str], *form: Any) -> list[Any]:
        """The form's values with what the address says of them."""


def picture_field(spoken: Spoken, elem_id: str) -> tuple[gr.Image, gr.Textbox]:
    """A field for a query picture, from a file, the clipboard or a camera; and the part of it, as crop.js marks it."""
    picture = spoken(
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
    spoken(gr.Markdown, {"value": lambda words: words.part}, elem_id=f"{elem_id}-hint", elem_classes="small")
    return picture, gr.Textbox(WHOLE, visible="hidden", elem_id=f"{elem_id}-part")


def k_slider(spoken: Spoken, value: int = 10, most: int = MAX_K) -> gr.Slider:
    """The field for k."""
    return spoken(gr.Slider, {"label": lambda words: words.k}, minimum=1, maximum=most, value=value, step=1)


def k_from(parameters: Mapping[str, str], k: Any, most: int = MAX_K) -> Any:
    """k as the address says, if it says one that the slider has."""
    asked = parameters.get("k", "")
    return int(asked) if asked.isascii() and asked.isdigit() and 1 <= int(asked) <= most else k
