"""Any open_clip model as an encoder, run by torch: the reference that an exported encoder is held against."""

import ctypes
import difflib
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from imgret.encoders.base import Encoder, EncoderError, Pixels, Vectors
from imgret.encoders.catalog import MANY_LANGUAGES, declared_languages
from imgret.encoders.preprocess import Preprocess
from imgret.errors import Sentence, one_line
from imgret.network import offline_unless_reachable

if TYPE_CHECKING:
    import torch

RANDOM_TAG = "random"

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h


class ClipEncoder(Encoder):
    """An open_clip model in eval mode. `load` finds it; `model` and `tokenizer` are open_clip's own, for export.

    Attributes:
        transform: the model's own picture preprocessing.
        model_config: open_clip's `model_cfg`, as the model was made from it.
    """

    def __init__(self, uri: str, model: Any, tokenizer: Any, model_config: dict[str, Any], device: str) -> None:
        self.uri = uri
        self.model = model.eval()
        self.tokenizer = tokenizer
        self.model_config = model_config
        self.dim = int(model_config["embed_dim"])
        self.languages = _languages(uri, tokenizer, model_config)
        self.transform = Preprocess.from_config(model.visual.preprocess_cfg)
        self.device = device

    @classmethod
    def load(cls, uri: str, device: str = "cpu", name: str | None = None) -> "ClipEncoder":
        """The model that `uri` names; `name` is what open_clip is asked for instead, where the two differ.

        Raises:
            EncoderError: there is no such model, neither the Hub nor its cache has it, or its files do not fit.
        """
        import open_clip
        import torch

        _keep_memory()
        if torch.device(device).type == "cuda" and not torch.cuda.is_available():
            raise EncoderError(uri, 'the device "{device}" was asked for, but torch finds no GPU', device=device)
        try:
            name, tag = _model_and_tag(uri, name or uri)
            with offline_unless_reachable(needed=_needs_hub(name, tag)):
                _check_source(name)
                config = open_clip.get_model_config(name)
                model = _random_model(name, device) if tag == RANDOM_TAG else _pretrained_model(name, tag, device)
                tokenizer = open_clip.get_tokenizer(name)
        except EncoderError:
            raise
        # open_clip, transformers, the Hub and the weight readers each have errors of their own for what does not fit.
        except Exception as error:
            raise EncoderError(uri, _reason(error, name or uri)) from error
        return cls(uri, model, tokenizer, config, device)

    def preprocess(self, image: Image.Image) -> Pixels:
        return self.transform(image)

    def _picture_vectors(self, pixels: Pixels) -> Vectors:
        import torch

        with torch.inference_mode():
            return self._numpy(self.model.encode_image(torch.from_numpy(np.ascontiguousarray(pixels)).to(self.device)))

    def _text_vectors(self, texts: Sequence[str]) -> Vectors:
        import torch

        with torch.inference_mode():
            return self._numpy(self.model.encode_text(self.tokenizer(list(texts)).to(self.device)))

    @staticmethod
    def _numpy(features: "torch.Tensor") -> Vectors:
        return np.asarray(features.float().cpu().numpy(), dtype=np.float32)


def _keep_memory() -> None:
    """Have the allocator keep what a batch has used: given back and asked for anew, it costs torch half of its time."""
    if sys.platform == "linux":
        allocator = ctypes.CDLL(None)
        if hasattr(allocator, "mallopt"):  # glibc
            allocator.mallopt(_M_MMAP_THRESHOLD, 1 << 30)
            allocator.mallopt(_M_TRIM_THRESHOLD, (1 << 31) - 1)


def _pretrained_model(name: str, tag: str | None, device: str) -> Any:
    import open_clip

    # Left alone, open_clip makes up for missing weights with random ones, or a text tower that never met pictures.
    return open_clip.create_model(name, tag, device=device, require_pretrained=True, pretrained_text=False)


def _random_model(architecture: str, device: str) -> Any:
    import open_clip
    import torch

    warnings.warn(
        f"{architecture}/{RANDOM_TAG} has seeded random weights, for benchmarks only: its vectors mean nothing.",
        stacklevel=4,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return open_clip.create_model(architecture, device=device, pretrained_text=False)


def _model_and_tag(uri: str, name: str) -> tuple[str, str | None]:
    """What open_clip calls the model, and its pretrained tag; a repo or a folder has none."""
    import open_clip

    scheme, _, place = name.partition(":")
    if scheme == "hf-hub":
        return name, None
    if scheme == "local-dir":
        if not place or not Path(place).is_dir():
            raise EncoderError(uri, 'there is no folder "{place}"', place=place)
        if not (Path(place) / "open_clip_config.json").is_file():
            raise EncoderError(uri, "the folder has no open_clip_config.json, so it is not an open_clip model")
        return name, None
    architecture, _, tag = name.partition("/")
    architectures = open_clip.list_models()
    if architecture not in architectures:
        hint = _did_you_mean(architecture, architectures)
        raise EncoderError(
            uri, 'open_clip knows no architecture "{architecture}"{hint}', architecture=architecture, hint=hint
        )
    tags = [*open_clip.list_pretrained_tags_by_model(architecture), RANDOM_TAG]
    # open_clip itself takes either spelling of a tag.
    if tag.lower().replace("-", "_") not in tags:
        problem = Sentence('has no pretrained tag "{tag}"', tag=tag) if tag else Sentence("needs a pretrained tag")
        raise EncoderError(
            uri,
            "{architecture} {problem}: write {architecture}/TAG with one of {tags}",
            architecture=architecture,
            problem=problem,
            tags=", ".join(tags),
        )
    return architecture, tag


def _needs_hub(name: str, tag: str | None) -> bool:
    import open_clip

    if name.startswith("hf-hub:") or tag not in (None, RANDOM_TAG):
        return True
    # The weights are at hand, but a Hugging Face text tower's configuration and tokenizer may not be.
    text = open_clip.get_model_config(name)["text_cfg"]
    return any(key in text and not Path(text[key]).is_dir() for key in ("hf_model_name", "hf_tokenizer_name"))


def _check_source(name: str) -> None:
    """Fetch a repo's files for the sake of plain errors: open_clip would only say that no weights were loaded."""
    if name.startswith("hf-hub:"):
        from huggingface_hub import hf_hub_download
        from open_clip.pretrained import download_pretrained_from_hf

        repo = name.removeprefix("hf-hub:")
        hf_hub_download(repo, "open_clip_config.json")
        download_pretrained_from_hf(repo)


def _reason(error: BaseException, name: str) -> str:
    """Why the model cannot be loaded. What the Hub said is often wrapped twice, in open_clip's words and its own."""
    from huggingface_hub import errors

    reasons: dict[tuple[type[Exception], ...], str] = {
        (errors.HFValidationError,): (
            f'"{name.removeprefix("hf-hub:")}" is not the name of a repo, which has the form org/name'
        ),
        (errors.GatedRepoError,): "its repo on the Hub is gated, and no token that opens it is set",
        (errors.RepositoryNotFoundError,): "the Hub has no such repo, or it is private",
        (errors.RemoteEntryNotFoundError,): (
            "its repo on the Hub has no open_clip_config.json or no weights, so it is not an open_clip model"
        ),
        (errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled): (
            "it is not in the local cache, and the Hub cannot be reached"
        ),
    }
    cause: BaseException | None = error
    while cause is not None:
        for kinds, reason in reasons.items():
            if isinstance(cause, kinds):
                return reason
        cause = cause.__cause__ or cause.__context__
    return one_line(error).rstrip(".")


def _languages(uri: str, tokenizer: Any, config: Mapping[str, Any]) -> tuple[str, ...]:
    """What the model is declared to read: by the catalogue, by its card on the Hub, by the name of its architecture or
    of its text tower, or by CLIP's own tokenizer, whose pieces are English; () where nothing is declared.
    """
    from open_clip.tokenizer import SimpleTokenizer

    text = config.get("text_cfg", {})
    for name in (uri, str(text.get("hf_model_name", "")), str(text.get("hf_tokenizer_name", ""))):
        if (declared := declared_languages(name)) is not None:
            return declared
    if uri.startswith("hf-hub:") and (by_card := _languages_of_card(uri.removeprefix("hf-hub:"))):
        return by_card
    return ("en",) if isinstance(tokenizer, SimpleTokenizer) else ()


def _languages_of_card(repo: str) -> tuple[str, ...]:
    from huggingface_hub import ModelCard, hf_hub_download

    try:
        with offline_unless_reachable(needed=True):
            said = ModelCard.load(hf_hub_download(repo, "README.md")).data.language
    except Exception:  # no card, one that cannot be read, or no Hub: nothing is declared
        return ()
    codes = tuple([said] if isinstance(said, str) else said or ())
    return MANY_LANGUAGES if "multilingual" in codes else codes


def _did_you_mean(word: str, words: list[str]) -> str:
    close = difflib.get_close_matches(word, words, n=3, cutoff=0.6)
    return f"; did you mean {' or '.join(close)}?" if close else ""
