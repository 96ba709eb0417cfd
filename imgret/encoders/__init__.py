"""CLIP towers by name: `load_encoder` makes an encoder of a URI. Nothing heavy is imported before it is called."""

from pathlib import Path

from imgret.encoders.base import Encoder, EncoderError

__all__ = ["Encoder", "EncoderError", "load_encoder"]


def load_encoder(uri: str, device: str = "cpu", cache: Path | None = None) -> Encoder:
    """An encoder by its URI.

    Args:
        uri: "starter" (needs no network); "hf-hub:org/name" or "local-dir:/path", both as in open_clip; or an open_clip
            architecture and pretrained tag, "ViT-B-32/laion2b_s34b_b79k". The tag "random" gives seeded random weights,
            for benchmarks only, and warns.
        device: where torch runs it, "cpu" or "cuda".
        cache: where the starter's model folder is kept; default IMGRET_CACHE, else ~/.cache/imgret.

    Raises:
        EncoderError: it cannot be loaded here. Files already in the Hub's cache need no network; without one, anything
            else ends here within seconds.
    """
    if uri == "starter":
        from imgret.encoders.starter import load_starter

        return load_starter(device, cache)
    from imgret.encoders.clip import ClipEncoder

    return ClipEncoder.load(uri, device)
