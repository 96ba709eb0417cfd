"""What people reported to fail elsewhere is asked by command line, client and page: hits, or one sentence of ours."""

import io
import os
import re
import unicodedata

import numpy as np
import pytest
from gradio_client import Client, exceptions, handle_file
from PIL import Image, ImageCms
from pillow_heif import from_pillow

from tests.browser import CHROMIUM, open_browser
from tests.conftest import QUERIES
from tests.raw import ask
from tests.test_page import shown_as, wait_for_hits

TIGER = QUERIES / "tiger.webp"
GREY = np.asarray(Image.open(TIGER).convert("L").resize((64, 48)))
COLOURS = Image.open(TIGER).convert("RGB").resize((64, 48))
NO_PICTURE = "is not a picture that can be read"


def saved(picture, kind, **options):
    buffer = io.BytesIO()
    (picture if isinstance(picture, Image.Image) else Image.fromarray(picture)).save(buffer, kind, **options)
    return buffer.getvalue()


def heic():
    buffer = io.BytesIO()
    from_pillow(COLOURS).save(buffer, quality=80)
    return buffer.getvalue()


def with_gap(value):
    values = GREY.astype(np.float32) / 255
    values[3:9] = value
    return values


def animated(kind):
    return saved(COLOURS, kind, save_all=True, append_images=[COLOURS.rotate(90)])


JPEG = saved(COLOURS, "JPEG")
HALF = saved(Image.open(TIGER).convert("RGB"), "JPEG")[:5000]
PICTURES = {
    "of a phone.HEIC": heic(),
    "heic called.jpg": heic(),
    "16 bits.png": saved(GREY.astype(np.uint16) * 257, "PNG"),
    "12 bits in 16.tif": saved(GREY.astype(np.uint16) * 16, "TIFF"),
    "int32.tif": saved(GREY.astype(np.int32), "TIFF"),
    "floats to 1.tif": saved(with_gap(0), "TIFF"),
    "floats to 4080.tif": saved(GREY.astype(np.float32) * 16, "TIFF"),
    "floats below 0.tif": saved(GREY.astype(np.float32) - 99, "TIFF"),
    "NaN.tif": saved(with_gap(np.nan), "TIFF"),
    "infinite.tif": saved(with_gap(np.inf), "TIFF"),
    "all the same.tif": saved(np.zeros((5, 5), np.float32), "TIFF"),
    "LAB.tif": saved(Image.new("LAB", (9, 9)), "TIFF"),
    "CMYK.jpg": saved(COLOURS.convert("CMYK"), "JPEG"),
    "profile.jpg": saved(
        COLOURS, "JPEG", icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    ),
    "broken profile.jpg": saved(COLOURS, "JPEG", icc_profile=b"\0" * 200),
    "broken exif.jpg": saved(COLOURS, "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff"),
    "animated.gif": animated("GIF"),
    "animated.webp": animated("WEBP"),
    "transparent.png": saved(Image.new("RGBA", (9, 9), (9, 9, 9, 0)), "PNG"),
    "palette.png": saved(COLOURS.quantize(4), "PNG", transparency=1),
    "one bit.png": saved(COLOURS.convert("1"), "PNG"),
    "a pixel.png": saved(Image.new("RGB", (1, 1)), "PNG"),
    "a line.png": saved(Image.new("RGB", (5000, 1)), "PNG"),
    "JPEG without an ending": JPEG,
    "a\nb.jpg": JPEG,
    "-k.jpg": JPEG,
    "%2e%2e; '\"<b>&.jpg": JPEG,
    "con hổ 虎 🐯.jpg": JPEG,
    unicodedata.normalize("NFD", "chó.jpg"): JPEG,
    "long" * 60 + ".jpg": JPEG,
}
NO_PICTURES = {
    "empty.jpg": (b"", r"is empty \(0 bytes\)"),
    "text.jpg": (b"no picture", NO_PICTURE),
    "page.png": (b"<!DOCTYPE html><html>404</html>", NO_PICTURE),
    "drawing.svg": (b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>', NO_PICTURE),
    "paper.pdf": (b"%PDF-1.7\n", NO_PICTURE),
    "script.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", NO_PICTURE),
    "raw.CR2": (b"II*\0\x10\0\0\0CR\x02\0" + bytes(99), "broken|header|not a picture"),
    "stub.heic": (b"\0\0\0\x18ftypheic", NO_PICTURE),
    "half.heic": (heic()[:300], "broken|breaks off|header|not a picture"),
    "half.jpg": (HALF, "breaks off"),
    "a header.jpg": (JPEG[:300], "broken header"),
    "half.png": (saved(COLOURS, "PNG")[:900], "breaks off"),
    "bomb.png": (saved(Image.new("1", (30_000, 30_000)), "PNG"), "at most .* million"),
    "no pixels.bmp": (saved(COLOURS, "BMP")[:18] + bytes(200), "pixels|header|not a picture"),
}
TEXTS = {
    "of 120 words": "word " * 100 + "guitar in a room with a window and a man who plays it for a cat on a chair",
    "Vietnamese": "con hổ trong rừng",
    "decomposed": unicodedata.normalize("NFD", "con chó"),
    "Russian": "тигр",
    "emoji": "🐯",
    "markup": "<b>tiger</b> & 'DROP TABLE'",
    "line breaks": "a\ntiger\r\n\t",
    "a placeholder": "{name} %s {0}",
    "a lone surrogate": "tiger \udc80",
}
NO_TEXTS = {
    "nothing": ("", "is empty"),
    "blanks": (" \n\t", "is empty"),
    "too long": ("x " * 2000, "at most 2000"),
}
ADDRESSES = (
    "https://example.com/a.jpg", "file:///pictures/a.jpg", "ftp://example.com/a.jpg", "data:image/png;base64,iVBORw0K",
)  # fmt: skip


def is_sentence(said, says=""):
    assert isinstance(said, str), said
    for never in ("Traceback", "could not be answered", 'File "', "Error:"):
        assert never not in said
    assert len(said.strip().splitlines()) == 1
    assert re.search(says, said), said
    return True


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The pictures, and what is none, in a folder."""
    folder = tmp_path_factory.mktemp("queries")
    for name, data in [*PICTURES.items(), *((name, data) for name, (data, _) in NO_PICTURES.items())]:
        (folder / name).write_bytes(data)
    return folder


@pytest.fixture
def search(imgret, index_folder, files, monkeypatch):
    monkeypatch.chdir(files)
    return lambda *arguments: imgret("search", index_folder, "-k", 2, *arguments)


def answered(run):
    assert run.returncode == 0, run.stderr
    assert [line.split()[0] for line in run.stdout.splitlines()] == ["1", "2"]
    assert all(is_sentence(line, "^note: ") for line in run.stderr.splitlines())
    return True


def refused(run, says):
    assert (run.returncode, run.stdout) == (2, ""), run
    return is_sentence(run.stderr, says)


@pytest.mark.parametrize("name", PICTURES)
def test_the_command_line_searches_with_every_picture(search, name):
    assert answered(search(f"--image={name}"))


@pytest.mark.parametrize("name", NO_PICTURES)
def test_the_command_line_says_what_is_wrong_with_a_picture(search, name):
    assert refused(search("--image", name, "--metric", "clip"), NO_PICTURES[name][1])


@pytest.mark.parametrize("kind", TEXTS)
def test_the_command_line_searches_with_every_text(search, kind):
    assert answered(search("--text", TEXTS[kind]))


def test_a_process_of_its_own_does_the_same(imgret_process, index_folder, files):
    search = ("search", index_folder, "-k", 2)
    assert answered(imgret_process(*search, "--text", TEXTS["a lone surrogate"]))
    assert answered(imgret_process(*search, "--image", files / "a\nb.jpg"))
    assert refused(imgret_process(*search, "--image", files / "half.jpg"), "breaks off")


@pytest.mark.parametrize("kind", NO_TEXTS)
def test_the_command_line_says_what_is_wrong_with_a_text(search, kind):
    assert refused(search("--text", NO_TEXTS[kind][0]), NO_TEXTS[kind][1])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        *((("--image", address), "is an address") for address in ADDRESSES),
        (("--image", "."), "There is no picture file"),
        (("--image", "missing.jpg"), "There is no picture file"),
        (("--image", ""), "There is no picture file"),
        (("--image", os.devnull), "There is no picture file"),
        (("--also", "text.jpg"), NO_PICTURE),
        (("--like", "missing.jpg"), "missing.jpg"),
        (("--text", "tiger", "--label", "animal"), "did you mean"),
        (("--text", "tiger", "-k", "0"), "at least 1"),
        (("--images", "missing"), "no pictures in missing"),
    ],
)
def test_the_command_line_says_what_is_wrong_with_a_query(search, arguments, says):
    assert refused(search(*arguments), says)


def test_a_folder_of_labels_is_a_filter(search):
    found = search("--text", "tiger", "--label", "animals", "--json")
    assert '"animals/' in found.stdout


@pytest.fixture(scope="module")
def client(server, tmp_path_factory):
    return Client(server, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


ENDPOINTS = ("/search_pixels", "/search_clip", "/compare")


@pytest.mark.parametrize("name", PICTURES)
def test_a_client_searches_with_every_picture(client, files, name):
    for endpoint in ENDPOINTS:
        answer = client.predict(image=handle_file(str(files / name)), k=2, api_name=endpoint)
        for each in answer if endpoint == "/compare" else [answer]:
            assert [hit["rank"] for hit in each["hits"]] == [1, 2]
            assert each["notice"] is None


@pytest.mark.parametrize("name", NO_PICTURES)
def test_a_client_hears_what_is_wrong_with_a_picture(client, files, name):
    for endpoint in ENDPOINTS:
        with pytest.raises(exceptions.AppError) as error:
            client.predict(image=handle_file(str(files / name)), k=2, api_name=endpoint)
        assert is_sentence(str(error.value), NO_PICTURES[name][1])


@pytest.mark.parametrize("kind", TEXTS)
def test_a_client_searches_with_every_text(server, kind):
    said, answer = ask(server, "/search_clip", [None, TEXTS[kind], None, 0.5, None, 2])
    assert said == "complete", answer
    assert [hit["rank"] for hit in answer["hits"]] == [1, 2]
    assert answer["notice"] is None or is_sentence(answer["notice"])


@pytest.mark.parametrize("kind", NO_TEXTS)
def test_a_client_hears_what_is_wrong_with_a_text(client, kind):
    with pytest.raises(exceptions.AppError) as error:
        client.predict(text=NO_TEXTS[kind][0], k=2, api_name="/search_clip")
    assert is_sentence(str(error.value), NO_TEXTS[kind][1])


@pytest.mark.parametrize(
    "address", [*ADDRESSES, "http://127.0.0.1:9/a.jpg", "http://a.invalid/a.jpg", "http://", "http://["]
)
@pytest.mark.parametrize("field", ["path", "url"])
def test_an_address_that_an_endpoint_cannot_read_is_told_what_it_can(server, address, field):
    picture = {"path": "a.jpg", field: address, "meta": {"_type": "gradio.FileData"}}
    for endpoint in ENDPOINTS:
        said, answer = ask(server, endpoint, [picture])
        assert said == "error"
        assert is_sentence(answer, "upload")
        assert "data: URL" not in answer


@pytest.mark.parametrize(
    "picture", [[], ["a.jpg"], [1], "a.jpg", 3, True, {}, {"a": 1}, {"path": ["a"]}, {"url": "a.jpg"}]
)
def test_what_is_no_upload_says_so(server, picture):
    for endpoint in ENDPOINTS:
        said, answer = ask(server, endpoint, [picture])
        assert said == "error", answer
        assert is_sentence(answer)


SHOWN = ("of a phone.HEIC", "heic called.jpg", "16 bits.png", "floats to 4080.tif", "a\nb.jpg", "animated.webp")


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture
def visitor(browser, server):
    page = browser.new_page(locale="en")
    page.set_default_timeout(30_000)
    page.goto(server)
    page.locator("#pixel-hits img").nth(9).wait_for()  # the hits that the page shows at first sight
    yield page
    page.close()


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("name", SHOWN)
def test_the_page_searches_with_pictures_that_a_browser_may_not_show(visitor, retriever, files, name):
    visitor.locator("#pixel-query input[type=file]").set_input_files(files / name)
    wait_for_hits(visitor, "pixel-hits", shown_as(retriever.by_pixels(files / name, "l2", 10), "l2"))


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize("name", [name for name in NO_PICTURES if name.endswith((".jpg", ".png"))])
def test_the_page_says_what_is_wrong_with_a_picture(visitor, files, name):
    visitor.locator("#pixel-query input[type=file]").set_input_files(files / name)
    notice = visitor.locator(".toast-body").first
    notice.wait_for()
    assert is_sentence(notice.inner_text().splitlines()[-1], NO_PICTURES[name][1])
    wait_for_hits(visitor, "pixel-hits", [])
