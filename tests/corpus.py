"""Which pictures does nobody send by mistake? A corpus of them, the same each time, and what becomes of each.

    python -m tests.corpus              every input, each in a process of its own: a table of counts, times and memory
    python -m tests.corpus --sample     every kind of trouble once, in half a minute
    python -m tests.corpus --write DIR  the corpus as files

An input is made when it is asked for: some have 30 MB. Each comes from a seed that Pillow wrote of a picture of the
embedded library (whole, cut short, with bits flipped), or is made by hand to be as expensive as its size allows.
"""

import argparse
import io
import json
import os
import random
import resource
import select
import signal
import struct
import sys
import time
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from imgret.images import MAX_BYTES, ImageError, load_image, pixel_vector, thumbnail
from imgret.settings import EXAMPLES

HUGE = 60_000
FAST_HEIF = {"quality": 30, "enc_params": {"preset": "ultrafast"}}
MAX_MEMORY = 600 * 10**6
MAX_SECONDS = 5.0
FLIPS = 24
"""Copies of a seed with bits flipped: one bit, a dozen, and every hundredth, eight of each."""


@dataclass(frozen=True)
class Input:
    """One input: what it is called, what kind of trouble it is, and how to make its bytes."""

    name: str
    kind: str
    make: Callable[[], bytes] = field(repr=False)


# --- Seeds: what Pillow writes of pictures of the library ---


@cache
def picture(side: int = 96) -> Image.Image:
    with Image.open(EXAMPLES / "queries" / "tiger.webp") as opened:
        return opened.convert("RGB").resize((side, side * 3 // 4))


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    if kind == "HEIF":  # pi-heif, by which imgret reads it, cannot write
        from pillow_heif import from_pillow

        from_pillow(image).save(buffer, **options)
        return buffer.getvalue()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        image.save(buffer, kind, **options)
    return buffer.getvalue()


def _clear() -> Image.Image:
    image = picture().convert("RGBA")
    image.putalpha(Image.linear_gradient("L").resize(image.size))
    return image


def _lab() -> Image.Image:
    lab = ImageCms.profileToProfile(
        picture(), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert lab is not None
    return lab


def _palette_with_transparency() -> Image.Image:
    image = picture().quantize(16)
    image.info["transparency"] = bytes(range(0, 256, 16))
    return image


def _numbers(kind: type) -> Image.Image:
    return Image.fromarray((np.asarray(picture().convert("L")).astype(np.float64) * 257).astype(kind))


def _turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "a camera"
    return exif


def seeds() -> dict[str, Callable[[], bytes]]:
    """By name: every format that Pillow writes, and within the common ones every mode and compression."""
    Image.init()
    made: dict[str, Callable[[], bytes]] = {}

    def add(name: str, image: Callable[[], Image.Image], kind: str, **options: Any) -> None:
        made[name] = lambda: encoded(image(), kind, **options)

    modes: dict[str, Callable[[], Image.Image]] = {
        "rgb": picture,
        "grey": lambda: picture().convert("L"),
        "palette": lambda: picture().quantize(64),
        "bilevel": lambda: picture().convert("1"),
    }
    for kind in sorted(Image.SAVE):
        if kind == "PDF":
            continue  # written with the date in it; a fixed one is below
        for mode, image in modes.items():
            try:
                encoded(image(), kind)
            except Exception:  # a format that has not that mode, or is a stub that only hands on
                continue
            add(f"{kind.lower()}-{mode}", image, kind)
    for kind in ("PNG", "TIFF", "WEBP", "AVIF", "JPEG2000", "TGA", "GIF", "ICO", "QOI", "SGI", "ICNS"):
        add(f"{kind.lower()}-alpha", _clear, kind)
    add("png-palette-alpha", _palette_with_transparency, "PNG")
    add("gif-palette-alpha", lambda: picture().quantize(16), "GIF", transparency=3)
    add("png-16", lambda: _numbers(np.uint16), "PNG")
    add("png-interlaced-text", picture, "PNG", pnginfo=_png_text(), optimize=True)
    for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma"):
        add(f"tiff-{name}", picture, "TIFF", compression=name)
    for name in ("group3", "group4", "tiff_ccitt"):
        add(f"tiff-{name}", lambda: picture().convert("1"), "TIFF", compression=name)
    for name, kind in (("16", np.uint16), ("int32", np.int32), ("float", np.float32)):
        add(f"tiff-{name}", lambda kind=kind: _numbers(kind), "TIFF")  # type: ignore[misc]
    add("tiff-cmyk", lambda: picture().convert("CMYK"), "TIFF")
    add("tiff-ycbcr", lambda: picture().convert("YCbCr"), "TIFF")
    add("tiff-lab", _lab, "TIFF")
    add("tiff-big", picture, "TIFF", big_tiff=True)
    add("tiff-frames", picture, "TIFF", save_all=True, append_images=[picture()] * 4)
    add("jpeg-cmyk", lambda: picture().convert("CMYK"), "JPEG")
    add("jpeg-progressive", picture, "JPEG", progressive=True, quality=90)
    add("jpeg-444", picture, "JPEG", subsampling=0, restart_marker_rows=1)
    add("jpeg-icc", picture, "JPEG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    add("webp-lossless", picture, "WEBP", lossless=True)
    add("webp-frames", picture, "WEBP", save_all=True, append_images=[picture().rotate(9 * n) for n in range(5)])
    add("gif-frames", picture, "GIF", save_all=True, append_images=[picture().rotate(9 * n) for n in range(5)])
    add("png-frames", picture, "PNG", save_all=True, append_images=[picture().rotate(9 * n) for n in range(5)])
    add("heif", picture, "HEIF")
    add("heif-alpha", _clear, "HEIF")
    add("heif-lossless", picture, "HEIF", quality=-1, chroma=444)
    add("avif-frames", picture, "AVIF", save_all=True, append_images=[picture().rotate(9 * n) for n in range(2)])
    add("mpo-frames", picture, "MPO", save_all=True, append_images=[picture().rotate(9)])
    add("jpeg2000-lossless", picture, "JPEG2000", irreversible=False, tile_size=(32, 32))
    add("jpeg2000-codestream", picture, "JPEG2000", no_jp2=True)
    add("tga-rle", picture, "TGA", compression="tga_rle")
    add("ico-bmp", _clear, "ICO", bitmap_format="bmp")
    for orientation in range(10):  # 0 and 9 are none
        for kind in ("JPEG", "PNG", "WEBP", "TIFF", "AVIF"):
            if kind != "AVIF" or 0 < orientation < 9:
                add(f"{kind.lower()}-turned-{orientation}", picture, kind, exif=_turned(orientation))
    for number in (3, 40, 200):  # real pictures, as they are
        path = sorted((EXAMPLES / "library").rglob("*.webp"))[number]
        made[f"library-{path.stem}"] = path.read_bytes
    return made


def _png_text() -> Any:
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_text("Title", "a tiger", zip=True)
    text.add_itxt("Description", "một con hổ", lang="vi", zip=True)
    return text


def damaged(name: str, make: Callable[[], bytes], flips: int = FLIPS) -> Iterator[Input]:
    """A seed whole, cut after each tenth, and with bits flipped."""
    whole = cache(make)
    yield Input(name, "whole", whole)
    for tenth in range(1, 10):
        yield Input(f"{name}-cut-{tenth}", "cut short", lambda tenth=tenth: whole()[: len(whole()) * tenth // 10])
    for number in range(flips):
        yield Input(f"{name}-flipped-{number}", "bits flipped", lambda number=number: flipped(whole(), name, number))


def flipped(data: bytes, name: str, number: int) -> bytes:
    draw = random.Random(f"{name} {number}")
    broken = bytearray(data)
    # Half of the copies are hit where the header is, which decides what is decoded at all.
    reach = len(broken) if number % 2 else min(len(broken), 200)
    for _ in range((1, 12, 1 + len(broken) // 800)[number % 3]):
        broken[draw.randrange(reach)] ^= 1 << draw.randrange(8)
    return bytes(broken)


# --- Headers that claim 60,000 x 60,000, and other sizes ---


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *chunks: bytes, bits: int = 8, colour: int = 2, pixels: bytes | None = None) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    body = zlib.compress(b"", 9) if pixels is None else pixels
    parts = (header, *chunks, png_chunk(b"IDAT", body), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def zeros(count: int) -> bytes:
    """`count` zeros, compressed, made without having them in memory."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block[: min(len(block), count - done)]) for done in range(0, count, len(block))]
    return b"".join(parts) + packer.flush()


def png_of_zeros(width: int, height: int, bits: int = 8, colour: int = 2) -> bytes:
    samples = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    row = 1 + -(-width * samples * bits // 8)
    palette = (png_chunk(b"PLTE", bytes(768)), png_chunk(b"tRNS", bytes(256))) if colour == 3 else ()
    return png(width, height, *palette, bits=bits, colour=colour, pixels=zeros(row * height))


def tiff(tags: list[tuple[int, int, int, bytes | int]], body: bytes = b"", next_ifd: int = 0) -> bytes:
    """A little-endian TIFF: `body` at offset 8, then one directory of (tag, type, count, value or 4 bytes)."""
    start = 8 + len(body)
    packed = b"".join(
        struct.pack("<HHI", tag, kind, count) + (value if isinstance(value, bytes) else struct.pack("<I", value))
        for tag, kind, count, value in sorted(tags, key=lambda row: row[0])
    )
    return (
        b"II*\0" + struct.pack("<I", start) + body + struct.pack("<H", len(tags)) + packed + struct.pack("<I", next_ifd)
    )


def tiff_tags(width: int, height: int, **more: int) -> list[tuple[int, int, int, bytes | int]]:
    """Tags of an 8-bit grey picture in one strip at offset 8."""
    values = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: width * height}
    values |= {int(name[1:]): value for name, value in more.items()}
    return [(tag, 4, 1, value & 0xFFFFFFFF) for tag, value in values.items()]


def gif(width: int, height: int, *blocks: bytes) -> bytes:
    frame = b",\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + b"".join(blocks) + frame + b";"


def qoi(width: int, height: int, body: bytes) -> bytes:
    return b"qoif" + struct.pack(">IIBB", width, height, 3, 0) + body


def bmp(width: int, height: int, body: bytes, bits: int = 8, compression: int = 0) -> bytes:
    colours = bytes(1024) if bits == 8 else bytes(64) if bits == 4 else b""
    info = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(body), 0, 0, 0, 0)
    start = 14 + len(info) + len(colours)
    return b"BM" + struct.pack("<IHHI", start + len(body), 0, 0, start) + info + colours + body


def sgi(width: int, height: int, body: bytes, rle: int = 1, bytes_a_value: int = 1, planes: int = 3) -> bytes:
    head = struct.pack(">HBBHHHHII", 474, rle, bytes_a_value, 3, width, height, planes, 0, 255)
    return head.ljust(512, b"\0") + body


def pcx(width: int, height: int, body: bytes) -> bytes:
    head = struct.pack("<BBBBHHHHHH", 10, 5, 1, 8, 0, 0, width - 1, height - 1, 72, 72)
    return head + bytes(48) + struct.pack("<BBHH", 0, 3, width + width % 2, 1) + bytes(58) + body


def tga(width: int, height: int, body: bytes, kind: int = 10) -> bytes:
    return struct.pack("<BBBHHBHHHHBB", 0, 0, kind, 0, 0, 0, 0, 0, width, height, 24, 0x20) + body


def ico(data: bytes, bits: int = 32) -> bytes:
    return struct.pack("<HHHBBBBHHII", 0, 1, 1, 0, 0, 0, 0, 1, bits, len(data), 22) + data


def icns(data: bytes, kind: bytes = b"ic10") -> bytes:
    return b"icns" + struct.pack(">I", 16 + len(data)) + kind + struct.pack(">I", 8 + len(data)) + data


def webp(width: int, height: int) -> bytes:
    """A lossless header: at most 16,384 a side."""
    bits = (width - 1) | (height - 1) << 14
    body = b"\x2f" + struct.pack("<I", bits) + bytes(9)
    return b"RIFF" + struct.pack("<I", len(body) + 12) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body


def webp_extended(width: int, height: int) -> bytes:
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    head = b"VP8X" + struct.pack("<I", 10) + bytes(4) + sides
    inner = webp(1, 1)[12:]
    return b"RIFF" + struct.pack("<I", 4 + len(head) + len(inner)) + b"WEBP" + head + inner


def resized_in_header(kind: str, data: bytes, width: int, height: int) -> bytes:
    """A small JPEG, JPEG 2000, AVIF or HEIF whose header claims another size."""
    broken = bytearray(data)
    if kind == "JPEG":
        at = data.index(b"\xff\xc0") + 5
        broken[at : at + 4] = struct.pack(">HH", height, width)
    elif kind == "JPEG2000":
        at = data.index(b"ihdr") + 4
        broken[at : at + 8] = struct.pack(">II", height, width)
        at = data.index(b"\xff\x51") + 6
        broken[at : at + 8] = struct.pack(">II", width, height)
    else:
        at = data.index(b"ispe") + 8
        broken[at : at + 8] = struct.pack(">II", width, height)
    return bytes(broken)


def plain(kind: bytes, width: int, height: int, body: bytes, maxval: int = 255) -> bytes:
    return kind + b"\n%d %d\n" % (width, height) + (b"" if kind in (b"P1", b"P4") else b"%d\n" % maxval) + body


def claims() -> Iterator[Input]:
    """Headers that claim a huge picture, in every format whose header can."""

    def small(kind: str) -> bytes:
        return encoded(picture(), kind)

    for width, height in ((HUGE, HUGE), (1, HUGE), (HUGE, 1), (9_000, 9_000), (7_000, 7_000), (0, 0), (1, 0)):
        size = f"{width}x{height}"
        made: dict[str, Callable[[int, int], bytes]] = {
            "png": png,
            "gif": gif,
            "bmp": lambda w, h: bmp(w, h, bytes(100)),
            "bmp-rle": lambda w, h: bmp(w, h, b"\xff\x07" * 50, compression=1),
            "dib": lambda w, h: bmp(w, h, bytes(100))[14:],
            "tiff": lambda w, h: tiff(tiff_tags(w, h), bytes(100)),
            "tiff-lzw": lambda w, h: tiff(tiff_tags(w, h, t259=5), bytes(100)),
            "tiff-jpeg": lambda w, h: tiff(tiff_tags(w, h, t259=7), bytes(100)),
            "tiff-float": lambda w, h: tiff(tiff_tags(w, h, t258=32, t339=3), bytes(100)),
            "jpeg": lambda w, h: resized_in_header("JPEG", small("JPEG"), w, h),
            "mpo": lambda w, h: resized_in_header("JPEG", encoded(picture(), "MPO"), w, h),
            "jpeg2000": lambda w, h: resized_in_header("JPEG2000", small("JPEG2000"), w, h),
            "avif": lambda w, h: resized_in_header("AVIF", small("AVIF"), w, h),
            "heif": lambda w, h: resized_in_header("HEIF", small("HEIF"), w, h),
            "webp": lambda w, h: webp(max(1, min(w, 16_384)), max(1, min(h, 16_384))),
            "webp-extended": lambda w, h: webp_extended(max(w, 1), max(h, 1)),
            "qoi": lambda w, h: qoi(w, h, b"\xfd" * 100),
            "sgi": lambda w, h: sgi(w, h, bytes(100)),
            "sgi-raw": lambda w, h: sgi(w, h, bytes(100), rle=0),
            "sgi-16": lambda w, h: sgi(w, h, bytes(100), rle=0, bytes_a_value=2),
            "pcx": lambda w, h: pcx(max(w, 1), max(h, 1), b"\xff\x07" * 50),
            "tga": lambda w, h: tga(w, h, b"\xff\1\2\3" * 30),
            "ppm": lambda w, h: plain(b"P6", w, h, bytes(100)),
            "ppm-maxval": lambda w, h: plain(b"P6", w, h, bytes(100), 100),
            "ppm-plain": lambda w, h: plain(b"P3", w, h, b"1 2 3 " * 30),
            "pbm-plain": lambda w, h: plain(b"P1", w, h, b"1 0 " * 30),
            "pfm": lambda w, h: b"Pf\n%d %d\n-1.0\n" % (w, h) + bytes(100),
            "ico": lambda w, h: ico(png(w, h, colour=6)),
            "ico-dib": lambda w, h: ico(bmp(w, 2 * h, bytes(100), bits=32)[14:]),
            "icns": lambda w, h: icns(png(w, h, colour=6)),
            "icns-jpeg2000": lambda w, h: icns(resized_in_header("JPEG2000", small("JPEG2000"), w, h)),
        }
        for kind, make in made.items():
            yield Input(f"{kind}-claims-{size}", "header claims", lambda make=make, w=width, h=height: make(w, h))


# --- Bombs: a little that becomes a lot ---


def exif_block(tags: int, size: int) -> bytes:
    """An EXIF block of `tags` entries that all point at the same `size` bytes."""
    start = 8 + 2 + 12 * tags + 4
    rows = b"".join(struct.pack("<HHII", 0x9000 + number, 7, size, start) for number in range(tags))
    return b"II*\0" + struct.pack("<IH", 8, tags) + rows + bytes(4) + bytes(size)


def jpeg_with(*segments: tuple[int, bytes]) -> bytes:
    small = encoded(picture(), "JPEG")
    packed = b"".join(bytes((0xFF, marker)) + struct.pack(">H", 2 + len(data)) + data for marker, data in segments)
    return small[:2] + packed + small[20:]  # without the JFIF segment, so that Pillow looks for a resolution in EXIF


def jpeg_with_exif(block: bytes) -> bytes:
    """A JPEG whose EXIF block is as long as it likes, in as many segments as that takes."""
    step = 65_000
    return jpeg_with(*((0xE1, b"Exif\0\0" + block[at : at + step]) for at in range(0, len(block), step)))


def webp_with_exif(block: bytes) -> bytes:
    return encoded(picture(), "WEBP", exif=block)


def avif_with_exif(block: bytes) -> bytes:
    harmless = b"II*\0\x08\0\0\0\0\0".ljust(len(block), b"!")  # Pillow reads what it is given to write
    return encoded(picture(), "AVIF", exif=b"Exif\0\0" + harmless).replace(harmless, block)


def large(kind: str, width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    """A real file of a plain picture that decodes to a lot."""
    return encoded(Image.new(mode, (width, height), None), kind, **options)


def _many_ifds(count: int) -> bytes:
    data = bytearray(tiff(tiff_tags(1, 1), bytes(1)))
    start = 9
    for _ in range(count):
        struct.pack_into("<I", data, start + 2 + 12 * 9, len(data))
        start = len(data)
        data += tiff(tiff_tags(1, 1), bytes(1))[9:]
    return bytes(data)


def _gif_frames(count: int) -> bytes:
    frame = b",\0\0\0\0\x01\0\x01\0\0\x02\x02D\x01\0"
    return gif(1000, 1000, *([frame] * count))


def _gif_comment(blocks: int) -> bytes:
    return gif(9, 9, b"!\xfe" + (b"\xff" + b"a" * 255) * blocks + b"\0")


def _sub_blocks(count: int) -> bytes:
    return gif(9, 9, *([b"!\xfe\x01a\0"] * count))


def _bmp_delta(width: int) -> bytes:
    return bmp(width, 1, b"\0\x02\xff\xff" * 4 + b"\0\1", compression=1)


def _sgi_rows(length: int, row: bytes) -> bytes:
    """7,000 x 7,000 in three planes, each of whose rows is the same few bytes."""
    rows = 3 * 7_000
    return sgi(7_000, 7_000, struct.pack(">I", 512 + 8 * rows) * rows + struct.pack(">I", length) * rows + row)


def _deflate_tiff(width: int, height: int, bits: int, planes: int, photometric: int, **more: int) -> bytes:
    body = zeros(width * height * planes * bits // 8)
    tags = tiff_tags(width, height, t258=bits, t259=8, t262=photometric, t277=planes, t279=len(body), **more)
    return tiff(tags, body)


def _tiled(width: int, height: int, tile_width: int, tile_height: int, compression: int = 8) -> bytes:
    body = zeros(1 << 20)
    tags = [row for row in tiff_tags(width, height, t259=compression) if row[0] not in (273, 278, 279)]
    more = {322: tile_width, 323: tile_height, 324: 8, 325: len(body)}
    return tiff(tags + [(tag, 4, 1, value) for tag, value in more.items()], body)


def bombs() -> Iterator[Input]:
    """What is small and becomes large, or is quickly sent and slowly read. Sizes up to the limit in bytes."""
    limit = MAX_BYTES - 4096
    side = 7_050  # just below 50 million pixels as a square
    made: dict[str, Callable[[], bytes]] = {
        **{
            f"png-zeros-{name}": lambda bits=bits, colour=colour: png_of_zeros(side, side, bits, colour)
            for name, bits, colour in (
                ("rgb", 8, 2),
                ("rgba", 8, 6),
                ("rgb16", 16, 2),
                ("rgba16", 16, 6),
                ("grey", 8, 0),
                ("grey16", 16, 0),
                ("palette", 8, 3),
                ("grey-alpha", 8, 4),
                ("bilevel", 1, 0),
            )
        },
        "png-more-rows-than-it-says": lambda: png(100, 100, pixels=zeros(300_000_000)),
        "png-icc": lambda: png(9, 9, png_chunk(b"iCCP", b"icc\0\0" + zeros(500_000_000)), pixels=zeros(9 * 28)),
        "png-ztxt": lambda: png(9, 9, png_chunk(b"zTXt", b"a\0\0" + zeros(500_000_000)), pixels=zeros(9 * 28)),
        "png-itxt": lambda: png(9, 9, png_chunk(b"iTXt", b"a\0\1\0\0\0" + zeros(500_000_000)), pixels=zeros(9 * 28)),
        "png-many-ztxt": lambda: png(
            9, 9, *([png_chunk(b"zTXt", b"a\0\0" + zeros(1_000_000))] * 10_000), pixels=zeros(9 * 28)
        ),
        "png-many-chunks": lambda: png(9, 9, png_chunk(b"juNk", b"") * (limit // 12 - 99), pixels=zeros(9 * 28)),
        "png-many-text": lambda: png(9, 9, png_chunk(b"tEXt", b"a\0b") * (limit // 15 - 99), pixels=zeros(9 * 28)),
        "png-many-empty-idat": lambda: png(9, 9, png_chunk(b"IDAT", b"") * (limit // 12 - 99), pixels=zeros(9 * 28)),
        "png-exif-large": lambda: png(9, 9, png_chunk(b"eXIf", exif_block(20_000, 4_000_000)), pixels=zeros(9 * 28)),
        "png-exif-wide": lambda: png(9, 9, png_chunk(b"eXIf", exif_block(64, 30_000_000)), pixels=zeros(9 * 28)),
        "png-interlaced": lambda: encoded(Image.new("RGB", (7000, 7000)), "PNG").replace(
            b"\x08\x02\0\0\0", b"\x08\x02\0\0\1"
        ),
        "gif-many-frames": lambda: _gif_frames(1_000_000),
        "gif-large-screen": lambda: gif(7_000, 7_000),
        "gif-large-screen-many-frames": lambda: _gif_frames(10),
        "gif-long-comment": lambda: _gif_comment(limit // 256 - 9),
        "gif-many-comments": lambda: _sub_blocks(limit // 5 - 99),
        "gif-50-million": lambda: large("GIF", side, side, "P"),
        "tiff-overlapping-tags": lambda: tiff(
            tiff_tags(9, 9) + [(0x9000 + n, 7, 30_000_000, 8) for n in range(200)], bytes(30_000_000)
        ),
        "tiff-many-tags": lambda: tiff(
            tiff_tags(9, 9) + [(1000 + n, 7, 1_000_000, 8) for n in range(60_000)], bytes(1_000_000)
        ),
        "tiff-many-strips": lambda: tiff(
            [row for row in tiff_tags(1, 7_000_000, t278=1) if row[0] != 273] + [(273, 4, 7_000_000, 8)],
            bytes(28_000_000),
        ),
        "tiff-many-strips-of-nothing": lambda: tiff(
            [row for row in tiff_tags(9, 9, t278=1) if row[0] != 273] + [(273, 4, 7_000_000, 8)], bytes(28_000_000)
        ),
        "tiff-rationals": lambda: tiff([*tiff_tags(9, 9), (282, 5, 3_500_000, 8)], bytes(range(1, 201)) * 140_000),
        "tiff-bits-per-sample": lambda: tiff(
            [row for row in tiff_tags(9, 9) if row[0] != 258] + [(258, 3, 14_000_000, 8)], b"\x08\0" * 14_000_000
        ),
        "tiff-samples": lambda: tiff(tiff_tags(9, 9, t277=60_000), bytes(100)),
        "tiff-samples-4-billion": lambda: tiff(tiff_tags(9, 9, t277=0xFFFFFFFF), bytes(100)),
        "tiff-many-ifds": lambda: _many_ifds(200_000),
        "tiff-ifd-loop": lambda: tiff(tiff_tags(9, 9), bytes(81), next_ifd=89),
        "tiff-sub-ifd-loop": lambda: tiff([*tiff_tags(9, 9), (0x8769, 4, 1, 89)], bytes(81)),
        "tiff-tile-60000": lambda: _tiled(64, 64, HUGE, HUGE),
        "tiff-tile-20000": lambda: _tiled(64, 64, 20_000, 20_000),
        "tiff-tile-7000": lambda: _tiled(7_000, 7_000, 7_040, 7_040),
        "tiff-tile-1": lambda: _tiled(7_000, 7_000, 1, 1),
        "tiff-tile-16": lambda: _tiled(7_000, 7_000, 16, 16),
        "tiff-tile-raw": lambda: _tiled(64, 64, HUGE, HUGE, compression=1),
        "tiff-deflate-rgb": lambda: _deflate_tiff(side, side, 8, 3, 2),
        "tiff-deflate-rgba": lambda: _deflate_tiff(side, side, 8, 4, 2, t338=2),
        "tiff-deflate-rgb16": lambda: _deflate_tiff(side, side, 16, 3, 2),
        "tiff-deflate-cmyk": lambda: _deflate_tiff(side, side, 8, 4, 5),
        "tiff-deflate-float": lambda: _deflate_tiff(side, side, 32, 1, 1, t339=3),
        "tiff-deflate-int": lambda: _deflate_tiff(side, side, 32, 1, 1, t339=2),
        "tiff-deflate-16": lambda: _deflate_tiff(side, side, 16, 1, 1),
        "tiff-deflate-lab": lambda: _deflate_tiff(side, side, 8, 3, 8),
        "tiff-deflate-turned": lambda: _deflate_tiff(side, side, 8, 3, 2, t274=6),
        "tiff-deflate-planes": lambda: _deflate_tiff(side, side, 8, 3, 2, t284=2),
        **{
            f"tiff-compression-{number}": lambda number=number: tiff(tiff_tags(64, 64, t259=number), bytes(4096))
            for number in (
                0,
                2,
                3,
                4,
                5,
                6,
                7,
                8,
                9,
                10,
                32766,
                32771,
                32773,
                32809,
                32946,
                34661,
                34676,
                34677,
                34712,
                34887,
                34925,
                50000,
                50001,
                50002,
                52546,
                65535,
            )
        },
        "webp-50-million": lambda: large("WEBP", side, side, lossless=True, method=0),
        "webp-lossy-50-million": lambda: large("WEBP", side, side, method=0),
        "webp-alpha-50-million": lambda: large("WEBP", side, side, "RGBA", lossless=True, method=0),
        "webp-20-million": lambda: large("WEBP", 4_472, 4_472, "RGBA", lossless=True, method=0),
        "webp-frames": lambda: encoded(
            Image.new("RGB", (3000, 3000)),
            "WEBP",
            save_all=True,
            lossless=True,
            method=0,
            append_images=[Image.new("RGB", (3000, 3000), (n, 0, 0)) for n in range(30)],
        ),
        "webp-exif-large": lambda: webp_with_exif(exif_block(20_000, 4_000_000)),
        "webp-exif-wide": lambda: webp_with_exif(exif_block(64, 20_000_000)),
        "jpeg2000-50-million": lambda: large("JPEG2000", side, side),
        "jpeg2000-20-million": lambda: large("JPEG2000", 4_472, 4_472),
        "jpeg2000-16-million-rgba": lambda: large("JPEG2000", 4_000, 4_000, "RGBA"),
        "jpeg2000-tiles": lambda: large("JPEG2000", 4_000, 4_000, tile_size=(16, 16)),
        "jpeg2000-noise": lambda: encoded(_noise(3_000), "JPEG2000"),
        "heif-50-million": lambda: large("HEIF", side, side, **FAST_HEIF),
        "heif-30-million-alpha": lambda: large("HEIF", 5_700, 5_700, "RGBA", chroma=444, **FAST_HEIF),
        "heif-16-million-in-a-header-of-one": lambda: resized_in_header(
            "HEIF", large("HEIF", 4_000, 4_000, **FAST_HEIF), 64, 64
        ),
        "avif-50-million": lambda: large("AVIF", side, side, speed=10),
        "avif-444-50-million": lambda: large("AVIF", side, side, "RGBA", speed=10, subsampling="4:4:4"),
        "avif-20-million": lambda: large("AVIF", 4_472, 4_472, "RGBA", speed=10, subsampling="4:4:4"),
        "avif-noise": lambda: encoded(_noise(3_000), "AVIF", speed=10, quality=95),
        "avif-exif-large": lambda: avif_with_exif(exif_block(20_000, 4_000_000)),
        "avif-exif-wide": lambda: avif_with_exif(exif_block(64, 20_000_000)),
        "jpeg-50-million": lambda: large("JPEG", side, side),
        "jpeg-progressive-50-million": lambda: large("JPEG", side, side, progressive=True, subsampling=0),
        "jpeg-progressive-cmyk-50-million": lambda: large("JPEG", side, side, "CMYK", progressive=True),
        "jpeg-cmyk-50-million": lambda: large("JPEG", side, side, "CMYK"),
        "jpeg-turned-50-million": lambda: large("JPEG", side, side, exif=_turned(6)),
        "jpeg-progressive-turned-50-million": lambda: large(
            "JPEG", side, side, progressive=True, subsampling=0, exif=_turned(5)
        ),
        "jpeg-many-scans": _many_scans,
        "jpeg-noise": lambda: encoded(_noise(5_000), "JPEG", quality=85),
        "jpeg-many-segments": lambda: jpeg_with(*[(0xE5, b"")] * (limit // 4 - 999)),
        "jpeg-many-comments": lambda: jpeg_with(*[(0xFE, b"")] * (limit // 4 - 999)),
        "jpeg-many-exif": lambda: jpeg_with(*[(0xE1, b"Exif\0\0" + bytes(60_000))] * 500),
        "jpeg-many-small-exif": lambda: jpeg_with(*[(0xE1, b"Exif\0\0a")] * 2_000_000),
        "jpeg-fill": lambda: encoded(picture(), "JPEG")[:2] + b"\xff" * (limit - 9999) + encoded(picture(), "JPEG")[2:],
        "jpeg-junk": lambda: encoded(picture(), "JPEG")[:20] + bytes(limit - 9999) + encoded(picture(), "JPEG")[20:],
        "jpeg-exif-large": lambda: jpeg_with_exif(exif_block(20_000, 4_000_000)),
        "jpeg-exif-wide": lambda: jpeg_with_exif(exif_block(64, 30_000_000)),
        "jpeg-exif-64k": lambda: jpeg_with_exif(exif_block(2_700, 32_000)),
        "jpeg-mpf": lambda: jpeg_with((0xE2, b"MPF\0" + exif_block(2_700, 32_000))),
        "mpo-many-frames": lambda: jpeg_with(
            (0xE2, b"MPF\0II*\0\x08\0\0\0\1\0\1\xb0\4\0\1\0\0\0\xff\xff\xff\x7f\0\0\0\0")
        ),
        "jpeg-icc": lambda: encoded(picture(), "JPEG", icc_profile=bytes(16_000_000)),
        "jpeg-xmp": lambda: jpeg_with((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"tiff:Orientation=" * 3_800)),
        "png-xmp": lambda: png(
            9,
            9,
            png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + b'tiff:Orientation="6" ' * 1_400_000),
            pixels=zeros(9 * 28),
        ),
        "qoi-run-50-million": lambda: qoi(side, side, b"\xfd" * (side * side // 62 + 9) + bytes(7) + b"\1"),
        "qoi-one-million": lambda: qoi(1000, 1000, b"\xfe\1\2\3\xfe\3\2\1" * 500_000 + bytes(7) + b"\1"),
        "qoi-ops": lambda: qoi(5_000, 5_000, b"\x6a" * (limit - 99)),
        "bmp-50-million": lambda: bmp(side, side, zlib.decompress(zeros(limit - 2000)), bits=4),
        "bmp-rle-50-million": lambda: bmp(side, side, b"\xff\x07" * (side * side // 255 + 9), compression=1),
        "bmp-rle-short-runs": lambda: bmp(5_000, 5_000, b"\1\x07" * (limit // 2 - 999), compression=1),
        "bmp-rle-nothing": lambda: bmp(5_000, 5_000, b"\0\0" * (limit // 2 - 999), compression=1),
        "bmp-rle-delta": lambda: _bmp_delta(40_000_000),
        "bmp-rle-delta-1-million": lambda: _bmp_delta(1_000_000),
        "sgi-rle-long-runs": lambda: _sgi_rows(600, b"\xff\x07" * 300),
        "sgi-rle-same-row": lambda: _sgi_rows(113, b"\x7f\x07" * 56 + b"\0"),
        "sgi-16": lambda: sgi(3_000, 3_000, bytes(limit - 600), rle=0, bytes_a_value=2, planes=1),
        "pcx-rle": lambda: pcx(side, side, b"\xff\x07" * (side * side // 63 + 999)),
        "tga-rle": lambda: tga(side, side, b"\xff\1\2\3" * (side * side // 128 + 999)),
        "tga-palette": lambda: (
            struct.pack("<BBBHHBHHHHBB", 255, 1, 9, 0, 65535, 32, 0, 0, 7000, 7000, 8, 0)
            + bytes(255 + 4 * 65535)
            + b"\xff\1" * 400_000
        ),
        "ppm-maxval": lambda: plain(b"P6", 3_200, 3_200, bytes(30_720_000), 100),
        "ppm-maxval-1-million": lambda: plain(b"P6", 1_024, 1_024, bytes(3 * 2**20), 100),
        "ppm-plain": lambda: plain(b"P3", 2_300, 2_300, b"7 " * (limit // 2 - 99)),
        "ppm-plain-1-million": lambda: plain(b"P3", 1_024, 1_024, b"255 " * (3 * 2**20)),
        "ppm-plain-huge-numbers": lambda: plain(b"P3", 100, 100, b"9" * (limit - 99)),
        "ppm-plain-comments": lambda: plain(b"P3", 100, 100, b"#\n" * (limit // 2 - 99)),
        "ppm-plain-blanks": lambda: plain(b"P3", 100, 100, b" " * (limit - 99)),
        "ppm-header-comments": lambda: b"P6\n" + b"#\n" * (limit // 2 - 99) + b"9 9\n255\n" + bytes(243),
        "ppm-header-comment": lambda: b"P6\n#" + b"a" * (limit - 999) + b"\n9 9\n255\n" + bytes(243),
        "pbm-plain": lambda: plain(b"P1", 5_000, 5_000, b"1" * 25_000_000),
        "pfm-not-finite": lambda: (
            b"Pf\n99 99\n-1.0\n"
            + np.tile(np.array([np.nan, np.inf, -np.inf, 3e38, -3e38, 0.5], np.float32), 1634).tobytes()[: 99 * 99 * 4]
        ),
        "pfm-50-million-in-32-mb": lambda: b"Pf\n2800 2800\n-1.0\n" + bytes(4 * 2800 * 2800),
        "pgm-16": lambda: plain(b"P5", 3_900, 3_900, bytes(2 * 3_900 * 3_900), 65535),
        "ico-many-entries": lambda: (
            struct.pack("<HHH", 0, 1, 65535) + struct.pack("<BBBBHHII", 9, 9, 0, 0, 1, 32, 100, 22) * 65535
        ),
        "ico-png-50-million": lambda: ico(png_of_zeros(side, side, 8, 6)),
        "ico-png-80-million": lambda: ico(png_of_zeros(9_300, 9_300, 8, 6)),
        "ico-dib-50-million": lambda: ico(bmp(side, 2 * side, bytes(limit - 99), bits=1)[14:], bits=1),
        "icns-png-80-million": lambda: icns(png_of_zeros(9_300, 9_300, 8, 6)),
        "icns-jpeg2000-50-million": lambda: icns(large("JPEG2000", side, side)),
        "icns-jpeg2000-80-million": lambda: icns(large("JPEG2000", 9_300, 9_300)),
        "icns-many-blocks": lambda: b"icns" + struct.pack(">I", 0x7FFFFFFF) + b"junk\0\0\0\x08" * (limit // 8 - 99),
        "icns-rle": lambda: icns(b"\0\0\0\0" + b"\xff\1" * 10_000, b"it32"),
        "icns-mask": lambda: icns(bytes(16_384), b"t8mk"),
    }
    for name, make in made.items():
        yield Input(f"bomb-{name}", "bomb", make)


def _noise(side: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8))


def _many_scans() -> bytes:
    """A progressive JPEG whose last scan is repeated: each is a pass over all of its coefficients."""
    data = large("JPEG", 6_000, 6_000, "L", progressive=True)
    start = data.rindex(b"\xff\xda")
    return data[:-2] + data[start:-2] * ((MAX_BYTES - len(data)) // max(1, len(data) - start) - 1) + data[-2:]


# --- Other things called .jpg, and honest extremes ---


SHAPED = ("PNG", "JPEG", "WEBP", "TIFF", "GIF", "BMP", "AVIF", "HEIF", "JPEG2000", "QOI", "TGA", "PPM", "SGI", "PCX")


def strangers() -> Iterator[Input]:
    """What is no picture, or one that Pillow reads and imgret does not; and pictures of extreme shapes."""
    buffer = io.BytesIO()
    import zipfile

    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("picture.png", encoded(picture(), "PNG"))
    made: dict[str, Callable[[], bytes]] = {
        "empty": lambda: b"",
        "one-byte": lambda: b"\xff",
        "svg": lambda: (
            b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><image href="file:///etc/passwd"/></svg>'
        ),
        "svg-entities": lambda: b'<!DOCTYPE s [<!ENTITY a "aaaa">]><svg>' + b"&a;" * 100_000 + b"</svg>",
        "html": lambda: b"<!doctype html><script>alert(1)</script>",
        "zip": buffer.getvalue,
        "elf": lambda: Path(sys.executable).resolve().read_bytes()[:100_000],
        "pdf": lambda: b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF",
        "eps": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(/tmp/owned) (w) file\n",
        "python": lambda: b"import os; os.system('true')",
        "pickle": lambda: b"\x80\x04cos\nsystem\n(S'true'\ntR.",
        "nulls": lambda: bytes(1 << 20),
        "noise": lambda: np.random.default_rng(0).bytes(1 << 20),
        "text": lambda: "những con hổ\n".encode() * 1000,
        "psd": lambda: b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 9, 9, 8, 3) + bytes(500),
        "sun": lambda: struct.pack(">IIIIIIII", 0x59A66A95, 9, 9, 24, 300, 1, 0, 0) + bytes(300),
        "xpm": lambda: b'/* XPM */\nstatic char *a[] = {\n"1 1 1 1",\n"a c #ff0000",\n"a"};',
        "fits": lambda: b"SIMPLE  =                    T".ljust(80) + b"END".ljust(2800),
        "fli": lambda: struct.pack("<IHHHHH", 200, 0xAF11, 1, 9, 9, 8) + bytes(200),
        "cur": lambda: ico(png(9, 9, colour=6, pixels=zeros(37 * 9))).replace(b"\0\0\1\0", b"\0\0\2\0", 1),
        "dcx": lambda: struct.pack("<III", 0x3ADE68B1, 12, 0) + pcx(9, 9, bytes(300)),
        "wmf": lambda: b"\xd7\xcd\xc6\x9a\0\0" + bytes(200),
        "fpx": lambda: b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(1000),
        "tar": lambda: b"a.png".ljust(257, b"\0") + b"ustar" + bytes(500),
        "mp4": lambda: b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(1000),
        "heic": lambda: b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(1000),
        "svgz": lambda: __import__("gzip").compress(b"<svg/>", mtime=0),
        "above-the-limit": lambda: bytes(MAX_BYTES + 1),
        "icc-broken": lambda: encoded(picture(), "JPEG", icc_profile=b"not a profile" * 99),
        "icc-broken-png": lambda: png(9, 9, png_chunk(b"iCCP", b"icc\0\0not zlib"), pixels=zeros(9 * 28)),
        "exif-broken": lambda: jpeg_with((0xE1, b"Exif\0\0MM\0*\xff\xff\xff\xff" + bytes(99))),
        "exif-text": lambda: jpeg_with((0xE1, b"Exif\0\0" + b"<script>" * 99)),
        "exif-orientation-text": lambda: jpeg_with(
            (0xE1, b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\x01\2\0\4\0\0\0six\0\0\0\0\0")
        ),
        "exif-orientation-many": lambda: jpeg_with(
            (0xE1, b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\x01\3\0\2\0\0\0\6\0\6\0\0\0\0\0")
        ),
        "exif-resolution-nought": lambda: jpeg_with(
            (0xE1, b"Exif\0\0II*\0\x08\0\0\0\1\0\x1a\x01\5\0\1\0\0\0\x1a\0\0\0\0\0\0\0" + bytes(8))
        ),
    }
    for width, height in ((1, 1), (1, 30_000), (30_000, 1), (2, 3), (256, 257)):
        for kind in (
            "PNG",
            "JPEG",
            "WEBP",
            "TIFF",
            "GIF",
            "BMP",
            "AVIF",
            "HEIF",
            "JPEG2000",
            "QOI",
            "TGA",
            "PPM",
            "SGI",
            "PCX",
        ):
            if kind in ("WEBP", "HEIF") and max(width, height) > 16_383:
                continue
            made[f"{kind.lower()}-of-{width}x{height}"] = lambda w=width, h=height, kind=kind: large(kind, w, h)
    for name, make in made.items():
        yield Input(name, "stranger" if "-of-" not in name else "extreme shape", make)


def inputs(flips: int = FLIPS) -> Iterator[Input]:
    """The whole corpus, in a fixed order."""
    for name, make in seeds().items():
        yield from damaged(name, make, flips)
    yield from claims()
    yield from bombs()
    yield from strangers()


SLOW_TO_MAKE = (
    "million",
    "noise",
    "zeros",
    "many-scans",
    "tiff-deflate",
    "interlaced",
    "tiles",
    "webp-frames",
    "-7000",
)


def sample() -> Iterator[Input]:
    """Of each kind of trouble one, of those that are quickly made."""
    for number, given in enumerate(inputs(flips=3)):
        once = given.kind in ("whole", "stranger", "extreme shape") or number % 17 == 0
        claimed = given.kind == "header claims" and f"{HUGE}x{HUGE}" in given.name
        bomb = given.kind == "bomb" and not any(part in given.name for part in SLOW_TO_MAKE)
        if (once and given.kind != "bomb") or claimed or bomb:
            yield given


NAMES = (
    "con hổ.png", "two  spaces .png", "new\nline.png", "tab\tbed.png", "кошка 🐈.png", "'; DROP TABLE pictures;--.png",
    "<script>alert(1)</script>.png".replace("/", "\u2215"), "%2e%2e%2fup.png", "up..up .. up.png", "-rf.png",
    "a" * 240 + ".png", "\u202egnp.png", "NUL.png", "back\\slash.png", 'quo"te.png',
    b"not utf-8 \xff\xfe.png".decode("utf-8", "surrogateescape"),
)  # fmt: skip
"""File names that a library may have."""


# --- What becomes of an input ---


@dataclass(frozen=True)
class Outcome:
    """What became of one input in a process of its own.

    `result` is "picture", "refused" or what went wrong; `memory` the peak of resident bytes, Python and Pillow included
    and the input itself not; `seconds` of processor time.
    """

    name: str
    kind: str
    result: str
    says: str
    seconds: float
    memory: int

    @property
    def fault(self) -> str | None:
        """Why this is not how it should be, or None."""
        if self.result not in ("picture", "refused"):
            return f"{self.result}: {self.says}"
        if self.memory > MAX_MEMORY:
            return f"{self.memory / 1e6:.0f} MB"
        if self.seconds > MAX_SECONDS:
            return f"{self.seconds:.1f} s"
        return None


UNWANTED = (
    "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system", "socket.", "os.remove", "os.rename", "os.mkdir",
    "os.truncate", "pickle.", "ctypes.dlopen",
)  # fmt: skip
"""Audit events that no decoding of a picture has a reason for."""


def _watch() -> list[str]:
    """From now on, what this process does that decoding a picture should not."""
    seen: list[str] = []

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[1], str) and set(arguments[1]) & set("wax+"):
            seen.append(f"writes {arguments[0]}")
        elif event.startswith(UNWANTED):
            seen.append(event)

    sys.addaudithook(hear)

    def warned(message: Warning | str, *_: Any, **__: Any) -> None:
        seen.append(f"warns {message}")

    warnings.showwarning = warned
    return seen


def take(data: bytes) -> tuple[str, str]:
    """What an input comes to: ("picture", its size), ("refused", the sentence), or what went wrong and how."""
    try:
        image = load_image(data)
    except ImageError as error:
        sentence = str(error)
        return (
            ("refused", sentence) if "\n" not in sentence and len(sentence) < 500 else ("no sentence", sentence[:500])
        )
    except BaseException as error:
        return "raised", f"{type(error).__name__}: {error}"[:300]
    if type(image) is not Image.Image or image.mode != "RGB" or pixel_vector(image, 64).shape != (64 * 64 * 3,):
        return "no picture", repr(image)
    small = thumbnail(image)
    if max(load_image(small).size) > 256:
        return "no thumbnail", repr(image)
    return "picture", f"{image.width} x {image.height}"


def outcome(given: Input, seconds: float = 60.0) -> Outcome:
    """Takes an input in a child of this process, which is given a minute of processor time and 8 GB at most."""
    sys.stdout.flush()
    # Made in a child, too: what an encoder keeps of this process's memory would count for every input after it.
    made = os.memfd_create("made")
    child = os.fork()
    if child == 0:
        with open(made, "wb", closefd=False) as file:
            file.write(given.make())
        os._exit(0)
    if os.waitpid(child, 0)[1] != 0:
        raise RuntimeError(f"{given.name} cannot be made.")
    size = os.fstat(made).st_size
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        data = os.pread(made, size, 0)
        said = os.memfd_create("said")
        os.dup2(said, 1)
        os.dup2(said, 2)
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        resource.setrlimit(resource.RLIMIT_CPU, (int(seconds), int(seconds)))
        seen = _watch()
        begun = time.process_time()
        result, says = take(data)
        spent = time.process_time() - begun
        printed = os.pread(said, 200, 0).decode("utf-8", "replace")
        if seen or (printed and "tiff" not in given.name):  # libtiff itself tells standard error
            result, says = "not quiet", f"{seen[:3]} {printed!r}"
        os.write(write, json.dumps([result, says, spent]).encode()[:60_000])
        os._exit(0)
    os.close(write)
    os.close(made)
    parts = []
    while select.select([read], [], [], 2 * seconds)[0]:
        part = os.read(read, 1 << 16)
        if not part:
            break
        parts.append(part)
    else:
        os.kill(child, signal.SIGKILL)
    os.close(read)
    _, status, usage = os.wait4(child, 0)
    memory = usage.ru_maxrss * 1024 - size  # which the caller holds anyway: the upload
    if not parts:
        how = f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else f"exit code {os.WEXITSTATUS(status)}"
        return Outcome(given.name, given.kind, "died", how, usage.ru_utime + usage.ru_stime, memory)
    result, says, spent = json.loads(b"".join(parts))
    return Outcome(given.name, given.kind, result, says, spent, memory)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", metavar="DIR", type=Path, help="write the corpus as files instead")
    parser.add_argument("--only", metavar="TEXT", default="", help="only inputs whose name has TEXT in it")
    parser.add_argument("--sample", action="store_true")
    parser.add_argument("--flips", type=int, default=FLIPS)
    options = parser.parse_args()
    chosen = (given for given in (sample() if options.sample else inputs(options.flips)) if options.only in given.name)
    if options.write is not None:
        options.write.mkdir(parents=True)
        for given in chosen:
            (options.write / f"{given.name}.jpg").write_bytes(given.make())
        return 0
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    load_image(encoded(picture(), "AVIF"))  # so that what is imported once is in every child's memory from the start
    outcomes = []
    for given in chosen:
        found = outcome(given)
        outcomes.append(found)
        if found.fault:
            print(f"{found.name}: {found.fault}", file=sys.stderr, flush=True)
    print(table(outcomes))
    return int(any(found.fault for found in outcomes))


def table(outcomes: list[Outcome]) -> str:
    """Counts by kind, and the five that took the longest and the most memory, as Markdown."""
    lines = ["| | inputs | pictures | refused | worst time | most memory |", "|---|---|---|---|---|---|"]
    kinds = list(dict.fromkeys(found.kind for found in outcomes))
    for kind in [*kinds, "all"]:
        rows = [found for found in outcomes if kind in ("all", found.kind)]
        counts = [sum(found.result == result for found in rows) for result in ("picture", "refused")]
        worst = f"{max(found.seconds for found in rows):.1f} s | {max(found.memory for found in rows) / 1e6:.0f} MB"
        lines.append(f"| {kind} | {len(rows):,} | {counts[0]:,} | {counts[1]:,} | {worst} |")
    for title, key in (("The slowest", "seconds"), ("The largest", "memory")):
        worst_five = sorted(outcomes, key=lambda found: -getattr(found, key))[:5]
        lines.append(
            f"\n{title}: " + ", ".join(f"{f.name} ({f.seconds:.1f} s, {f.memory / 1e6:.0f} MB)" for f in worst_five)
        )
    faults = [f"{found.name}: {found.fault}" for found in outcomes if found.fault]
    lines.append(f"\n{len(faults)} not as they should be" + "".join(f"\n- {fault}" for fault in faults))
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
