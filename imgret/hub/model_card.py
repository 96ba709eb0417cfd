"""Renders the model card of a published index: its figures, and a picture of queries and their hits."""

import io
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from imgret.index import Index
from imgret.library import ImageLibrary
from imgret.settings import EXAMPLE_LIBRARY

CARD, SAMPLE = "README.md", "sample.webp"

_SHOWN, _CELL, _LINE = 6, 112, 20
_UNKNOWN = "unknown"


def render_card(
    folder: Path, repo: str, license: str | None = None, *, cache: Path | None = None
) -> Mapping[str, bytes]:
    """The model card of the index in `folder` for `repo`, and its picture, by file name.

    Its figures are those of the build. `license` is that of the pictures, by default the one in the card of a Hub data
    set. Raises InvalidIndexError.
    """
    with closing(Index.open(folder, cache=cache)) as index:
        return {CARD: _card(index, repo, license or _license(index)).encode(), SAMPLE: _sample(index)}


def _card(index: Index, repo: str, license: str) -> str:
    from huggingface_hub import ModelCardData

    manifest = index.manifest
    library, encoder, recall = manifest.library, manifest.encoder, manifest.recall
    model = encoder.uri.removeprefix("hf-hub:")
    data = ModelCardData(
        license=license,
        library_name="imgret",
        tags=["imgret-index", "image-retrieval", "similarity-search", "chroma"],
        datasets=[library.source] if library.on_hub else None,
        base_model=model if model != encoder.uri else None,
    )
    selection = ", ".join(
        f"{name} `{value}`"
        for name, value in (("config", library.config), ("split", library.split), ("revision", library.revision))
        if value
    )
    variables = {"IMGRET_INDEX": repo, "IMGRET_LIBRARY": library.name, "IMGRET_ENCODER": encoder.uri}
    variables |= {"IMGRET_LIMIT": str(library.limit)} if library.limit else {}
    shell = " ".join(f"{name}={value}" for name, value in variables.items())
    return f"""---
{data.to_yaml().strip()}
---

# {manifest.count} pictures of {library.name}, ready to be searched

An index of imgret: find similar pictures by L1, L2, cosine similarity and
correlation of their pixels, and by {encoder.uri} in a Chroma store.

![Pictures of the library and what is found for them]({SAMPLE})

| | |
|---|---|
| library | `{library.name}`{f" ({selection})" if selection else ""} |
| pictures | {manifest.count}, in {len(manifest.labels)} labels; {manifest.skipped_count} could not be read |
| licence of the pictures | {license if license != _UNKNOWN else "not stated by their source"} |
| encoder | `{encoder.uri}`, {encoder.dim} dimensions{", exported to ONNX, in this repo" if encoder.export else ""} |
| pixel metrics | on {manifest.pixel_size} x {manifest.pixel_size} pixels, exact |
| true neighbours found by the Chroma store | {recall.recall:.2%} of {recall.k}, by {recall.queries} queries |

{_figures(index.evaluation)}
## How to use it

```
{shell} imgret serve
```

```python
import imgret
from imgret.hub import fetch

retriever = imgret.Retriever(imgret.Index.open(fetch("{repo}").folder))
retriever.by_clip(text="...", k=5)
```
"""


def _figures(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return "The library has no labels and no captions, so its answers were not measured.\n"
    lines = []
    if figures["methods"]:
        lines += [
            f"## How good are the answers?\n\n{figures['queries']} of its pictures as queries against the others; "
            "a hit is right if it has the same label.\n",
            *_rows(figures["methods"]),
        ]
    if held_out := figures.get("held_out"):
        lines.append(f"\n{held_out['queries']} pictures that are not in the library as queries:\n")
        lines += _rows(held_out["methods"])
    if figures["captions"]:
        found = ", ".join(f"{name} {value:.2f}" for name, value in figures["captions"].items())
        by = f", by {figures['caption_queries']} captions" if "caption_queries" in figures else ""
        lines.append(f"\nFrom a caption to its picture{by}: {found}.")
    for language, values in figures.get("captions_by_language", {}).items():
        found = ", ".join(f"{name} {value:.2f}" for name, value in values.items())
        lines.append(f"From a caption in {language}: {found}.")
    return "\n".join(lines) + "\n"


def _rows(methods: Mapping[str, Mapping[str, float]]) -> list[str]:
    """A table of the figures by method."""
    names = list(next(iter(methods.values())))
    return [
        f"| | {' | '.join(names)} |",
        f"|{'---|' * (len(names) + 1)}",
        *(
            f"| {method} | {' | '.join(f'{value:.2f}' for value in values.values())} |"
            for method, values in methods.items()
        ),
    ]


def _license(index: Index) -> str:
    library = index.manifest.library
    if library.on_hub:
        from huggingface_hub import HfApi

        card: Any = HfApi().dataset_info(library.source, revision=library.revision, timeout=10).card_data
        stated = getattr(card, "license", None) or _UNKNOWN
        return stated if isinstance(stated, str) else stated[0] if len(stated) == 1 else "other"
    embedded = ImageLibrary.load(EXAMPLE_LIBRARY)
    return "gpl-2.0" if library.revision == embedded.revision else _UNKNOWN


def _sample(index: Index) -> bytes:
    """Three pictures from the library as queries, each with its hits by L2 and by CLIP, as WebP."""
    rows = np.linspace(0, len(index) - 1, 5).astype(int)[1:-1]
    font = ImageFont.load_default(14)
    sheet = Image.new("RGB", ((_SHOWN + 1) * _CELL, len(rows) * 2 * (_CELL + _LINE)), "white")
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        by_pixels, _ = index.pixels.search(index.pixels.vectors[row], "l2", min(_SHOWN + 1, len(index)))
        by_embedding = np.argsort(-(index.embeddings @ index.embeddings[row]), kind="stable")[: _SHOWN + 1]
        for line, (method, found) in enumerate((("L2", by_pixels), ("embedding", by_embedding))):
            top = (2 * number + line) * (_CELL + _LINE)
            draw.text((4, top + 2), f"query, and by {method}:", "black", font)
            for place, hit in enumerate([row, *(hit for hit in found if hit != row)][: _SHOWN + 1]):
                with Image.open(io.BytesIO(index.thumbnail(int(hit)))) as picture:
                    picture.thumbnail((_CELL - 4, _CELL - 4))
                    sheet.paste(picture, (place * _CELL + 2, top + _LINE + 2))
    buffer = io.BytesIO()
    sheet.save(buffer, "WEBP", quality=80)
    return buffer.getvalue()
