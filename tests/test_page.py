"""What a visitor sees in a real browser is what the Retriever gives."""

import csv
import re

import pytest

from imgret.search import Retriever
from tests.browser import CHROMIUM, open_browser
from tests.conftest import QUERIES, ROOT

SCREENSHOTS = ROOT / "tests" / "screenshots"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture
def page(browser, server, request):
    """The demo, loaded. Afterwards a screenshot; no request may have left for another host, no script have failed."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(30_000)
    requests, failures = [], []
    page.on(
        "request", lambda sent: None if sent.url.startswith((server, "data:", "blob:")) else requests.append(sent.url)
    )
    page.on("pageerror", lambda error: failures.append(str(error)))
    page.goto(server)
    page.get_by_text("545 pictures from").wait_for()
    yield page
    SCREENSHOTS.mkdir(exist_ok=True)
    page.screenshot(path=SCREENSHOTS / f"{request.node.name}.png", full_page=True)
    page.close()
    assert [url for url in requests if not url.startswith((server, "data:", "blob:"))] == []
    assert failures == []


def ranks_and_scores(page, gallery):
    page.wait_for_function(f"document.querySelectorAll('#{gallery} .thumbnail-item img').length > 0")
    page.wait_for_timeout(300)
    captions = page.locator(f"#{gallery} .caption-label").all_text_contents()
    return [re.match(r"(\d+)\. (-?[\d,.]+) · (.*)", caption.strip()).groups() for caption in captions]


def shown_as(hits):
    return [
        (str(hit.rank), f"{hit.score:,.0f}" if abs(hit.score) > 10 else f"{hit.score:.4f}", hit.label) for hit in hits
    ]


def example(page, name):
    with (QUERIES / "metadata.csv").open(encoding="utf-8") as file:
        names = [row["file_name"] for row in csv.DictReader(file)]
    return page.locator("#example-gallery .thumbnail-item").nth(names.index(name))


def test_a_click_on_an_example_searches_by_pixels_and_by_clip(page, retriever: Retriever):
    example(page, "tiger.webp").click()
    assert ranks_and_scores(page, "pixel-hits") == shown_as(retriever.by_pixels(QUERIES / "tiger.webp", "l2", 10))
    page.get_by_role("tab", name="CLIP search").click()
    assert ranks_and_scores(page, "clip-hits") == shown_as(retriever.by_clip(image=QUERIES / "tiger.webp", k=10))
    assert page.locator("#clip-query img").count() == 1


def test_choosing_another_metric_searches_again(page, retriever):
    example(page, "dog.webp").click()
    ranks_and_scores(page, "pixel-hits")
    page.locator("#pixel-metric").get_by_text("correlation").click()
    page.get_by_text("pictures by correlation").wait_for()
    expected = retriever.by_pixels(QUERIES / "dog.webp", "correlation", 10)
    assert ranks_and_scores(page, "pixel-hits") == shown_as(expected)
    page.get_by_text("Larger is closer").wait_for()


def test_an_uploaded_picture_is_searched_and_one_that_is_none_is_an_error(page, retriever, tmp_path):
    page.locator("#pixel-query input[type=file]").set_input_files(QUERIES / "747.webp")
    assert ranks_and_scores(page, "pixel-hits") == shown_as(retriever.by_pixels(QUERIES / "747.webp", "l2", 10))
    (tmp_path / "page.png").write_text("<html>")
    page.locator('#pixel-query button[aria-label="Remove Image"]').click()
    page.locator("#pixel-query input[type=file]").set_input_files(tmp_path / "page.png")
    page.get_by_text("is not a picture that can be read").wait_for()


def test_a_text_is_searched_and_an_empty_form_is_an_error(page, retriever):
    page.get_by_role("tab", name="CLIP search").click()
    page.locator("#clip-search").click()
    page.get_by_text("There is nothing to search for").wait_for()
    page.locator("#clip-text textarea, #clip-text input").fill("a red flower")
    page.locator("#clip-search").click()
    assert ranks_and_scores(page, "clip-hits") == shown_as(retriever.by_clip(text="a red flower", k=10))


def test_the_page_fits_a_phone(page):
    page.set_viewport_size({"width": 390, "height": 844})
    example(page, "dog.webp").click()
    ranks_and_scores(page, "pixel-hits")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
