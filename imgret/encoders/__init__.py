"""CLIP towers by name: `load_encoder` makes an encoder of a URI. Nothing heavy is imported before it is called."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgret.encoders.base import Encoder, EncoderError
from imgret.encoders.catalog import BUILD_COMMAND, CATALOG, STARTER, STARTER_FOLDER, KnownEncoder, uri_of

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "CATALOG",
    "Encoder",
    "EncoderError",
    "KnownEncoder",
    "can_export",
    "export_encoder",
    "fingerprint",
    "load_encoder",
    "ready_towers",
    "uri_of",
]


def load_encoder(
    uri: str,
    device: str = "cpu",
    cache: Path | None = None,
    exported: Path | None = None,
    threads: int | None = None,
) -> Encoder:
    """An encoder by its URI.

    Args:
        uri: "starter" (needs no network and no torch); "hf-hub:org/name" or "local-dir:/path", both as in open_clip;
            an open_clip architecture and pretrained tag, "ViT-B-32/laion2b_s34b_b79k"; or another short name of
            `CATALOG`. The tag "random" gives seeded random weights, for benchmarks only, and warns.
        device: where torch runs it, "cpu" or "cuda"; the starter runs on the CPU.
        cache: unused; earlier releases kept files of the starter there.
        exported: a folder that `export_encoder` made of this encoder. Where there is one, ONNX Runtime runs it on the
            CPU and torch is not imported; where there is none, torch runs the original.
        threads: how many threads one call of a ready-made or exported tower may use; default, one for each core.

    Raises:
        EncoderError: it cannot be loaded here. Files already in the Hub's cache need no network; without one, anything
            else ends here within seconds.
    """
    uri = uri_of(uri)
    towers = exported if exported is not None and exported.is_dir() else ready_towers(uri)
    if towers is not None:
        from imgret.encoders.onnx import OnnxEncoder

        if device != "cpu":
            raise EncoderError(uri, 'it runs on the CPU only, and the device "{device}" was asked for', device=device)
        encoder = OnnxEncoder(towers, threads)
        if encoder.uri != uri:
            raise EncoderError(uri, '{towers} is an export of another encoder, "{uri}"', towers=towers, uri=encoder.uri)
        return encoder
    try:
        from imgret.encoders.clip import ClipEncoder

        return ClipEncoder.load(uri, device)
    except ImportError as error:
        raise _lacking(uri, error) from error


def ready_towers(uri: str) -> Path | None:
    """The folder of the towers that come along, in the form of `export_encoder`'s; None for any other encoder."""
    return STARTER_FOLDER if uri_of(uri) == STARTER else None


def fingerprint(uri: str) -> str | None:
    """What `load_encoder(uri)` would have as `Encoder.fingerprint`, if that can be told without loading it."""
    towers = ready_towers(uri)
    return None if towers is None else _fingerprint_of(towers)


@cache
def _fingerprint_of(towers: Path) -> str:
    from imgret.encoders.onnx import OnnxEncoder

    return OnnxEncoder(towers).fingerprint


def can_export(encoder: Encoder) -> bool:
    """Whether `export_encoder` takes it: only what torch runs through open_clip."""
    import sys

    clip = sys.modules.get("imgret.encoders.clip")  # if it was never imported, this is none of its encoders
    return clip is not None and isinstance(encoder, clip.ClipEncoder)


def export_encoder(encoder: Encoder, folder: Path, images: "Sequence[Image]", texts: Sequence[str]) -> dict[str, Any]:
    """Exports both towers to `folder`, held against the original: see `imgret.encoders.export`. Raises EncoderError."""
    try:
        from imgret.encoders.clip import ClipEncoder
        from imgret.encoders.export import export_encoder as export

        assert isinstance(encoder, ClipEncoder)
        return export(encoder, folder, images, texts)
    except ImportError as error:
        raise _lacking(encoder.uri, error) from error


def _lacking(uri: str, error: ImportError) -> EncoderError:
    reason = "it needs the package {name}, which is not installed ({command} brings it)"
    return EncoderError(uri, reason, name=error.name, command=BUILD_COMMAND)
