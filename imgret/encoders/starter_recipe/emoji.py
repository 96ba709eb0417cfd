"""Real pairs of pictures and names: the emoji of free fonts, named in English and Vietnamese by emojibase.

A font's pictures come as SVG in an npm package of Iconify, and `resvg_py` draws them.
"""

import io
import json
import re
import tarfile
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

LEFT_OUT_GROUPS = (None, 2, 9)
"""Emoji that show nothing to be searched for: letters of regions, skin tones and hair by themselves, and flags."""

_SIDE, _MARGIN = 200, 12


@dataclass(frozen=True)
class Emoji:
    """An emoji: its code points in hexadecimal, and its name by language."""

    code: str
    names: dict[str, str]


def read_emoji(emojibase: Path) -> list[Emoji]:
    """The emoji that show something, in an order that is always the same, from the npm package `emojibase-data`."""
    by_language = {
        language: {row["hexcode"]: row for row in _read_json(emojibase, f"package/{language}/data.json")}
        for language in ("en", "vi")
    }
    return [
        Emoji(code, {language: rows[code]["label"] for language, rows in by_language.items()})
        for code, row in by_language["en"].items()
        if row.get("group") not in LEFT_OUT_GROUPS
    ]


def draw_emoji(font: Path, emoji: Sequence[Emoji]) -> Iterator[tuple[str, Image.Image]]:
    """The code and the picture, on white, of each emoji that the font has; `font` is an `@iconify-json` package."""
    from resvg_py import svg_to_bytes

    icons, names = _read_json(font, "package/icons.json"), _read_json(font, "package/chars.json")
    by_code = {code.replace("-fe0f", ""): name for code, name in names.items()}
    for one in emoji:
        name = by_code.get(one.code.lower().replace("-fe0f", "")) or _slug(one.names["en"])
        icon = icons["icons"].get(icons.get("aliases", {}).get(name, {}).get("parent", name))
        if icon is None:
            continue
        box = (
            *(icon.get(k, 0) for k in ("left", "top")),
            *(icon.get(k, icons.get(k, 16)) for k in ("width", "height")),
        )
        svg = (
            '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{" ".join(map(str, box))}" width="{_SIDE}" height="{_SIDE}">{icon["body"]}</svg>'
        )
        png = svg_to_bytes(svg_string=svg, width=_SIDE, height=_SIDE, background="#ffffff", skip_system_fonts=True)
        page = Image.new("RGB", (_SIDE + 2 * _MARGIN,) * 2, "white")
        page.paste(Image.open(io.BytesIO(bytes(png))).convert("RGB"), (_MARGIN, _MARGIN))
        yield one.code, page


def _read_json(package: Path, name: str) -> Any:
    with tarfile.open(package) as archive:
        file = archive.extractfile(name)
        assert file is not None
        return json.load(file)


def _slug(label: str) -> str:
    """An emoji's name as Iconify writes it."""
    plain = unicodedata.normalize("NFKD", label).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
