"""Writes the files that map.js draws the map of a library from: its points and names, and a sheet of small pictures."""

import io
import json
from collections import defaultdict
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgret.images import load_image
from imgret.index import Index
from imgret.ui.area import UNITS
from imgret.ui.names import label_name

FORMAT = 1
"""Of the files, in their names: they stay in a cache."""
SHEET, MIN_CELL, MAX_CELL = 1000, 16, 40
"""The side of the sheet, and between which sides its pictures are, in pixels."""
MAX_SMALL = 1500
"""How many pictures are on the sheet. More would hide each other, and the first visitor waits for them; the others are
dots until one comes near.
"""
MAX_NAMES = 200
QUALITY = 60


def points_file(index: Index) -> bytes:
    """The map as JSON: `rows`, `x` and `y` of its points, those on the sheet first, UNITS to a side; `names`, each with
    its place and how many pictures have it, most first; `shapes`, width over height of the pictures on the sheet, of
    which there are `columns` in a row.
    """
    rows, points = _in_order(index)
    places = np.rint(points * UNITS).astype(int)
    records = map(index.record, _on_sheet(rows).tolist())
    shapes = [(record.width or 1) / (record.height or 1) for record in records]  # of a stranger's index, maybe 0
    content: dict[str, Any] = {
        "rows": rows.tolist(),
        "x": places[:, 0].tolist(),
        "y": places[:, 1].tolist(),
        "names": _names(index, rows, places),
        "shapes": [round(shape, 2) for shape in shapes],
        "columns": _columns(len(shapes)),
    }
    return json.dumps(content, separators=(",", ":")).encode()


def sheet_file(index: Index) -> bytes:
    """The small pictures as WebP, row by row, each in a square cell whatever its shape."""
    rows = _on_sheet(_in_order(index)[0]).tolist()
    columns = _columns(len(rows))
    cell = int(np.clip(SHEET // columns, MIN_CELL, MAX_CELL))
    sheet = Image.new("RGB", (columns * cell, -(-len(rows) // columns) * cell), "white")
    for number, row in enumerate(rows):
        place = number % columns * cell, number // columns * cell
        sheet.paste(load_image(index.thumbnail(row)).resize((cell, cell), Image.Resampling.LANCZOS), place)
    written = io.BytesIO()
    sheet.save(written, "webp", quality=QUALITY)
    return written.getvalue()


def _in_order(index: Index) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """The rows and the points of the map: first an even sample of MAX_SMALL, then the others."""
    assert index.map is not None
    rows, points = index.map
    first = np.arange(min(len(rows), MAX_SMALL)) * len(rows) // min(len(rows), MAX_SMALL)
    order = np.concatenate([first, np.setdiff1d(np.arange(len(rows)), first)])
    return rows[order], points[order]


def _on_sheet(rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return rows[:MAX_SMALL]


def _columns(count: int) -> int:
    return int(np.ceil(np.sqrt(count)))


def _names(index: Index, rows: npt.NDArray[np.int64], places: npt.NDArray[np.int_]) -> list[list[Any]]:
    """The names of the most common labels, each where that of its pictures lies that is nearest to their middle."""
    labels, numbers = index.words("label", "labels"), defaultdict[str, list[int]](list)
    for number, row in enumerate(rows.tolist()):
        for label in labels[row]:
            numbers[label].append(number)
    names = []
    for label, own in sorted(numbers.items(), key=lambda each: -len(each[1]))[:MAX_NAMES]:
        there = places[own]
        nearest = there[((there - np.median(there, axis=0)) ** 2).sum(axis=1).argmin()]
        names.append([label_name(label).partition(" (")[0], *nearest.tolist(), len(own)])
    return names
