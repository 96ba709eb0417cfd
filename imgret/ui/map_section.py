"""The section of the library tab with the map, which map.js draws, and what is marked on it."""

import html
import json
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from imgret.errors import ImgretError
from imgret.index import Index
from imgret.projection import locate
from imgret.search import SearchError
from imgret.startup import ReadyIndex
from imgret.ui.area import WHOLE_LIBRARY, rows_in
from imgret.ui.endpoints import SEARCH_QUEUE, Endpoints
from imgret.ui.handlers import gradio_handler
from imgret.ui.i18n import WORDS, Words
from imgret.ui.localized import LocalizedComponents
from imgret.ui.map_files import FORMAT, points_file, sheet_file
from imgret.ui.names import label_name
from imgret.ui.tab import INTERNAL_EVENT

NAMED = 3
"""How many labels of the pictures in an area are told."""
CHANGED = "() => document.dispatchEvent(new Event('map'))"


class MapSection:
    """A heading, the map with its buttons, and a sentence about the area that is marked.

    Attributes:
        area: the area that is marked, as `area.py` has it; map.js draws it and writes it.
        picked: what map.js writes for a picture that is clicked: the path of its thumbnail, which only this index has,
            and a number that makes it new.
        search_there: the button that takes the area to the search by CLIP.
    """

    def __init__(self, endpoints: Endpoints, localized: LocalizedComponents) -> None:
        self._endpoints = endpoints
        self._drawing = threading.Lock()
        says = {"value": lambda words: f"## {words.map}\n{words.map_lead}"}
        localized(gr.Markdown, says, elem_classes="small")
        self._map = localized(gr.HTML, {"value": _map_html}, elem_id="library-map", js_on_load=None)
        self._state = gr.Textbox("", visible="hidden", elem_id="map-state")  # as JSON, for map.js
        self.area = gr.Textbox(WHOLE_LIBRARY, visible="hidden", elem_id="map-area")
        self.picked = gr.Textbox("", visible="hidden", elem_id="map-picked")
        self._marked = gr.HTML("", elem_classes="small", elem_id="map-marked", js_on_load=None)
        with gr.Row(visible=False, elem_id="map-of-area") as self._of_area:
            self.search_there = localized(
                gr.Button, {"value": lambda words: words.search_area}, size="sm", variant="primary", min_width=180
            )
            self._unmark = localized(gr.Button, {"value": lambda words: words.unmark}, size="sm", min_width=110)

    def wire(self, tab: gr.Tab, language: gr.Radio, latest: Sequence[gr.Textbox]) -> None:
        """Asks for the map when the tab is opened; says what is marked whenever that changes."""
        tab.select(gradio_handler(self._drawn), [*latest], [self._map, self._state], **INTERNAL_EVENT, **SEARCH_QUEUE)
        for field in (self._state, self.area):
            field.change(None, js=CHANGED, api_visibility="private")
        self._unmark.click(None, None, self.area, js=f"() => '{WHOLE_LIBRARY}'", api_visibility="private")
        for event in (self.area.change, language.input):
            event(gradio_handler(self._told), [language, self.area], [self._marked, self._of_area], **INTERNAL_EVENT)

    def path(self, picked: Any) -> str:
        """The thumbnail of the picture that was clicked. Raises SearchError."""
        retriever, thumbnails = self._endpoints.start.wait().retriever, self._endpoints.thumbnails
        try:
            path, _ = json.loads(picked)
            row = thumbnails.row_of(retriever, Path(path))
        except (TypeError, ValueError):
            row = None
        if row is None:
            raise SearchError("There is no such hit.")
        return str(thumbnails.path(retriever, row))

    def _drawn(self, latest: str, part: str) -> list[Any]:
        """The files of the map, and the point where the latest query belongs."""
        ready = self._endpoints.start.wait()
        index, thumbnails = ready.retriever.index, self._endpoints.thumbnails
        if index.map is None:
            return [gr.update(visible=False), ""]
        with self._drawing:  # visitors who come meanwhile wait for the one map
            points = thumbnails.file(index, f"map.{FORMAT}.json", lambda: points_file(index))
            sheet = thumbnails.file(index, f"map.{FORMAT}.webp", lambda: sheet_file(index))
        state = {
            "points": points.as_posix(),
            "sheet": sheet.as_posix(),
            "thumbnails": points.as_posix().removesuffix(f"map.{FORMAT}.json"),  # and a row and .webp
            "ring": self._ring(ready, latest, part),
        }
        return [gr.update(visible=True), json.dumps(state)]

    def _ring(self, ready: ReadyIndex, latest: str, part: str) -> tuple[float, float] | None:
        try:
            query = self._endpoints.query(ready, {"path": latest}, part) if latest else None
            vector = None if query is None else ready.retriever.embed_query(query.picture, like=query.like)
        except ImgretError:  # the map is there without a query
            return None
        return None if vector is None else locate(ready.retriever.index, vector)

    def _told(self, language: str, area: str) -> list[Any]:
        """A sentence about the area, and whether its buttons are there."""
        index = self._endpoints.start.wait().retriever.index
        rows = rows_in(index, area)
        if rows is None:
            return ["", gr.update(visible=False)]
        return [f"<p>{told(index, rows.tolist(), WORDS[language])}</p>", gr.update(visible=True)]


def told(index: Index, rows: Sequence[int], words: Words) -> str:
    """What is in an area of the map, in HTML: how many pictures, of which labels, and what is left out."""
    assert index.map is not None
    on_map = len(index.map[0])
    lines = [words.marked.format(marked=len(rows), left_out=on_map - len(rows))]
    if on_map < len(index):
        lines.append(words.not_on_map.format(on_map=on_map, count=len(index)))
    labels = index.words("label", "labels")
    counts = Counter(label for row in rows for label in labels[row])
    named = [f"{html.escape(label_name(label))} {count}" for label, count in counts.most_common(NAMED)]
    if len(counts) > NAMED:
        named.append(words.other_labels.format(count=len(counts) - NAMED))
    if named:
        lines.append(words.marked_labels.format(labels=", ".join(named)))
    return " ".join(lines)


def _map_html(words: Words) -> str:
    """The canvas and its buttons; each button's `data-do` is an action of map.js."""

    def button(action: str, sign: str, says: str = "") -> str:
        label = f' aria-label="{html.escape(says)}" title="{html.escape(says)}"' if says else ""
        return f'<button type="button" data-do="{action}"{label}>{html.escape(sign)}</button>'

    buttons = (
        button("in", "+", words.zoom_in),
        button("out", "−", words.zoom_out),
        button("whole", words.whole_map),
        button("lasso", words.lasso),
        button("view", words.mark_view),
    )
    return (
        f'<div class="map-buttons">{"".join(buttons)}</div>'
        f'<canvas tabindex="0" role="application" aria-label="{html.escape(words.map)}" aria-describedby="map-keys">'
        "</canvas>"
        f'<p id="map-keys" class="small by-mouse">{html.escape(words.map_keys)}</p>'
        f'<p class="small by-touch">{html.escape(words.map_touch)}</p>'
    )
