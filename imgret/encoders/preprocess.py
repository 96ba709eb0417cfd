"""How a picture becomes a picture tower's input: open_clip's inference transform, bit for bit, in Pillow and numpy.

Source: `image_transform` in open_clip/transform.py (3.3.0) and the torchvision functions it calls, which on Pillow
pictures are Pillow's own `resize`, `crop` and `expand`. The tests hold the two against each other in every mode.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "longest", "squash"]

_LONGEST_STRIP = 32
"""Only the middle of a strip longer than 32 times its width is resized: 1 x 100,000 would take 15 GB at 224 px."""


@dataclass(frozen=True)
class Preprocess:
    """A model's transform: resize, crop or pad to `size` (height, width), then (value / 255 - mean) / std."""

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation
    resize_mode: ResizeMode
    fill_color: int

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """From open_clip's `preprocess_cfg`, whose size, mean and std may each be one number."""
        size, mean, std = config["size"], config["mean"], config["std"]
        height, width = size if isinstance(size, list | tuple) else (size, size)
        return cls(
            size=(int(height), int(width)),
            mean=tuple(mean) if isinstance(mean, list | tuple) else (mean,) * 3,
            std=tuple(std) if isinstance(std, list | tuple) else (std,) * 3,
            # open_clip also knows "random", for training; at inference it means bicubic.
            interpolation="bilinear" if config["interpolation"] == "bilinear" else "bicubic",
            resize_mode=config["resize_mode"],
            fill_color=int(config.get("fill_color", 0)),
        )

    def __call__(self, image: Image.Image) -> npt.NDArray[np.float32]:
        """A picture of any mode and size as float32 (3, height, width). Keeps no state, so threads may share it."""
        values = np.asarray(self._resized(image if image.mode == "RGB" else image.convert("RGB")))
        tensor = np.empty((3, *values.shape[:2]), np.float32)
        for channel, table in enumerate(self._tables):
            np.take(table, values[:, :, channel], out=tensor[channel], mode="clip")  # "raise" would copy
        return tensor

    @cached_property
    def _tables(self) -> npt.NDArray[np.float32]:
        """(3, 256): what each value of each channel becomes."""
        mean, std = (np.asarray(x, dtype=np.float32)[:, None] for x in (self.mean, self.std))
        return np.asarray((np.arange(256, dtype=np.float32) / np.float32(255) - mean) / std)

    def _resized(self, image: Image.Image) -> Image.Image:
        height, width = self.size
        if self.resize_mode == "squash":
            return self._resize(image, width, height)
        if self.resize_mode == "longest":
            ratio = max(image.height / height, image.width / width)
            image = self._resize(image, max(1, round(image.width / ratio)), max(1, round(image.height / ratio)))
            return _centre(image, self.size, self.fill_color)
        image = _middle_of_strip(image)
        if height == width:
            short, long = sorted(image.size)
            longer = int(height * long / short)
            image = self._resize(image, *((height, longer) if image.width <= image.height else (longer, height)))
        else:
            # open_clip passes no interpolation here, so its default, bicubic, always holds.
            ratio = min(image.height / height, image.width / width)
            image = image.resize((round(image.width / ratio), round(image.height / ratio)), Image.Resampling.BICUBIC)
        return _centre(image, self.size, 0)

    def _resize(self, image: Image.Image, width: int, height: int) -> Image.Image:
        return image.resize((width, height), Image.Resampling[self.interpolation.upper()])


def _centre(image: Image.Image, size: tuple[int, int], fill: int) -> Image.Image:
    """The middle of the picture, first widened with `fill` where it is smaller than `size` (height, width)."""
    height, width = size
    missing_x, missing_y = max(0, width - image.width), max(0, height - image.height)
    if missing_x or missing_y:
        border = (missing_x // 2, missing_y // 2, (missing_x + 1) // 2, (missing_y + 1) // 2)
        image = ImageOps.expand(image, border, fill=(fill, fill, fill))
    # Python's round, half to even: what torchvision does.
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def _middle_of_strip(image: Image.Image) -> Image.Image:
    short = min(image.size)
    width, height = (min(side, short * _LONGEST_STRIP) for side in image.size)
    return image if (width, height) == image.size else _centre(image, (height, width), 0)
