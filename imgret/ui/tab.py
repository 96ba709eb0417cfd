"""What do the search tabs have in common? A picture to search with, a form, and galleries of hits to go on from."""

from abc import ABC, abstractmethod
from typing import Any

import gradio as gr
from gradio.blocks import Block

from imgret.metrics import LARGER_IS_CLOSER
from imgret.search import Hit
from imgret.start import Ready
from imgret.ui.answers import Answer
from imgret.ui.endpoints import Query
from imgret.ui.spoken import Spoken
from imgret.ui.texts import Words

MAX_K = 50

SAVE_JSON = """(answer) => {
  if (!answer) return;
  save(JSON.stringify(answer, null, 1), answer.method + '.json', 'application/json');
  function save(text, name, type) {
    const link = document.createElement('a');
    link.href = URL.createObjectURL(new Blob([text], {type}));
    link.download = 'imgret-' + name;
    link.click();
    URL.revokeObjectURL(link.href);
  }
}"""
SAVE_CSV = SAVE_JSON.replace(
    "save(JSON.stringify(answer, null, 1), answer.method + '.json', 'application/json');",
    """const columns = ['rank', 'id', 'label', 'caption', 'score'];
  const cell = (value) => '"' + String(value ?? '').replaceAll('"', '""') + '"';
  const rows = answer.hits.map((hit) => columns.map((column) => cell(hit[column])).join(','));
  save([columns.join(','), ...rows].join('\\r\\n') + '\\r\\n', answer.method + '.csv', 'text/csv');""",
)


class Tab(ABC):
    """A tab with a query picture: its components, made when it is, and the search behind them.

    Attributes:
        name: what the address calls it.
        tab: the Gradio tab.
        picture: the field of the query picture.
        form: what a search depends on besides the picture.
        outputs: what a search fills.
        hits: the galleries among them, whose pictures can be clicked.
        triggers: the events that search anew.
    """

    name: str
    tab: gr.Tab
    picture: gr.Image
    form: list[Block]
    outputs: list[Block]
    hits: list[gr.Gallery]
    triggers: list[Any]

    @abstractmethod
    def search(self, ready: Ready, language: str, query: Query | None, *form: Any) -> list[Any]:
        """The values of `outputs`."""

    @abstractmethod
    def address(self, *form: Any) -> dict[str, str]:
        """What the address keeps of the form."""

    @abstractmethod
    def from_address(self, parameters: dict[str, str], *form: Any) -> list[Any]:
        """The form's values with what the address says of them."""


def picture_field(spoken: Spoken, elem_id: str) -> gr.Image:
    """A field for a query picture: from a file, the clipboard or a camera."""
    return spoken(
        gr.Image,
        {"label": lambda words: words.query_picture},
        type="filepath",
        sources=["upload", "clipboard", "webcam"],
        height=220,
        elem_id=elem_id,
        buttons=[],
    )


def hits_gallery(elem_id: str) -> gr.Gallery:
    """A gallery of hits, empty yet."""
    return gr.Gallery(
        show_label=False,
        elem_id=elem_id,
        elem_classes="hits",
        height="auto",
        object_fit="contain",
        interactive=False,
        allow_preview=False,
        buttons=[],
    )


def k_slider(spoken: Spoken, value: int = 10, most: int = MAX_K) -> gr.Slider:
    """The field for k."""
    return spoken(gr.Slider, {"label": lambda words: words.k}, minimum=1, maximum=most, value=value, step=1)


def save_buttons(spoken: Spoken, answer: gr.JSON) -> None:
    """Buttons that save the answer that `answer` holds, made in the browser."""
    with gr.Row(elem_classes="save"):
        for kind, script in (("JSON", SAVE_JSON), ("CSV", SAVE_CSV)):

            def says(words: Words, kind: str = kind) -> str:
                return f"{words.save} {kind}"

            button = spoken(gr.Button, {"value": says}, size="sm", min_width=90, scale=0)
            button.click(None, answer, js=script, api_visibility="private")


def shown(answer: Answer, language: str, mark: Any = None) -> list[tuple[str, str]]:
    """The hits of an answer as a gallery's pictures with captions; `mark` gives what stands before a hit's name."""
    return [
        (
            str(path),
            f"{hit.rank}. {score_text(answer.method, hit.score)} · {mark(hit) if mark else ''}{name(hit, language)}",
        )
        for hit, path in zip(answer.hits, answer.images, strict=True)
    ]


def name(hit: Hit, language: str) -> str:
    """What a hit's caption calls it."""
    return hit.label or caption(hit, language) or hit.id


def caption(hit: Hit, language: str) -> str | None:
    """A hit's caption in `language`, else the one there is."""
    return hit.captions.get(language) or hit.caption


def score_text(method: str, score: float) -> str:
    """A score in the digits of its scale."""
    return f"{score:.4f}" if method in LARGER_IS_CLOSER or method == "clip" else f"{score:,.0f}"


def direction(words: Words, method: str) -> str:
    """Which scores are close."""
    return words.larger if method in LARGER_IS_CLOSER else words.smaller


def k_from(parameters: dict[str, str], k: Any, most: int = MAX_K) -> Any:
    """k as the address says, if it says one that the slider has."""
    asked = parameters.get("k", "")
    return int(asked) if asked.isascii() and asked.isdigit() and 1 <= int(asked) <= most else k
