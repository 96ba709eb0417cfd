"""The encoders that have short names, and which languages an encoder is declared to read."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path

STARTER = "starter"
STARTER_FOLDER = Path(__file__).with_name("starter_towers")

BUILD_COMMAND = "pip install 'imgret[build]'"
BUILD_PACKAGES = ("torch", "open_clip", "timm", "transformers", "onnx", "onnxscript")
"""What loading and exporting an open_clip model imports: the extra `build`."""

MANY_LANGUAGES = ("*",)
_MULTILINGUAL = ("xlm-roberta", "mt5", "nllb", "i18n", "siglip2", "worldwide")
"""Words in the names of open_clip's architectures whose text towers were trained on about a hundred languages."""


@dataclass(frozen=True)
class KnownEncoder:
    """An encoder with a short name.

    Attributes:
        name: what may be written instead of the URI.
        uri: what `load_encoder` makes of it, and what an index is said to be made with.
        languages: as `Encoder.languages`.
        megabytes: the size of its weights: what the package holds, or what is downloaded once.
        needs: what must be there to build with it, in words; nothing of it is needed to search the index.
        about: a sentence about it.
    """

    name: str
    uri: str
    languages: tuple[str, ...]
    megabytes: int
    needs: str
    about: str


_HUB = f"the Hub once, {BUILD_COMMAND}"

CATALOG = (
    KnownEncoder(STARTER, STARTER, ("en", "vi"), 55, "nothing", "Small, comes along and works offline."),
    KnownEncoder(
        "clip",
        "hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K",
        ("en",),
        605,
        _HUB,
        "The course's CLIP, ViT-B/32 trained on two billion pictures.",
    ),
    KnownEncoder(
        "multilingual",
        "xlm-roberta-base-ViT-B-32/laion5b_s13b_b90k",
        MANY_LANGUAGES,
        1467,
        _HUB,
        "CLIP with XLM-RoBERTa as text tower, trained on five billion pictures.",
    ),
    KnownEncoder(
        "siglip2",
        "ViT-B-16-SigLIP2/webli",
        MANY_LANGUAGES,
        1500,
        _HUB,
        "Google's SigLIP 2, ViT-B/16.",
    ),
)


def uri_of(name: str) -> str:
    """The URI that a short name stands for; anything else is taken as a URI."""
    return next((known.uri for known in CATALOG if known.name == name), name)


def declared_languages(name: str) -> tuple[str, ...] | None:
    """The languages that an open_clip architecture or a URI in the catalogue is declared to read; None if nothing is
    declared.
    """
    for known in CATALOG:
        if name in (known.name, known.uri):
            return known.languages
    lowered = name.lower()
    return MANY_LANGUAGES if any(word in lowered for word in _MULTILINGUAL) else None


def missing_packages() -> list[str]:
    """Those of BUILD_PACKAGES that are not installed here."""
    return [package for package in BUILD_PACKAGES if importlib.util.find_spec(package) is None]
