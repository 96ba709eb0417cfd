"""CLIP towers by name: `load_encoder` makes an encoder of a URI. Nothing heavy is imported before it is called."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgret.encoders.base import Encoder, EncoderError

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Encoder", "EncoderError", "can_export", "export_encoder", "load_encoder", "shared_export"]


def load_encoder(
    uri: str,
    device: str = "cpu",
    cache: Path | None = None,
    exported: Path | None = None,
    threads: int | None = None,
) -> Encoder:
    """An encoder by its URI.

    Args:
        uri: "starter" (needs no network); "hf-hub:org/name" or "local-dir:/path", both as in open_clip; or an open_clip
            architecture and pretrained tag, "ViT-B-32/laion2b_s34b_b79k". The tag "random" gives seeded random weights,
            for benchmarks only, and warns.
        device: where torch runs it, "cpu" or "cuda".
        cache: where the starter's model folder is kept; default IMGRET_CACHE, else ~/.cache/imgret.
        exported: a folder that `export_encoder` made of this encoder. Where there is one, ONNX Runtime runs it on the
            CPU and torch is not imported; where there is none, torch runs the original.
        threads: how many threads one call of an exported tower may use; default, one for each core.

    Raises:
        EncoderError: it cannot be loaded here. Files already in the Hub's cache need no network; without one, anything
            else ends here within seconds.
    """
    if exported is not None and exported.is_dir():
        from imgret.encoders.onnx import OnnxEncoder

        encoder = OnnxEncoder(exported, threads)
        if encoder.uri != uri:
            raise EncoderError(uri, f'{exported} is an export of another encoder, "{encoder.uri}"')
        return encoder
    if uri == "starter":
        from imgret.encoders.starter import load_starter

        return load_starter(device, cache)
    from imgret.encoders.clip import ClipEncoder

    return ClipEncoder.load(uri, device)


def can_export(encoder: Encoder) -> bool:
    """Whether `export_encoder` takes it: only what torch runs through open_clip."""
    from imgret.encoders.clip import ClipEncoder

    return isinstance(encoder, ClipEncoder)


def export_encoder(encoder: Encoder, folder: Path, images: "Sequence[Image]", texts: Sequence[str]) -> dict[str, Any]:
    """Exports both towers to `folder`, held against the original: see `imgret.encoders.export`. Raises EncoderError."""
    from imgret.encoders.clip import ClipEncoder
    from imgret.encoders.export import export_encoder as export

    assert isinstance(encoder, ClipEncoder)
    # In int8 the starter's text tower fails the comparison (least cosine 0.97), and its other one has no use for it.
    return export(encoder, folder, images, texts, int8=encoder.uri != "starter")


def shared_export(uri: str, cache: Path | None = None) -> Path | None:
    """Where an export may be kept for other libraries to use, or None.

    Only the starter's: its version fixes its weights, and its towers stay fp32, which no library's pictures can change.
    """
    if uri != "starter":
        return None
    from imgret.encoders.starter import model_folder

    folder = model_folder(cache)
    return folder.with_name(f"{folder.name}-onnx")
