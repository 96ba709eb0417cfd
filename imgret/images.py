"""How does anything that claims to be a picture become RGB, a pixel vector or a thumbnail, safely?"""

import io
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from imgret.errors import in_short

MAX_PIXELS = 50_000_000
MAX_BYTES = 32 * 2**20
THUMBNAIL_SIDE = 256

# Raster formats that Pillow decodes itself. Left out on purpose: EPS (runs Ghostscript) and the stubs that only
# identify a file.
FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MPO",
    "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP",
)  # fmt: skip

ImageSource = bytes | str | os.PathLike[str] | npt.NDArray[Any] | Image.Image
PixelVector = npt.NDArray[np.uint8]


class ImageError(ValueError):
    """Something given as a picture is not one that can be used; the text says why in one sentence."""


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> Image.Image:
    """Decodes one picture to RGB: EXIF orientation applied, transparency on white, an animation's first frame.

    `source` is encoded bytes, a path, an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8 or of floats in
    [0, 1], or a PIL image. The size in pixels is read from the header and refused above `max_pixels` before anything
    is decoded; encoded data is refused above `max_bytes`. Raises ImageError.
    """
    if isinstance(source, np.ndarray):
        source = _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        return _decode(source, "The picture", max_pixels)
    name, data = _read(source, max_bytes)
    try:
        opened = Image.open(io.BytesIO(data), formats=_openers())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(name, None, max_pixels) from None
    except UnidentifiedImageError:
        raise ImageError(
            f"{name} is not a picture that can be read; JPEG, PNG, WebP, GIF, BMP, TIFF and AVIF are."
        ) from None
    except Exception as error:
        raise ImageError(f"{name} has a broken header ({in_short(error)}); save it anew as JPEG or PNG.") from None
    with opened:
        return _decode(opened, name, max_pixels)


def pixel_vector(image: Image.Image, size: int) -> PixelVector:
    """The picture as the pixel metrics see it: RGB resized to `size` x `size` without cropping, bicubic, row-major.

    (size * size * 3,) uint8.
    """
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return np.asarray(rgb.resize((size, size), Image.Resampling.BICUBIC)).reshape(-1)


def thumbnail(image: Image.Image) -> bytes:
    """The picture as WebP, shrunk to at most 256 px a side, never enlarged."""
    small = image.copy()
    # Half the time of a bicubic resize, and of WebP's default effort, for files a tenth larger.
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.HAMMING)
    buffer = io.BytesIO()
    small.save(buffer, "WEBP", quality=80, method=1)
    return buffer.getvalue()


def picture_suffixes() -> frozenset[str]:
    """File name endings, lower case with the dot, of the formats that `load_image` reads."""
    _openers()
    return frozenset(suffix for suffix, kind in Image.registered_extensions().items() if kind in FORMATS)


@cache
def _openers() -> tuple[str, ...]:
    Image.init()  # registers every plugin; without it Pillow knows five formats until one of them fails
    return tuple(name for name in FORMATS if name in Image.OPEN)  # MPO is opened as JPEG; AVIF is optional in Pillow


def _read(source: bytes | str | os.PathLike[str], max_bytes: int) -> tuple[str, bytes]:
    if isinstance(source, bytes):
        name, size = "The picture", len(source)
    else:
        path = Path(source)
        name = path.name
        try:
            if not path.is_file():
                raise ImageError(f"There is no picture file at {str(path)!r}.")
            size = path.stat().st_size
        except (OSError, ValueError) as error:
            if isinstance(error, ImageError):
                raise
            raise ImageError(f"{name!r} cannot be read ({in_short(error)}).") from None
    if size > max_bytes:
        raise ImageError(
            f"{name} has {size / 2**20:.1f} MB; at most {max_bytes / 2**20:g} MB are taken, so send a smaller copy."
        )
    if size == 0:
        raise ImageError(f"{name} is empty (0 bytes).")
    if isinstance(source, bytes):
        return name, source
    try:
        return name, path.read_bytes()
    except OSError as error:
        raise ImageError(f"{name} cannot be read ({in_short(error)}).") from None


def _from_array(array: npt.NDArray[Any], max_pixels: int) -> Image.Image:
    shape = array.shape
    if array.ndim == 3 and shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and shape[2] in (3, 4))) or array.size == 0:
        raise ImageError(f"An array of shape {shape} is not a picture; (H, W), (H, W, 3) and (H, W, 4) are.")
    if shape[0] * shape[1] > max_pixels:
        raise _too_many_pixels("The array", (shape[1], shape[0]), max_pixels)
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ImageError(
                "An array of floats must hold values from 0 to 1 to be a picture; give uint8 for values from 0 to 255."
            )
        array = np.rint(array * 255).astype(np.uint8)
    elif array.dtype == bool:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        raise ImageError(f"A picture cannot be an array of {array.dtype}; uint8 and floats from 0 to 1 can.")
    return Image.fromarray(np.ascontiguousarray(array))


def _decode(image: Image.Image, name: str, max_pixels: int) -> Image.Image:
    width, height = image.size
    if width * height > max_pixels:
        raise _too_many_pixels(name, image.size, max_pixels)
    if not width * height:
        raise ImageError(f"{name} has no pixels ({width} x {height}).")
    try:
        image.load()
        if image.width * image.height > max_pixels:  # some decoders learn the true size only now
            raise _too_many_pixels(name, image.size, max_pixels)
        return _to_rgb(_upright(image))
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(
            f"{name} needs more memory than there is ({width} x {height} pixels); send a smaller copy."
        ) from None
    except Exception as error:  # Pillow's decoders raise many kinds for broken data
        raise ImageError(f"{name} is broken or breaks off before its end ({in_short(error)}); save it anew.") from None


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)  # always a copy
    except Exception:  # a broken EXIF block says nothing about the pixels
        return image.copy()


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and not image.has_transparency_data:
        return image
    if image.mode.startswith("I"):  # 16 bits a value, in 16 or 32
        return Image.fromarray(np.rint(np.clip(np.asarray(image), 0, 65535) / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float64))
        scale = 255 if values.max() <= 1 else 1
        return Image.fromarray(np.rint(np.clip(values * scale, 0, 255)).astype(np.uint8)).convert("RGB")
    if image.mode == "LAB":
        converted = ImageCms.profileToProfile(
            image, ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        return converted if converted is not None else image.convert("RGB")
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        white = Image.new("RGBA", layer.size, "white")
        return Image.alpha_composite(white, layer).convert("RGB")
    return image.convert("RGB")


def _too_many_pixels(name: str, size: tuple[int, int] | None, max_pixels: int) -> ImageError:
    what = f"is {size[0]} x {size[1]} pixels" if size else "has far too many pixels"
    return ImageError(f"{name} {what}; at most {max_pixels / 1e6:g} million are taken, so send a smaller copy.")
