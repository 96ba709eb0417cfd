"""The area of the map that a search is kept to: the corners of a polygon, "x_y_x_y_...", UNITS to a side of the map."""

from typing import Any

import gradio as gr
import numpy as np
import numpy.typing as npt

from imgret.index import Index
from imgret.projection import enclosed
from imgret.search import SearchError
from imgret.ui.i18n import WORDS

WHOLE_LIBRARY = ""
BETWEEN, UNITS = "_", 10_000
MAX_CORNERS = 200

Rows = npt.NDArray[np.int64]


class AreaFilter:
    """The area as a field of a search form, and a button that says so and takes it away."""

    def __init__(self, elem_id: str) -> None:
        self.value = gr.Textbox(WHOLE_LIBRARY, visible="hidden")
        self.button = gr.Button("", size="sm", visible=False, elem_id=elem_id)

    @staticmethod
    def shown(language: str, rows: Rows | None) -> Any:
        """The update of `button` for the rows in the area, None for the whole library."""
        if rows is None:
            return gr.update(visible=False)
        return gr.update(value=WORDS[language].only_in_area.format(count=len(rows)), visible=True)


def rows_in(index: Index, area: Any) -> Rows | None:
    """The rows of the pictures in an area, in order; None for WHOLE_LIBRARY. Raises SearchError."""
    if area == WHOLE_LIBRARY:
        return None
    if index.map is None:
        raise SearchError("This library has no map.")
    try:
        numbers = area.split(BETWEEN, 2 * MAX_CORNERS) if len(area) <= 16 * MAX_CORNERS else []
        corners = np.array([int(number) for number in numbers]).reshape(-1, 2) / UNITS
    except (AttributeError, TypeError, ValueError, OverflowError):
        corners = np.empty((0, 2))
    if not 3 <= len(corners) <= MAX_CORNERS or np.abs(corners).max() > 2:
        raise SearchError(
            "An area of the map is x_y_x_y_...: 3 to {most} corners, whole numbers, {units} to a side of the map.",
            most=MAX_CORNERS,
            units=UNITS,
        )
    rows, points = index.map
    inside = rows[enclosed(points, corners)]
    if not len(inside):
        raise SearchError("No picture lies in this area of the map; mark another one.")
    return inside
