"""Whatever claims to be a picture becomes RGB or one clear sentence."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

from imgret.images import ImageError, load_image, pixel_vector, thumbnail
from imgret.settings import EXAMPLES

TIGER = EXAMPLES / "queries" / "tiger.webp"


@pytest.fixture(scope="module")
def tiger():
    return load_image(TIGER)


def encoded(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def distance(a, b):
    return np.abs(np.asarray(a, int) - np.asarray(b, int)).mean()


def test_bytes_path_array_and_image_are_the_same_picture(tiger):
    assert tiger.mode == "RGB"
    for source in (TIGER.read_bytes(), str(TIGER), np.asarray(tiger), np.asarray(tiger) / 255, tiger):
        assert distance(load_image(source), tiger) == 0


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "TGA", "GIF", "JPEG", "WEBP", "AVIF", "JPEG2000", "QOI"])
def test_common_formats_are_read(tiger, kind):
    assert distance(load_image(encoded(tiger, kind)), tiger) < 8


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tiger, orientation):
    corner = tiger.crop((0, 0, 100, 60))
    turned = {
        2: [Image.Transpose.FLIP_LEFT_RIGHT], 3: [Image.Transpose.ROTATE_180], 4: [Image.Transpose.FLIP_TOP_BOTTOM],
        5: [Image.Transpose.TRANSPOSE], 6: [Image.Transpose.ROTATE_90], 7: [Image.Transpose.TRANSVERSE],
        8: [Image.Transpose.ROTATE_270], 1: [],
    }[orientation]  # fmt: skip
    stored = corner
    for step in turned:
        stored = stored.transpose(step)
    exif = Image.Exif()
    exif[0x0112] = orientation
    assert distance(load_image(encoded(stored, "PNG", exif=exif)), corner) == 0


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_transparency_becomes_white(mode):
    clear = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 4, 8))
    image = np.asarray(load_image(clear.convert("LA") if mode == "LA" else clear.quantize() if mode == "PA" else clear))
    assert (image[:, 4:] == 255).all()
    assert not (image[:, :4] == 255).all()


def test_palette_grey_bilevel_and_cmyk_are_read(tiger):
    for mode in ("P", "L", "1", "CMYK"):
        converted = tiger.convert(mode)
        expected = converted.convert("RGB")
        assert distance(load_image(encoded(converted, "TIFF")), expected) == 0


def test_sixteen_bits_keep_their_brightness():
    ramp = np.linspace(0, 65535, 64 * 64).reshape(64, 64).astype(np.uint16)
    image = np.asarray(load_image(encoded(Image.fromarray(ramp), "PNG")), int)
    np.testing.assert_allclose(image[:, :, 0], ramp / 257, atol=0.51)


def test_floats_in_a_tiff_and_lab_are_read(tiger):
    grey = np.asarray(tiger.convert("L"), np.float32) / 255
    assert distance(load_image(encoded(Image.fromarray(grey), "TIFF")), tiger.convert("L").convert("RGB")) < 1
    lab = ImageCms.profileToProfile(
        tiger, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
    )
    assert distance(load_image(encoded(lab, "TIFF")), tiger) < 4


def test_an_animation_is_its_first_frame(tiger):
    other = Image.new("RGB", tiger.size, "green")
    data = encoded(tiger, "WEBP", save_all=True, append_images=[other], lossless=True)
    assert distance(load_image(data), tiger) == 0


JPEG = encoded(Image.new("RGB", (300, 200), "teal"), "JPEG")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"<!doctype html><html></html>", "not a picture"),
        (b"PK\x03\x04" + bytes(100), "not a picture"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not a picture"),
        (JPEG[: len(JPEG) // 2], "broken"),
        (JPEG[:20], "not a picture"),
    ],
)
def test_what_is_no_picture_is_refused_in_one_sentence(data, says, tmp_path):
    file = tmp_path / "page.jpg"
    file.write_bytes(data)
    for source, name in ((data, "The picture"), (file, "page.jpg")):
        with pytest.raises(ImageError, match=says) as refusal:
            load_image(source)
        assert str(refusal.value).startswith(name)
        assert "\n" not in str(refusal.value)


def png_header(width, height):
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("side", [8_000, 10_000, 60_000])
def test_a_huge_picture_is_refused_from_its_header(side):
    with pytest.raises(ImageError, match="50 million"):
        load_image(png_header(side, side))


def test_a_file_above_the_size_in_bytes_is_refused():
    with pytest.raises(ImageError, match=r"at most 1 MB"):
        load_image(bytes(2**20 + 1), max_bytes=2**20)


@pytest.mark.parametrize("path", ["/no/such/file.png", "/", "a\0b", "x" * 5000])
def test_a_path_without_a_file_is_refused(path):
    with pytest.raises(ImageError):
        load_image(path)


@pytest.mark.parametrize(
    "array", [np.zeros((2, 2, 7)), np.zeros((0, 4, 3)), np.full((2, 2), 7.0), np.zeros((2, 2), np.int64), np.zeros(3)]
)
def test_an_array_that_is_no_picture_is_refused(array):
    with pytest.raises(ImageError):
        load_image(array)


def test_the_pixel_vector_is_the_square_bicubic_resize(tiger):
    wide = tiger.crop((0, 0, 200, 80))
    vector = pixel_vector(wide, 16)
    assert vector.dtype == np.uint8
    expected = np.asarray(wide.resize((16, 16), Image.Resampling.BICUBIC))
    assert (vector.reshape(16, 16, 3) == expected).all()


def test_a_thumbnail_is_webp_of_at_most_256_px_and_never_enlarged(tiger):
    large = Image.open(io.BytesIO(thumbnail(tiger.resize((900, 300)))))
    assert (large.format, large.size) == ("WEBP", (256, 85))
    assert Image.open(io.BytesIO(thumbnail(tiger.crop((0, 0, 40, 30))))).size == (40, 30)
    assert Image.open(io.BytesIO(thumbnail(Image.new("RGB", (1, 30_000))))).size == (1, 256)
