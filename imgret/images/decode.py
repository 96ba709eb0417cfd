"""Decodes untrusted files, bytes and arrays to RGB pictures, pixel vectors and thumbnails."""

import io
import os
import re
import warnings
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError

from imgret.errors import ImgretError, Sentence, one_line, repr_short
from imgret.images.limits import EXIF_BYTES, MeteredReader, TooCostlyError, affordable_pixels, reject_bombs

MAX_PIXELS = 50_000_000
MAX_BYTES = 32 * 2**20
THUMBNAIL_SIDE = 256
_STRIP_PIXELS = 1 << 20

# Pillow's warnings are of no use here: a picture is decoded or refused. Python cannot silence them for a single thread.
warnings.filterwarnings("ignore", module=r"PIL\.")

# Raster formats that Pillow decodes itself. Left out on purpose: EPS (runs Ghostscript) and the stubs that only
# identify a file.
FORMATS = (
    "AVIF", "BMP", "DIB", "GIF", "ICNS", "ICO", "JPEG", "JPEG2000", "MPO",
    "PCX", "PNG", "PPM", "QOI", "SGI", "TGA", "TIFF", "WEBP", "HEIF",
)  # fmt: skip

ImageSource = bytes | str | os.PathLike[str] | npt.NDArray[Any] | Image.Image
PixelVector = npt.NDArray[np.uint8]


class ImageError(ImgretError):
    """A picture that cannot be used; the text says why in one sentence."""


def load_image(source: ImageSource, *, max_pixels: int = MAX_PIXELS, max_bytes: int = MAX_BYTES) -> Image.Image:
    """Decodes one picture to RGB: EXIF orientation applied, transparency on white, an animation's first frame, colours
    of another profile as sRGB, more than eight bits by their range.

    `source` is encoded bytes, a path, an array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4) of uint8 or of floats in
    [0, 1], or a PIL image. The size in pixels is read from the header and refused above `max_pixels`, or above what the
    format's decoder needs half a gigabyte for, before anything is decoded; encoded data is refused above `max_bytes`.
    Raises ImageError.
    """
    if isinstance(source, np.ndarray):
        source = _from_array(source, max_pixels)
    if isinstance(source, Image.Image):
        return _decode(source, "The picture", max_pixels, ImageOps.exif_transpose)
    if isinstance(source, bytes):
        name, data = "The picture", source
        check_size(name, len(data), max_bytes)
    elif isinstance(source, str) and re.match(r"[A-Za-z][A-Za-z0-9+.-]+://|data:", source):
        raise ImageError(
            "{address} is an address, and only files are read; give the path of a file, after a download if need be.",
            address=repr_short(source[:80]),
        )
    elif isinstance(source, str | os.PathLike):
        name, data = Path(source).name, read_picture(Path(source), max_bytes)
    else:
        raise ImageError(
            "A {kind} is not a picture; bytes, a path, an array or a PIL image are.", kind=type(source).__name__
        )
    try:
        data = reject_bombs(data)
        file = MeteredReader(data)
        opened = Image.open(file, formats=_openers())
        file.allow_loading(opened)
        max_pixels = min(max_pixels, affordable_pixels(opened, data))
    except TooCostlyError as error:
        raise ImageError(
            "{name} would take too much to decode ({error}); save it anew as JPEG or PNG.", name=name, error=error
        ) from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise _too_many_pixels(name, None, max_pixels) from None
    except UnidentifiedImageError:
        raise ImageError(
            "{name} is not a picture that can be read; JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF and HEIC are.", name=name
        ) from None
    except Exception as error:
        raise ImageError(
            "{name} has a broken header ({reason}); save it anew as JPEG or PNG.", name=name, reason=one_line(error)
        ) from None
    with opened:
        return _decode(opened, name, max_pixels, _upright)


def pixel_vector(image: Image.Image, size: int) -> PixelVector:
    """The picture as the pixel metrics see it: RGB resized to `size` x `size` without cropping, bicubic, row-major.

    (size * size * 3,) uint8.
    """
    rgb = image if image.mode == "RGB" else image.convert("RGB")
    return np.asarray(rgb.resize((size, size), Image.Resampling.BICUBIC)).reshape(-1)


def thumbnail(image: Image.Image) -> bytes:
    """The picture as WebP, shrunk to at most 256 px a side, never enlarged."""
    scale = min(1, THUMBNAIL_SIDE / max(image.size))
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    # Half the time of a bicubic resize, and of WebP's default effort, for files a tenth larger.
    small = image.resize(size, Image.Resampling.HAMMING, reducing_gap=2.0)
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
    with suppress(ImportError):  # a platform may have no wheel of it
        from pi_heif import register_heif_opener

        register_heif_opener(thumbnails=False, depth_images=False, aux_images=False, decode_threads=1)
    return tuple(name for name in FORMATS if name in Image.OPEN)  # MPO is opened as JPEG; AVIF is optional


def read_picture(path: Path, max_bytes: int = MAX_BYTES) -> bytes:
    """Reads the encoded picture at `path`. Raises ImageError above `max_bytes`, and for anything but a file."""
    try:
        if not path.is_file():  # a pipe would block, and a device has no end
            raise ImageError("There is no picture file at {path}.", path=repr_short(str(path)))
        check_size(path.name, path.stat().st_size, max_bytes)
        with path.open("rb") as file:
            return file.read(max_bytes)
    except ImageError:
        raise
    except (OSError, ValueError) as error:
        raise ImageError(
            "{name} cannot be read ({reason}).", name=repr_short(path.name), reason=one_line(error)
        ) from None


def check_size(name: str, size: int, max_bytes: int = MAX_BYTES) -> None:
    """Raises ImageError for an encoded picture of no or too many bytes."""
    if size > max_bytes:
        raise ImageError(
            "{name} has {size:.1f} MB; at most {most:g} MB are taken, so send a smaller copy.",
            name=name,
            size=size / 2**20,
            most=max_bytes / 2**20,
        )
    if size == 0:
        raise ImageError("{name} is empty (0 bytes).", name=name)


def _from_array(array: npt.NDArray[Any], max_pixels: int) -> Image.Image:
    shape = array.shape
    if array.ndim == 3 and shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and shape[2] in (3, 4))) or array.size == 0:
        raise ImageError(
            "An array of shape {shape} is not a picture; (H, W), (H, W, 3) and (H, W, 4) are.", shape=shape
        )
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
        raise ImageError(
            "A picture cannot be an array of {dtype}; uint8 and floats from 0 to 1 can.", dtype=array.dtype
        )
    return Image.fromarray(np.ascontiguousarray(array))


def _decode(
    image: Image.Image, name: str, max_pixels: int, upright: Callable[[Image.Image], Image.Image]
) -> Image.Image:
    width, height = image.size
    if width * height > max_pixels:
        raise _too_many_pixels(name, image.size, max_pixels, image.format)
    if not width * height:
        raise ImageError("{name} has no pixels ({width} x {height}).", name=name, width=width, height=height)
    try:
        image.load()
        if image.width * image.height > max_pixels:  # some decoders learn the true size only now
            raise _too_many_pixels(name, image.size, max_pixels, image.format)
        with suppress(Exception):  # a broken EXIF block says nothing about the pixels
            image = upright(image)
        return _to_rgb(image)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError(
            "{name} needs more memory than there is ({width} x {height} pixels); send a smaller copy.",
            name=name,
            width=width,
            height=height,
        ) from None
    except Exception as error:  # Pillow's decoders raise many kinds for broken data
        raise ImageError(
            "{name} is broken or breaks off before its end ({reason}); save it anew.", name=name, reason=one_line(error)
        ) from None


def _upright(image: Image.Image) -> Image.Image:
    for block in ("exif", "Raw profile type exif"):
        if len(image.info.get(block, "")) > EXIF_BYTES:
            del image.info[block]
    ImageOps.exif_transpose(image, in_place=True)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    """Converts to a new RGB picture strip by strip, as some modes would otherwise need three or four times the
    memory.
    """
    to_srgb = _srgb_transform(image)
    if image.mode == "RGB" and not image.has_transparency_data and to_srgb is None:
        return image.copy()
    convert = _converter(image)
    rgb = Image.new("RGB", image.size)
    for box, strip in _strips(image):
        if to_srgb is None:
            rgb.paste(convert(strip), box)
        else:
            own = strip if image.mode in ("L", "CMYK") else convert(strip)
            rgb.paste(ImageCms.applyTransform(own, to_srgb) or own, box)
    return rgb


def _srgb_transform(image: Image.Image) -> ImageCms.ImageCmsTransform | None:
    """What makes sRGB of the picture's own colours, or None: it has no profile, that of sRGB, or one that is broken."""
    data = image.info.get("icc_profile")
    if not isinstance(data, bytes):
        return None
    with suppress(Exception):  # of a profile that is broken nothing can be told
        profile = ImageCms.ImageCmsProfile(io.BytesIO(data))
        mode = {"RGB": "RGB", "GRAY": "L", "CMYK": "CMYK"}[profile.profile.xcolor_space.strip()]
        is_srgb = "srgb" in (profile.profile.profile_description or "").lower()
        fits = image.mode == mode or (mode == "RGB" and image.mode in ("P", "PA", "RGBA", "RGBX"))
        if fits and not is_srgb:
            return ImageCms.buildTransform(profile, ImageCms.createProfile("sRGB"), mode, "RGB")
    return None


def _strips(image: Image.Image) -> Iterator[tuple[tuple[int, int, int, int], Image.Image]]:
    step = max(1, _STRIP_PIXELS // image.width)
    for top in range(0, image.height, step):
        box = (0, top, image.width, min(top + step, image.height))
        yield box, image.crop(box)


def _converter(image: Image.Image) -> Callable[[Image.Image], Image.Image]:
    """The function that converts a strip of `image` to RGB."""
    if image.mode.startswith("I") or image.mode == "F":
        low, high = _value_range(image)
        return lambda strip: _grey((_finite(strip) - low) * (255 / (high - low)))
    if image.mode == "LAB":
        transform = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return lambda strip: ImageCms.applyTransform(strip, transform) or strip.convert("RGB")
    if image.has_transparency_data:
        return _on_white
    return lambda strip: strip.convert("RGB")


def _value_range(image: Image.Image) -> tuple[float, float]:
    """What is black and what is white in a picture of more than eight bits: what a TIFF says, else what its values
    need, as many files keep 10, 12 or 14 bits in 16.
    """
    ends = [(values.min(), values.max()) for _, strip in _strips(image) for values in [_finite(strip)]]
    low, high = float(min(low for low, _ in ends)), float(max(high for _, high in ends))
    tags = getattr(image, "tag_v2", {})
    stated = [tags.get(tag, ()) for tag in (341, 281)]  # SMaxSampleValue, MaxSampleValue
    numbers = [value for values in stated for value in (values if isinstance(values, tuple) else (values,))]
    white = next((float(value) for value in numbers if isinstance(value, int | float) and value >= high > 0), None)
    if low < 0:
        return low, high if high > low else low + 1
    usual = (1.0, 255.0) if image.mode == "F" else tuple(2.0**bits - 1 for bits in (8, 10, 12, 14, 16))
    return 0.0, white or next((top for top in usual if high <= top), high)


def _finite(strip: Image.Image) -> npt.NDArray[np.float64]:
    return np.nan_to_num(np.asarray(strip, np.float64), nan=0, posinf=0, neginf=0)


def _grey(values: npt.NDArray[Any]) -> Image.Image:
    return Image.fromarray(np.rint(np.clip(values, 0, 255)).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    white = Image.new("RGBA", image.size, "white")
    return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")


def _too_many_pixels(name: str, size: tuple[int, int] | None, max_pixels: int, kind: str | None = None) -> ImageError:
    if size is None:
        what = Sentence("has far too many pixels")
    else:
        what = Sentence("is {width} x {height} pixels", width=size[0], height=size[1])
    return ImageError(
        "{name} {what}; at most {millions:.3g} million are taken{of_kind}, so send a smaller copy.",
        name=name,
        what=what,
        millions=max_pixels / 1e6,
        of_kind=Sentence(" of a {kind}", kind=kind) if kind and max_pixels < MAX_PIXELS else "",
    )
