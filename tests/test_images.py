"""Whatever claims to be a picture becomes RGB or one clear sentence."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms, TiffImagePlugin, TiffTags
from pillow_heif import from_bytes, from_pillow

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


def heic(image, **options):
    buffer = io.BytesIO()
    from_pillow(image).save(buffer, **options)
    return buffer.getvalue()


def test_heic_photographs_are_read_upright_and_with_alpha_on_white(tiger):
    assert distance(load_image(heic(tiger, quality=90)), tiger) < 4
    corner = tiger.crop((0, 0, 120, 60))
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = corner.transpose(Image.Transpose.ROTATE_90)
    assert load_image(heic(turned, quality=90, exif=exif.tobytes())).size == corner.size
    assert distance(load_image(heic(turned, quality=90, exif=exif.tobytes())), corner) < 4
    clear = Image.new("RGBA", (64, 64), (255, 0, 0, 0))
    clear.paste((0, 0, 255, 255), (0, 0, 32, 64))
    found = np.asarray(load_image(heic(clear, quality=-1, chroma=444)))
    assert (found[:, 40:] > 250).all()
    assert (found[:, :24, 0] < 20).all()


def test_heic_of_ten_bits_keeps_its_brightness(tiger):
    deep = np.asarray(tiger).astype(np.uint16) * 257
    buffer = io.BytesIO()
    from_bytes("RGB;16", tiger.size, deep.tobytes()).save(buffer, quality=90)
    assert distance(load_image(buffer.getvalue()), tiger) < 4


@pytest.mark.parametrize("size", [(7_100, 7_100), (60_000, 60_000), (8, 8)])
def test_heic_that_lies_about_its_size_is_refused(tiger, size):
    data = bytearray(heic(tiger))
    at = data.index(b"ispe") + 8
    data[at : at + 8] = struct.pack(">II", *size)
    with pytest.raises(ImageError, match=r"million|broken"):
        load_image(bytes(data))


def display_p3():
    """A colour profile such as phones and Macs use: the primaries of Display P3, and a gamma of 2.2."""
    fixed = lambda *values: b"".join(struct.pack(">i", round(value * 65536)) for value in values)  # noqa: E731
    xyz = lambda *values: b"XYZ \0\0\0\0" + fixed(*values)  # noqa: E731
    text = b"Display P3\0"
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + bytes(78),
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": xyz(0.9642, 1, 0.8249),
        b"rXYZ": xyz(0.51512, 0.24120, -0.00105),
        b"gXYZ": xyz(0.29198, 0.69225, 0.04189),
        b"bXYZ": xyz(0.15710, 0.06657, 0.78407),
        **dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), b"curv\0\0\0\0\0\0\0\1" + struct.pack(">H", round(2.2 * 256))),
    }
    at = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, value in tags.items():
        table += name + struct.pack(">II", at + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    head = struct.pack(">I4sI4s4s4s", at + len(body), b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ") + bytes(12)
    head += b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249)
    return ImageCms.ImageCmsProfile(io.BytesIO(head.ljust(128, b"\0") + table + body))


WIDE = display_p3()


def test_colours_of_another_profile_become_srgb(tiger):
    wide = ImageCms.profileToProfile(tiger, ImageCms.createProfile("sRGB"), WIDE)
    assert distance(wide, tiger) > 1.5  # the same colours, written down in other numbers
    for kind in ("PNG", "TIFF", "WEBP"):
        data = encoded(wide, kind, icc_profile=WIDE.tobytes(), **({"lossless": True} if kind == "WEBP" else {}))
        assert distance(load_image(data), tiger) < 1
    found = load_image(heic(wide, quality=95, icc_profile=WIDE.tobytes(), icc_profile_type="prof"))
    assert distance(found, tiger) < 4
    assert distance(load_image(found), found) == 0  # and not once more
    clear = wide.convert("RGBA")
    clear.putalpha(Image.new("L", wide.size, 255))
    assert distance(load_image(encoded(clear, "PNG", icc_profile=WIDE.tobytes())), tiger) < 1


def test_a_profile_that_is_srgb_s_broken_or_another_mode_s_changes_nothing(tiger):
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (srgb, b"no profile", WIDE.tobytes()[:200]):
        assert distance(load_image(encoded(tiger, "TIFF", icc_profile=profile)), tiger) == 0
    grey = tiger.convert("L")
    assert distance(load_image(encoded(grey, "TIFF", icc_profile=WIDE.tobytes())), grey.convert("RGB")) == 0


def deep(tiger):
    grey = np.array(tiger.convert("L"))
    grey[0, :2] = 0, 255
    return grey


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda grey: grey.astype(np.uint16) * 16, "TIFF"),
        (lambda grey: grey.astype(np.uint16) * 16, "PNG"),
        (lambda grey: grey.astype(np.uint16) * 4, "TIFF"),
        (lambda grey: grey.astype(np.uint16) * 257, "TIFF"),
        (lambda grey: grey.astype(np.int32), "TIFF"),
        (lambda grey: grey.astype(np.int32) * 70_000, "TIFF"),
        (lambda grey: grey.astype(np.float32), "TIFF"),
        (lambda grey: grey.astype(np.float32) / 255, "TIFF"),
        (lambda grey: grey.astype(np.float32) * 16, "TIFF"),
        (lambda grey: grey.astype(np.float32) / 127.5 - 1, "TIFF"),
    ],
)
def test_more_than_eight_bits_are_scaled_by_the_range_that_the_values_need(tiger, make, kind):
    grey = deep(tiger)
    found = np.asarray(load_image(encoded(Image.fromarray(make(grey)), kind)), int)[:, :, 0]
    assert abs(found - grey).max() <= 2


def test_a_tiff_that_says_what_white_is_is_believed(tiger):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[281] = 4095
    tags.tagtype[281] = TiffTags.SHORT
    dark = deep(tiger).astype(np.uint16)  # of twelve bits, the lowest eight
    found = np.asarray(load_image(encoded(Image.fromarray(dark), "TIFF", tiffinfo=tags)))
    assert found.max() <= 16


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
