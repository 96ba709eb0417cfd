"""Limits on what decoding a picture may cost, checked before it is decoded.

A file of a kilobyte can ask for gigabytes, and one of 30 MB for minutes. Here is what Pillow's decoders can be made to
spend besides the pixels; `python -m tests.corpus` measures what is left of it.
"""

import io
import re
import struct

from PIL import Image

MEMORY = 500_000_000
"""The most bytes that decoding one picture may take."""

_BYTES_A_PIXEL = {"AVIF": 36, "HEIF": 15, "JPEG2000": 24, "WEBP": 20, "TIFF": 12}
"""At the peak, by format. Pillow stores RGB in 4 bytes a pixel, and conversion holds two pictures in memory."""

_BYTES_A_TILE = 10_000
"""For a JPEG 2000: 62,500 tiles of 16 x 16 took 0.5 GB in addition to their pixels."""

_MAX_JPEG2000_BYTES = 16 * 2**20
"""Its decoder takes 0.24 s for each MB."""

_MAX_PIXELS_BY_PYTHON = 2**20
"""The most pixels for decoders that Pillow has in Python, which take 1 to 3 microseconds for each."""

_MAX_SIDE_BY_PYTHON = 2**15
"""A run-length code may skip 255 rows at once, whatever the picture's height."""

_MAX_SCANS = 100
"""For a JPEG: each scan is a pass over the whole picture, and a progressive JPEG usually has ten."""

_MAX_COMMENTS = 1000
"""For a plain PPM: Pillow copies the rest of a megabyte for each comment."""

_MAX_ICON_SIDE = 1024
"""The longest side of an icon in pixels: Pillow decodes icons when it opens them, before their size can be checked."""

EXIF_BYTES = 2**17
"""Twice the size of a JPEG segment. All entries of an EXIF block may point at the same bytes, so that Pillow reads the
square of its length.
"""

_OPENING_READS, _OPENING_BYTES = 10_000, 4 * 2**20
_LOADING_READS = 200_000


class TooCostlyError(Exception):
    """A picture that would take too much time or memory to decode."""


class MeteredReader(io.BytesIO):
    """An encoded picture as a file with a limited number of reads and bytes.

    Some of Pillow's parsers read one marker or tag at a time, in Python. Millions of empty ones would keep them busy
    for minutes, or make them read the same megabytes again and again.
    """

    def __init__(self, data: bytes) -> None:
        super().__init__(data)
        self._reads, self._bytes, self._exif = _OPENING_READS, _OPENING_BYTES, EXIF_BYTES

    def allow_loading(self, image: Image.Image) -> None:
        """Sets the limits to what decoding `image` may take."""
        pixels = image.width * image.height if decodes_in_python(image) else 0
        self._reads, self._bytes = _LOADING_READS + 4 * pixels, 4 * len(self.getbuffer()) + 2**20

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._reads -= 1
        if size is not None and size >= 0:  # all at once is how a decoder in C takes it
            self._bytes -= len(data)
        if data[:6] == b"Exif\0\0":
            self._exif -= len(data)
        if min(self._reads, self._bytes, self._exif) < 0:
            raise TooCostlyError("it has more parts, or more metadata, than a picture needs")
        return data


def reject_bombs(data: bytes) -> bytes:
    """Raises TooCostlyError for a decompression bomb. Returns `data`, an AVIF without its costly EXIF item."""
    if data[:2] in (b"P1", b"P2", b"P3") and data.count(b"#") > _MAX_COMMENTS:
        raise TooCostlyError("it has more comments than a picture needs")
    if data[4:8] == b"ftyp":  # AVIF stores its orientation elsewhere, but Pillow still parses the EXIF item
        return re.sub(rb"(infe[\2\3].{7}(?:..)?)Exif", rb"\1none", data, flags=re.DOTALL)
    if data[:4] in (b"\0\0\1\0", b"icns"):
        for width, height in _sizes_in_icon(data):
            if max(width, abs(height)) > _MAX_ICON_SIDE:
                raise TooCostlyError(f"an icon in it is {width} x {abs(height)} pixels")
    if data[:2] == b"\xff\xd8" and data.count(b"\xff\xda") > _MAX_SCANS:
        raise TooCostlyError("it has more scans than a JPEG needs")
    return data


def affordable_pixels(image: Image.Image, data: bytes) -> int:
    """How many pixels an opened picture may have to be decoded within `MEMORY` and a few seconds. Raises TooCostlyError
    for other costs than pixels.
    """
    if decodes_in_python(image):
        if max(image.size) > _MAX_SIDE_BY_PYTHON:
            raise TooCostlyError(f"a {image.format} is taken up to {_MAX_SIDE_BY_PYTHON} pixels a side")
        return _MAX_PIXELS_BY_PYTHON
    spare = MEMORY
    if image.format == "JPEG2000":
        if len(data) > _MAX_JPEG2000_BYTES:
            raise TooCostlyError(f"a JPEG 2000 is taken up to {_MAX_JPEG2000_BYTES / 2**20:.0f} MB")
        spare -= _BYTES_A_TILE * _tiles(data)
    elif image.format == "TIFF":
        tags = image.tag_v2  # type: ignore[attr-defined]
        sides = [side for side in (tags.get(322), tags.get(323)) if isinstance(side, int)]
        if len(sides) == 2:  # libtiff always decodes whole tiles
            spare -= 8 * sides[0] * sides[1]
    # The coefficients of a progressive JPEG are all in memory, two bytes each.
    jpeg = 4 + 2 * len(image.getbands())
    each = jpeg if image.format in ("JPEG", "MPO") else _BYTES_A_PIXEL.get(image.format or "", 8)
    if image.format == "HEIF" and image.mode == "RGB" and image.info.get("bit_depth") == 8:
        each = 10  # a phone's 48 million pixels took 0.37 to 0.42 GB
    if spare < MEMORY // 4:
        raise TooCostlyError("its tiles are too many or too large")
    return spare // max(8, each)


def decodes_in_python(image: Image.Image) -> bool:
    """Whether Pillow decodes an opened picture a pixel at a time, in Python."""
    return any(tile[0] in Image.DECODERS for tile in getattr(image, "tile", ()))


def _sizes_in_icon(data: bytes) -> list[tuple[int, int]]:
    found = [struct.unpack(">II", match[1]) for match in re.finditer(rb"IHDR(.{8})", data, re.DOTALL)]
    found += [struct.unpack(">II", match[1][:8]) for match in _JPEG2000_SIZE.finditer(data)]
    if data[:4] != b"icns":
        for entry in range(6, min(6 + 16 * struct.unpack_from("<H", data, 4)[0], len(data) - 15), 16):
            (start,) = struct.unpack_from("<I", data, entry + 12)
            bitmap = data[start : start + 12]
            if len(bitmap) == 12 and bitmap[:4] != b"\x89PNG":
                width, height = struct.unpack("<ii", bitmap[4:])
                found.append((abs(width), height // 2))  # its mask lies below it
    return found


_JPEG2000_SIZE = re.compile(rb"\xff\x4f\xff\x51.{4}(.{32})", re.DOTALL)


def _tiles(data: bytes) -> int:
    """The number of tiles that a JPEG 2000 says it has."""
    most = 0
    for match in _JPEG2000_SIZE.finditer(data):
        width, height, _, _, tile_width, tile_height, _, _ = struct.unpack(">8I", match[1])
        most = max(most, -(-width // max(1, tile_width)) * -(-height // max(1, tile_height)))
    return most
