"""Measures how well the starter finds the embedded library's pictures, on the half that nothing was chosen by."""

import csv
import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from imgret.encoders.base import Encoder

LIBRARY = Path(__file__).parents[3] / "examples" / "library"
LANGUAGES = ("en", "vi")


@dataclass(frozen=True)
class Sample:
    """A picture of the embedded library, its label, and its captions by language ("" where it has none)."""

    file: str
    label: str
    image: Image.Image
    captions: dict[str, str]

    @property
    def held_out(self) -> bool:
        """Half of the pictures, drawn by a hash of their names."""
        return hashlib.sha256(self.file.encode()).digest()[-1] % 2 == 1


def read_samples() -> list[Sample]:
    """All pictures of the embedded library."""
    with (LIBRARY / "metadata.csv").open(encoding="utf-8", newline="") as file:
        return [
            Sample(
                row["file_name"],
                row["label"],
                Image.open(LIBRARY / row["file_name"]).convert("RGB"),
                {"en": row["caption"], "vi": row["caption_vi"]},
            )
            for row in csv.DictReader(file)
        ]


def describe_by_halves(encoder: Encoder, samples: list[Sample]) -> str:
    """Recall from captions to pictures and precision@1 from pictures to pictures, as a table in Markdown.

    A caption or picture of a half is searched for among all pictures.
    """
    images = encoder.embed_images([sample.image for sample in samples])
    held_out = np.array([sample.held_out for sample in samples])
    halves = {"chosen by": ~held_out, "held out": held_out, "all": held_out | True}
    lines = ["| queries | half | number | @1 | @5 | @10 |", "|---|---|---|---|---|---|"]
    for language in LANGUAGES:
        captions = [sample.captions[language] for sample in samples]
        scores = encoder.embed_texts(captions) @ images.T
        ranks = 1 + (scores > np.diag(scores)[:, None]).sum(axis=1)
        given = np.array([bool(caption) for caption in captions])
        for name, half in halves.items():
            recalls = " | ".join(f"{np.mean(ranks[given & half] <= k):.3f}" for k in (1, 5, 10))
            lines.append(f"| captions ({language}), recall | {name} | {np.count_nonzero(given & half)} | {recalls} |")
    labels = np.array([sample.label for sample in samples])
    similar = images @ images.T
    np.fill_diagonal(similar, -1)
    right = labels[similar.argmax(axis=1)] == labels
    shared = (labels[:, None] == labels).sum(axis=1) > 1
    for name, half in halves.items():
        asked = shared & half
        lines.append(f"| pictures, precision | {name} | {np.count_nonzero(asked)} | {right[asked].mean():.3f} | | |")
    return "\n".join(lines)
