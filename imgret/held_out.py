"""The held-out pictures of an index: queries that are not in its library, a few of them packed in one Arrow file."""

import io
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
from PIL import Image

from imgret.files.npy import mapped

SIDE = 512
"""The longest side of a packed picture in pixels."""

_SCHEMA = pa.schema(
    [
        ("id", pa.string()),
        ("labels", pa.list_(pa.string())),
        ("caption", pa.string()),
        ("captions", pa.map_(pa.string(), pa.string())),
        ("picture", pa.binary()),
    ]
)


@dataclass(frozen=True)
class HeldOutPicture:
    """A picture to search with; `picture` is WebP, of at most `SIDE` pixels a side."""

    id: str
    labels: tuple[str, ...]
    caption: str | None
    captions: Mapping[str, str]
    picture: bytes


def packed(image: Image.Image) -> bytes:
    """The picture as WebP, shrunk to at most `SIDE` pixels a side."""
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE), reducing_gap=2.0)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=90)
    return buffer.getvalue()


def spread(labels: Iterable[tuple[str, ...]], count: int) -> list[int]:
    """At most `count` rows, in order: the first of each label, then the second, and so on."""
    rows_of: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row, each in enumerate(labels):
        rows_of[each].append(row)
    turns = sorted((turn, row) for rows in rows_of.values() for turn, row in enumerate(rows))
    return sorted(row for _, row in turns[:count])


def write(path: Path, pictures: Iterable[HeldOutPicture]) -> None:
    """Writes the pictures to a file."""
    rows = [vars(one) | {"labels": list(one.labels), "captions": list(one.captions.items())} for one in pictures]
    with pa.ipc.new_file(str(path), _SCHEMA) as file:
        file.write_batch(pa.RecordBatch.from_pylist(rows, schema=_SCHEMA))


def read(path: Path) -> tuple[HeldOutPicture, ...]:
    """The pictures of a file that `write` made. Raises ValueError or an ArrowException for another file."""
    table = pa.ipc.open_file(pa.py_buffer(mapped(path))).read_all()
    if not table.schema.equals(_SCHEMA):
        raise ValueError(f"{path.name} has other columns than held-out pictures")
    table.validate(full=True)  # wrong offsets would crash the process
    found = tuple(
        HeldOutPicture(row["id"], tuple(row["labels"]), row["caption"], dict(row["captions"]), row["picture"])
        for row in table.to_pylist()
    )
    if any(one.id is None or one.picture is None for one in found) or len({one.id for one in found}) < len(found):
        raise ValueError("the ids of its held-out pictures are not unique")
    return found
