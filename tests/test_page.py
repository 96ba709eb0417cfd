"""What a visitor sees in a real browser is what the Retriever gives."""

import csv
import io
import json
import re
from collections import Counter
from dataclasses import replace
from datetime import date
from functools import cache
from pathlib import Path
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import numpy as np
import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image

from imgret.blindness import TRANSFORMS, changed, dethroning, ranking
from imgret.calibration import ALPHA
from imgret.course.steps import overflowed_norm, small_picture
from imgret.images import load_image
from imgret.metrics import LARGER_IS_CLOSER, METRICS
from imgret.projection import locate
from imgret.search import METHODS, Retriever
from imgret.ui.area import rows_in
from imgret.ui.examples import read_examples
from imgret.ui.i18n import WORDS
from tests.browser import CHROMIUM, open_browser
from tests.conftest import QUERIES, ROOT, serving

SCREENSHOTS = ROOT / "tests" / "screenshots"
TIGER, DOG = QUERIES / "tiger.webp", QUERIES / "dog.webp"

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")


@pytest.fixture(scope="module")
def browser():
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def visitor(browser):
    """A visitor of some kind, whose pages share what the browser has loaded."""

    @cache
    def context(width, height, **kind):
        return browser.new_context(viewport={"width": width, "height": height}, **kind)

    return context


@pytest.fixture
def visit(visitor, server, request):
    """Opens the demo as a visitor of some kind does. Afterwards a screenshot of the last page; no request may have left
    for another host, no script have failed.
    """
    pages, requests, failures = [], [], []

    def open_page(address="", width=1280, height=800, script="", **kind):
        page = visitor(width, height, **({"locale": "en"} | kind)).new_page()
        page.add_init_script(script)
        page.set_default_timeout(30_000)
        page.on("request", lambda sent: requests.append(sent.url))
        page.on("pageerror", lambda error: failures.append(str(error)))
        page.goto(server + address)
        page.locator("#about strong").first.wait_for()
        pages.append(page)
        return page

    yield open_page
    SCREENSHOTS.mkdir(exist_ok=True)
    if pages:
        pages[-1].screenshot(path=SCREENSHOTS / f"{request.node.name}.png", full_page=True)
    for page in pages:
        page.context.clear_permissions()  # those that a test gave its visitor
        page.close()
    assert [url for url in requests if not url.startswith((server, "data:", "blob:"))] == []
    assert failures == []


@pytest.fixture
def page(visit):
    return visit()


def captions_of(page, gallery):
    return [caption.strip() for caption in page.locator(f"#{gallery} .caption-label").all_text_contents()]


def wait_for_hits(page, gallery, expected, read=captions_of):
    """Waits until the gallery shows what is expected; else says what it shows."""
    for _ in range(60):
        if read(page, gallery) == expected:
            return
        page.wait_for_timeout(100)
    assert read(page, gallery) == expected


def names_of_hits(page, gallery):
    """The names below the query's picture, without ranks."""
    return [text.partition(". ")[2] for text in captions_of(page, gallery)[1:]]


def shown_as(hits, method, language="en"):
    digits = ".4f" if method in LARGER_IS_CLOSER or method == "clip" else ",.0f"
    names = [
        f"{hit.captions.get(language) or hit.caption} · {hit.label.split('/')[-1].replace('_', ' ')}" for hit in hits
    ]
    return [f"{hit.rank}. {hit.score:{digits}} · {name}" for hit, name in zip(hits, names, strict=True)]


def example(page, name):
    names = [example.path.name for example in read_examples()]
    return page.locator("#example-gallery .thumbnail-item").nth(names.index(name))


def tab(page, number):
    page.get_by_role("tab").nth(number).click()


def test_a_click_on_an_example_searches_in_the_tab_that_is_open_and_in_the_next(page, retriever: Retriever):
    example(page, "tiger.webp").click()
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(TIGER, "l2", 10), "l2"))
    tab(page, 1)
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_clip(image=TIGER, k=10), "clip"))
    assert page.locator("#clip-query img").count() == 1
    example(page, "dog.webp").click()
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_clip(image=DOG, k=10), "clip"))


def test_choosing_another_metric_searches_again(page, retriever):
    example(page, "dog.webp").click()
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(DOG, "l2", 10), "l2"))
    page.locator("#pixel-metric").get_by_text("correlation").click()
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(DOG, "correlation", 10), "correlation"))
    page.get_by_text("by Correlation · ").wait_for()  # all 545 were compared, so nothing is said of that
    assert "compared in full" not in page.content()
    page.get_by_text("Larger is closer").wait_for()


def test_an_uploaded_picture_is_searched_and_one_that_is_none_is_an_error(page, retriever, tmp_path):
    page.locator("#pixel-query input[type=file]").set_input_files(QUERIES / "747.webp")
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(QUERIES / "747.webp", "l2", 10), "l2"))
    (tmp_path / "page.png").write_text("<html>")
    remove = page.locator('#pixel-query button[aria-label="Remove Image"]')
    remove.click()
    wait_for_hits(page, "pixel-hits", [])
    example(page, "dog.webp").click()
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(DOG, "l2", 10), "l2"))
    remove.click()  # at once, while the removal is answered
    page.locator("#pixel-query input[type=file]").set_input_files(tmp_path / "page.png")
    page.get_by_text("is not a picture that can be read").first.wait_for()
    wait_for_hits(page, "pixel-hits", [])
    remove.wait_for(state="detached")  # no broken picture stays, and another can be given at once
    page.locator("#pixel-query input[type=file]").set_input_files(QUERIES / "747.webp")
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(QUERIES / "747.webp", "l2", 10), "l2"))
    example(page, "dog.webp").click()
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(DOG, "l2", 10), "l2"))
    remove.click()
    wait_for_hits(page, "pixel-hits", [])
    tab(page, 1)
    example(page, "dog.webp").click()
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_clip(image=DOG, k=10), "clip"))
    page.locator('#clip-query button[aria-label="Remove Image"]').click()
    wait_for_hits(page, "clip-hits", [])
    assert page.get_by_text("There is nothing to search for").count() == 0


def test_a_text_is_searched_among_some_labels_and_an_empty_form_is_an_error(visit, retriever):
    page = visit("/?tab=clip")
    page.locator("#clip-search").click()
    page.get_by_text("There is nothing to search for").wait_for()
    page.locator("#clip-text textarea, #clip-text input").fill("a red flower")
    page.locator("#clip-search").click()
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_clip(text="a red flower", k=10), "clip"))
    page.get_by_label("Only these labels").click()
    page.get_by_role("option", name="birds (animals)").click()
    birds = retriever.by_clip(text="a red flower", labels=["animals/birds"], k=10)
    wait_for_hits(page, "clip-hits", shown_as(birds, "clip"))


def test_a_suggested_text_is_searched_without_the_picture(page, retriever):
    tab(page, 1)
    example(page, "dog.webp").click()
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_clip(image=DOG, k=10), "clip"))
    page.locator("#clip-suggestions").get_by_text("a ship at sea").click()
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_clip(text="a ship at sea", k=10), "clip"))


def test_all_five_methods_side_by_side_with_precision_where_the_label_is_known(page, retriever):
    tab(page, 2)
    example(page, "tiger.webp").click()
    by_clip = {hit.id for hit in retriever.by_clip(image=TIGER, k=6)}
    for method in METHODS:
        hits = retriever.by_clip(image=TIGER, k=6) if method == "clip" else retriever.by_pixels(TIGER, method, 6)
        marks = [
            ("● " if method != "clip" and hit.id in by_clip else "") + ("✓ " if hit.label == "animals/mammals" else "")
            for hit in hits
        ]
        expected = [
            text.replace("· ", f"· {mark}", 1) for text, mark in zip(shown_as(hits, method), marks, strict=True)
        ]
        wait_for_hits(page, f"compare-{method}", expected)
        right = sum(hit.label == "animals/mammals" for hit in hits)
        page.get_by_text(f"precision@6 {right / 6:.2f}").first.wait_for()


def test_a_click_on_a_hit_searches_on_without_it(page, retriever):
    example(page, "tiger.webp").click()
    hits = retriever.by_pixels(TIGER, "l2", 10)
    wait_for_hits(page, "pixel-hits", shown_as(hits, "l2"))
    page.locator("#pixel-hits .thumbnail-item").nth(6).click()
    nearest = retriever.by_pixels(metric="l2", k=10, like=hits[6].id)
    assert hits[6].id not in {hit.id for hit in nearest}
    wait_for_hits(page, "pixel-hits", shown_as(nearest, "l2"))
    tab(page, 1)
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_clip(k=10, like=hits[6].id), "clip"))


def drag_over(page, field, left, top, right, bottom):
    """Over a part of the picture in a field, given as fractions of its sides."""
    box = page.locator(f"#{field} .image-frame img").bounding_box()
    page.mouse.move(box["x"] + left * box["width"], box["y"] + top * box["height"])
    page.mouse.down()
    page.mouse.move(box["x"] + right * box["width"], box["y"] + bottom * box["height"], steps=4)
    page.mouse.up()


def cropped(picture, left, top, right, bottom):
    return picture.crop(
        (
            int(left * picture.width),
            int(top * picture.height),
            round(right * picture.width),
            round(bottom * picture.height),
        )
    )


def part_in(page):
    page.wait_for_url(re.compile("part="))
    return [float(edge) for edge in re.search(r"part=([\d.,%C]+)", page.url)[1].replace("%2C", ",").split(",")]


def test_a_part_of_the_query_is_searched_for_and_goes_along(visit, retriever):
    page = visit()
    example(page, "dog.webp").click()
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(DOG, "l2", 10), "l2"))
    drag_over(page, "pixel-query", 0.1, 0.1, 0.6, 0.5)
    part = part_in(page)
    assert part == pytest.approx([0.1, 0.1, 0.6, 0.5], abs=0.02)
    picture = load_image(DOG)
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(cropped(picture, *part), "l2", 10), "l2"))
    tab(page, 1)
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_clip(cropped(picture, *part), k=10), "clip"))
    assert page.locator("#clip-query .part").bounding_box()["width"] > 30
    linked = visit("/?" + page.url.partition("?")[2])
    wait_for_hits(linked, "clip-hits", shown_as(retriever.by_clip(cropped(picture, *part), k=10), "clip"))
    page.locator("#clip-query .image-frame").focus()
    page.keyboard.press("ArrowRight")
    moved = [part[0] + 0.05, part[1], part[2] + 0.05, part[3]]
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_clip(cropped(picture, *moved), k=10), "clip"))
    page.keyboard.press("Escape")
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_clip(DOG, k=10), "clip"))
    page.wait_for_url(lambda address: "part=" not in address)
    hit = retriever.by_clip(DOG, k=10)[0].id
    page.locator("#clip-hits .thumbnail-item").first.click()
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_clip(k=10, like=hit), "clip"))
    drag_over(page, "clip-query", 0, 0, 0.5, 1)
    part, picture = part_in(page), load_image(retriever.thumbnail(hit))
    expected = retriever.by_clip(cropped(picture, *part), k=10, like=hit)
    assert hit not in {found.id for found in expected}
    wait_for_hits(page, "clip-hits", shown_as(expected, "clip"))


def test_a_picture_comes_from_the_clipboard_and_from_the_camera(page, retriever):
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    page.evaluate(
        """async (address) => {
          const image = new Image();
          image.src = address;
          await image.decode();
          const canvas = Object.assign(document.createElement('canvas'), {width: image.width, height: image.height});
          canvas.getContext('2d').drawImage(image, 0, 0);
          const blob = await new Promise((done) => canvas.toBlob(done));
          await navigator.clipboard.write([new ClipboardItem({'image/png': blob})]);
        }""",
        page.locator("#example-gallery img").first.get_attribute("src"),
    )
    page.locator('#pixel-query [aria-label="Paste from clipboard"]').click()
    first = QUERIES / read_examples()[0].path.name
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(first, "l2", 10), "l2"))
    page.locator('#pixel-query button[aria-label="Remove Image"]').click()
    wait_for_hits(page, "pixel-hits", [])
    page.locator('#pixel-query [aria-label="Capture from camera"]').click()
    page.locator("#pixel-query").get_by_text("Click to Access Webcam").click()
    # A click before the camera's first frame takes no picture.
    page.wait_for_function("document.querySelector('#pixel-query video')?.videoWidth > 0")
    page.locator('#pixel-query [aria-label="capture photo"]').click()
    page.locator("#pixel-hits .thumbnail-item").nth(9).wait_for()


def test_the_address_opens_the_same_search_again(visit, retriever):
    page = visit()
    page.locator("#pixel-metric").get_by_text("cosine").click()
    example(page, "tiger.webp").click()
    expected = shown_as(retriever.by_pixels(TIGER, "cosine", 10), "cosine")
    wait_for_hits(page, "pixel-hits", expected)
    page.wait_for_url(re.compile("example=tiger"))
    again = visit("/?" + page.url.partition("?")[2])
    wait_for_hits(again, "pixel-hits", expected)
    some = retriever.index.record(7).id
    linked = visit(f"/?tab=clip&id={some}&k=4&text=a dog")
    wait_for_hits(linked, "clip-hits", shown_as(retriever.by_clip(text="a dog", k=4, like=some), "clip"))


def test_the_link_of_a_search_is_copied_at_the_space_s_own_host_also_from_within_a_frame(
    browser, index_folder, cache, tmp_path
):
    with serving(index_folder, cache, tmp_path, SPACE_HOST="org-space.example") as served:
        page = browser.new_page(viewport={"width": 1280, "height": 800}, locale="en")
        page.goto(f"{served.address}/gradio_api/health")  # a page of some other kind, which holds the demo in a frame
        search = "tab=pixels&method=cosine&example=tiger.webp&__sign=a-secret&theirs=kept"
        page.set_content(f'<input><iframe src="{served.address}/?{search}" width=1200 height=700></iframe>')
        frame = page.frame_locator("iframe")
        frame.locator("#pixel-hits img").first.wait_for()
        frame.get_by_role("button", name="Copy the link").click()
        frame.get_by_role("button", name="Copied").wait_for()
        page.locator("input").click()
        page.keyboard.press("Control+V")
        link = urlsplit(page.locator("input").input_value())
        assert (link.scheme, link.netloc, link.path) == ("https", "org-space.example", "/")
        assert parse_qs(link.query) == {"tab": ["pixels"], "method": ["cosine"], "example": ["tiger.webp"], "k": ["10"]}
        address = parse_qs(urlsplit(page.frames[1].evaluate("window.location.href")).query)
        assert (address["__sign"], address["theirs"]) == (["a-secret"], ["kept"])
        page.screenshot(path=SCREENSHOTS / "frame.png")
        page.close()


def test_the_page_speaks_vietnamese_where_the_browser_asks_for_it_and_switches(visit, retriever, tmp_path):
    page = visit(locale="vi-VN")
    page.get_by_text("Truy vấn hình ảnh dùng các toán cơ bản").wait_for()
    page.get_by_text("545 hình ảnh từ").wait_for()
    page.wait_for_function("document.documentElement.lang === 'vi'")
    page.get_by_text("Bình phương từng chênh lệch").wait_for()
    example(page, "tiger.webp").click()
    page.get_by_text("Bình phương từng chênh lệch").wait_for()
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(TIGER), "l2", "vi"))
    (tmp_path / "page.png").write_text("<html>")
    tab(page, 1)
    page.locator('#clip-query button[aria-label="Remove Image"]').click()
    page.locator("#clip-query input[type=file]").set_input_files(tmp_path / "page.png")
    page.get_by_text("không phải là hình đọc được").first.wait_for()
    page.locator("#language").get_by_text("English").click()
    page.get_by_role("tab", name="Pixels").click()
    page.get_by_text("Squares each difference first").wait_for()
    page.get_by_text("10 best of 545 pictures").first.wait_for()
    page.get_by_text("no sure match: a query without a match here finds hits as good").first.wait_for()
    visit("/?lang=vi").get_by_role("tab", name="Điểm ảnh").wait_for()


def test_an_address_that_somebody_else_wrote_puts_nothing_but_words_on_the_page(visit):
    picture = '<img src="http://127.0.0.1:1/seen">'
    for asked in ({"tab": "pixels", "id": picture}, {"tab": "clip", "text": "a", "label": picture}):
        page = visit("/?" + urlencode(asked))
        told = page.locator(".toast-body")
        told.get_by_text(picture).wait_for()
        assert told.locator("img").count() == 0


def test_nothing_is_asked_for_twice(page, retriever):
    asked = []
    page.on("request", lambda request: asked.append(request.url) if "queue/join" in request.url else None)
    example(page, "tiger.webp").click()
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(TIGER, "l2", 10), "l2"))
    tab(page, 1)
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_clip(TIGER, k=10), "clip"))
    tab(page, 0)
    page.wait_for_timeout(1000)
    assert len(asked) == 2


def test_an_answer_is_saved_as_json_and_as_csv(page, retriever):
    example(page, "dog.webp").click()
    hits = retriever.by_pixels(DOG, "l2", 10)
    wait_for_hits(page, "pixel-hits", shown_as(hits, "l2"))
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as JSON").first.click()
    found = json.loads(Path(saved.value.path()).read_text())
    assert [(hit["id"], hit["score"]) for hit in found["hits"]] == [(hit.id, hit.score) for hit in hits]
    with page.expect_download() as saved:
        page.get_by_role("button", name="Save as CSV").first.click()
    with Path(saved.value.path()).open(encoding="utf-8", newline="") as file:
        assert [(row["id"], float(row["score"])) for row in csv.DictReader(file)] == [(h.id, h.score) for h in hits]


def test_a_hit_is_explained_by_terms_that_add_up_to_its_score_and_by_occlusion(page, retriever):
    example(page, "tiger.webp").click()
    hits = retriever.by_pixels(TIGER, "l2", 10)
    third = hits[2]
    wait_for_hits(page, "pixel-hits", shown_as(hits, "l2"))  # the first ones were there before the click
    page.locator("#pixel-why label").nth(2).click()
    page.get_by_text(f"the root of that is the score, {third.score:,.0f}").wait_for()
    page.get_by_text(f"Together they are {third.score**2:,.0f}").wait_for()
    assert page.locator("#pixel-why-pictures img").count() == 3
    tab(page, 1)
    page.locator("#clip-why label").first.click()
    page.get_by_text("Occlusion: each part of the hit was covered").wait_for()
    assert page.locator("#clip-why-pictures img").count() == 2
    page.locator("#clip-text textarea, #clip-text input").fill("a zebra")
    page.locator("#clip-search").click()
    page.locator("#clip-why-pictures").wait_for(state="hidden")


def change(page, name, strength):
    """Types a strength. A slider takes its first value anew just after its section opened: faster than any hand is."""
    page.wait_for_timeout(300)
    field = page.locator(f"#blindness-{name} input[type=number]")
    field.fill(str(strength))
    field.press("Enter")


def test_the_page_changes_the_query_and_says_what_the_metric_does_not_see_and_what_dethrones_the_first_hit(
    visit, retriever
):
    page = visit("/?tab=pixels&example=tiger.webp&method=correlation")
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(TIGER, "correlation"), "correlation"))
    page.locator("#blindness button").first.click()
    page.get_by_text("Correlation cannot see brightness").wait_for()  # before anything is computed

    change(page, "contrast", 0.5)
    page.get_by_text("The ranking stays: the first 10 are the same").wait_for()
    page.get_by_text("It cannot move, as stated.").wait_for()
    assert page.locator("#blindness-pictures img").count() == 6
    change(page, "brightness", -60)
    page.get_by_text("Values are clipped at 0 or 255, so the statement does not hold here.").wait_for()
    page.locator("#pixel-metric").get_by_text("L2").click()
    page.get_by_text("L2 sees every one of these changes").wait_for()
    assert page.locator("#blindness-text").inner_text().strip() == ""
    change(page, "brightness", 0)
    page.get_by_text("The ranking moves: ").wait_for()
    query, pixels = retriever.pixel_query(TIGER), retriever.index.pixels
    rows, _ = ranking(pixels, changed(query, {"contrast": 0.5}), "l2", 5)
    names = [shown_as(retriever.hits([row], [0]), "l2")[0].partition("· ")[2] for row in rows]
    wait_for_hits(page, "blindness-pictures", names, read=names_of_hits)
    page.locator("#blindness-find").click()
    page.locator("#blindness-text td").first.wait_for()
    cells = page.locator("#blindness-text td").all_text_contents()
    for number, name in enumerate(TRANSFORMS):
        found = dethroning(pixels, query, "l2", name)
        expected = "never" if found is None else f"{found.strength_after:.4g}"
        assert cells[3 * number + 1].startswith(expected)
        assert "clipped" in cells[3 * number + 1] or not (found and found.clipped)


def test_a_liked_picture_is_no_hit_of_the_changed_query_either(visit, retriever):
    liked = retriever.by_pixels(TIGER, k=1)[0]
    page = visit(f"/?tab=pixels&example=tiger.webp&like={liked.id}")
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(TIGER, likes=[liked.id]), "l2"))
    page.locator("#blindness button").first.click()
    change(page, "crop", 0.02)
    query, pixels = retriever.pixel_query(TIGER, likes=[liked.id]), retriever.index.pixels
    rows, _ = ranking(pixels, changed(query, {"crop": 0.02}), "l2", 5, without=[liked.row])
    names = [shown_as(retriever.hits([row], [0]), "l2")[0].partition("· ")[2] for row in rows]
    wait_for_hits(page, "blindness-pictures", names, read=names_of_hits)
    assert liked.row in ranking(pixels, changed(query, {"crop": 0.02}), "l2", 5)[0]


def test_the_course_works_a_metric_out_for_two_small_pictures(page):
    examples = read_examples()
    a, b = (small_picture(example.path) for example in examples[:2])
    page.get_by_role("tab", name="Learn").click()
    cells = page.locator("#worked-tables td")
    cells.first.wait_for()
    assert cells.all_inner_texts()[:128] == [str(value) for value in (*a.flat, *b.flat)]
    page.locator("#worked-metric label").nth(2).click()
    score = METRICS["cosine"](a, b[None])[0]
    page.locator("#worked-steps").get_by_text(f"{score:.4g}").last.wait_for()
    assert cells.count() == 3 * 64
    assert cells.last.inner_text() == str(int(a[7, 7]) * int(b[7, 7]))
    norm, overflowed = overflowed_norm(a)
    assert f"{norm / overflowed:.2f} instead of 1" in page.locator("#worked-steps").inner_text()


def test_the_library_is_leafed_through_by_label_and_its_figures_are_those_of_the_build(page, retriever):
    tab(page, 3)
    index = retriever.index
    wait_for_hits(page, "library-pictures", [index.record(row).caption for row in range(27)])
    page.get_by_role("button", name="Next").click()
    wait_for_hits(page, "library-pictures", [index.record(row).caption for row in range(27, 54)])
    figures = index.evaluation["methods"]["clip"]
    recall = index.evaluation["captions_by_language"]["vi"]["recall@10"]
    page.get_by_text(f"From a caption in Vietnamese to its picture: among the first ten in {recall:.0%}").wait_for()
    page.locator("#library-description").filter(has_text=index.manifest.description[0]).wait_for()
    audit = index.manifest.filtered["0.1"]
    told = f"{audit.recall:.2%} of the true 10 nearest in 10 % of the library ({audit.rows} pictures)"
    page.locator("#filter-audit").filter(has_text=told).wait_for()
    cells = page.locator("#evaluation-table").get_by_role("row", name="CLIP").first.inner_text().split()
    assert cells == ["CLIP", *(f"{value:.2f}" for value in figures.values())]
    bars = page.locator("#evaluation-plot dd")
    assert bars.all_text_contents() == [f"{each['precision@1']:.2f}" for each in index.evaluation["methods"].values()]
    widths = [bar.bounding_box()["width"] for bar in page.locator("#evaluation-plot dd span").all()]
    assert widths.index(max(widths)) == list(index.evaluation["methods"]).index("clip")
    page.get_by_label("Label", exact=True).first.click()
    page.get_by_role("option", name="fish (animals): 9", exact=True).click()
    fish = [row for row, label in enumerate(index.column("label")) if label == "animals/fish"]
    wait_for_hits(page, "library-pictures", [index.record(row).caption for row in fish[:27]])
    page.locator("#library-pictures .thumbnail-item").nth(1).click()
    like = index.record(fish[1]).id
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(metric="l2", k=10, like=like), "l2"))


BORDER = 16  # around the map, as in map.js
PAINTED = """() => {
  const canvas = document.querySelector('#library-map canvas');
  const { width, height } = canvas;
  if (!width) return false;
  return canvas.getContext('2d').getImageData(0, 0, width, height).data.some((value, at) => at % 4 === 3 && value);
}"""


def open_map(visit, address="/?tab=library", **visitor):
    page = visit(address, **visitor)
    if "tab=library" not in address:
        page.locator("#pixel-hits img").first.wait_for()
        tab(page, 3)
    page.locator("#library-pictures img").first.wait_for()
    page.wait_for_function(PAINTED)
    page.wait_for_timeout(1000)  # the pictures above and beside are laid out
    page.locator("#library-map canvas").scroll_into_view_if_needed()
    return page


def view_of(page):
    """How near the map is, and what is in its middle, once it is painted."""
    page.wait_for_timeout(100)
    page.evaluate("() => new Promise((seen) => requestAnimationFrame(() => requestAnimationFrame(seen)))")
    return [float(number) for number in page.locator("#library-map canvas").get_attribute("data-view").split(",")]


def place_of(page, point):
    """Where a point of the map lies on the screen now."""
    zoom, *middle = view_of(page)
    box = page.locator("#library-map canvas").bounding_box()
    side = (min(box["width"], box["height"]) - 2 - 2 * BORDER) * zoom
    left = box["x"] + box["width"] / 2 + (point[0] - middle[0]) * side
    return float(left), float(box["y"] + box["height"] / 2 - (point[1] - middle[1]) * side)


def loneliest(retriever):
    """The row of the picture in the inner part of the map that is the farthest from any other, and its point."""
    rows, points = retriever.index.map
    away = np.linalg.norm(points[:, None] - points, axis=2)
    np.fill_diagonal(away, np.inf)
    inner = (np.abs(points - 0.5) < 0.25).all(axis=1)
    number = int(np.where(inner, away.min(axis=1), 0).argmax())
    return int(rows[number]), points[number]


def drag_along(page, *places):
    page.mouse.move(*places[0])
    page.mouse.down()
    for place in places[1:]:
        page.mouse.move(*place, steps=6)
    page.mouse.up()


def around_mammals(retriever):
    """The corners of a rectangle of the map with most mammals, no side of which is close to a picture, and the rows
    within.
    """
    rows, points = retriever.index.map

    def between(values, near):
        ordered = np.sort(values)
        wide = np.flatnonzero(np.diff(ordered) > 0.006)
        first = wide[np.abs(ordered[wide] - near).argmin()]
        return float(ordered[first : first + 2].mean())

    left, low = between(points[:, 0], 0.8), between(points[points[:, 0] > 0.75, 1], 0.55)
    inside = (points[:, 0] > left) & (points[:, 1] > low)
    return [(left, low), (left, 1.02), (1.02, 1.02), (1.02, low), (left, low)], rows[inside]


def searched_for(retriever, row):
    hits = retriever.by_pixels(metric="l2", k=10, like=retriever.index.record(int(row)).id)
    return shown_as(hits, "l2")


def test_a_click_on_the_map_searches_for_the_picture_that_lies_there(visit, retriever):
    page = open_map(visit)
    rows, points = retriever.index.map
    for number in (5, 300):
        page.mouse.click(*place_of(page, points[number]))
        wait_for_hits(page, "pixel-hits", searched_for(retriever, rows[number]))
        tab(page, 3)
        page.wait_for_timeout(1000)


@pytest.mark.parametrize("width", [1280, 390])
def test_the_wheel_zooms_the_map_and_the_picture_under_the_pointer_grows_sharp(visit, retriever, width):
    page = open_map(visit, width=width)
    row, point = loneliest(retriever)
    pointer = np.round(place_of(page, point))
    away = place_of(page, point) - pointer
    page.mouse.move(*pointer)
    for _ in range(6):
        page.mouse.wheel(0, -300)
    zoom, place = view_of(page)[0], place_of(page, point)
    assert zoom > 20
    assert place == pytest.approx(pointer + zoom * away, abs=1)
    page.mouse.move(5, 5)
    page.wait_for_timeout(1500)
    thumbnail = load_image(retriever.index.thumbnail(row))
    thumbnail.thumbnail((128, 128))
    area = {"x": place[0] - thumbnail.width / 2, "y": place[1] - thumbnail.height / 2}
    shown = page.screenshot(clip=area | {"width": thumbnail.width, "height": thumbnail.height})
    shown = Image.open(io.BytesIO(shown)).convert("RGB").resize(thumbnail.size)
    assert np.corrcoef(np.ravel(shown), np.ravel(thumbnail))[0, 1] > 0.95
    edges = [np.abs(np.diff(np.asarray(each, dtype=float), axis=1)).mean() for each in (shown, thumbnail)]
    assert edges[0] > 0.9 * edges[1]  # of the small picture on the sheet: 0.71
    page.mouse.click(*place)
    wait_for_hits(page, "pixel-hits", searched_for(retriever, row))


def test_where_there_is_nothing_farther_the_wheel_moves_the_page(visit, retriever):
    page = open_map(visit)
    before = page.evaluate("scrollY")
    page.mouse.move(*place_of(page, (0.5, 0.5)))
    page.mouse.wheel(0, 300)
    page.wait_for_timeout(500)
    assert page.evaluate("scrollY") > before
    assert view_of(page) == [1, 0.5, 0.5]


def test_the_map_is_moved_by_dragging_and_a_drag_is_no_click(visit, retriever):
    page = open_map(visit)
    page.get_by_role("button", name="Nearer").click()
    page.get_by_role("button", name="Nearer").click()
    assert view_of(page) == pytest.approx([1.6**2, 0.5, 0.5])
    points = retriever.index.map[1]
    point = points[((points - 0.5) ** 2).sum(axis=1).argmin()]
    left, top = place_of(page, point)
    drag_along(page, (left, top), (left + 60, top - 40))
    assert place_of(page, point) == pytest.approx((left + 60, top - 40), abs=1)
    page.get_by_role("button", name="Farther").click()
    assert view_of(page)[0] == pytest.approx(1.6)
    page.get_by_role("button", name="Whole map").click()
    assert view_of(page) == [1, 0.5, 0.5]
    page.wait_for_timeout(1000)
    assert page.get_by_role("tab", name="Library", selected=True).count() == 1


def test_the_map_works_by_keyboard_alone(visit, retriever):
    page = open_map(visit)
    page.get_by_role("button", name="Mark what is in view").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") == "CANVAS"
    for key, expected in (
        ("+", [1.6, 0.5, 0.5]),
        ("+", [2.56, 0.5, 0.5]),
        ("-", [1.6, 0.5, 0.5]),
        ("Home", [1, 0.5, 0.5]),
    ):
        page.keyboard.press(key)
        assert view_of(page) == pytest.approx(expected)
    for key in "+++":
        page.keyboard.press(key)
    start = view_of(page)
    for key, (across, up) in {
        "ArrowRight": (1, 0),
        "ArrowUp": (0, 1),
        "ArrowLeft": (-1, 0),
        "ArrowDown": (0, -1),
    }.items():
        before = view_of(page)
        page.keyboard.press(key)
        after = view_of(page)
        assert np.sign(np.round(np.subtract(after[1:], before[1:]), 6)).tolist() == [across, up]
    assert view_of(page) == pytest.approx(start)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Enter")
    page.get_by_text("Pictures of the map that are marked and shown").wait_for()
    rows, points = retriever.index.map
    box = page.locator("#library-map canvas").bounding_box()
    width, height = box["width"] - 2, box["height"] - 2
    half = np.array([width, height]) / 2 / (min(width, height) - 2 * BORDER) / start[0]
    seen = rows[(np.abs(points - 0.5) < half).all(axis=1)]
    wait_for_hits(page, "library-pictures", [retriever.index.record(int(row)).caption for row in seen[:27]])
    page.keyboard.press("Tab")
    page.keyboard.press("Escape")
    wait_for_hits(page, "library-pictures", [retriever.index.record(row).caption for row in range(27)])
    page.keyboard.press("Enter")
    nearest = rows[np.linalg.norm(points - view_of(page)[1:], axis=1).argmin()]
    wait_for_hits(page, "pixel-hits", searched_for(retriever, nearest))


def test_two_fingers_zoom_the_map_and_one_moves_it_once_it_is_near(visit, retriever):
    page = open_map(visit, width=390, height=844, has_touch=True, is_mobile=True)
    assert page.get_by_text("Two fingers: nearer").is_visible()
    touch = page.context.new_cdp_session(page)

    def fingers(*steps):
        """Each step holds the places of all fingers."""
        for number, places in enumerate([*steps, []]):
            kind = "touchStart" if number == 0 else "touchMove" if places else "touchEnd"
            points = [{"x": x, "y": y, "id": finger} for finger, (x, y) in enumerate(places)]
            touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": points})
        page.wait_for_timeout(200)

    x, y = place_of(page, (0.5, 0.5))
    before = page.evaluate("scrollY")
    fingers([(x, y)], [(x, y - 30)], [(x, y - 60)], [(x, y - 90)])
    assert page.evaluate("scrollY") > before  # from afar, the page is moved
    assert view_of(page) == [1, 0.5, 0.5]
    x, y = place_of(page, (0.5, 0.5))
    fingers(*([(x - away, y), (x + away, y)] for away in (20, 30, 45, 60)))
    assert view_of(page) == pytest.approx([3, 0.5, 0.5], rel=0.02)
    point, before = (0.5, 0.5), page.evaluate("scrollY")
    fingers([(x, y)], [(x, y - 20)], [(x + 10, y - 50)])
    assert place_of(page, point) == pytest.approx((x + 10, y - 50), abs=1.5)
    assert page.evaluate("scrollY") == before
    page.get_by_role("button", name="Whole map").tap()
    page.get_by_role("button", name="Lasso").tap()
    corners, rows = around_mammals(retriever)
    page.locator("[data-do=lasso][aria-pressed=true]").wait_for()
    for _ in range(4):  # a busy browser may take a while until it leaves a finger to the map
        page.wait_for_timeout(700)
        fingers(*([place_of(page, corner)] for corner in corners))
        if page.locator("#map-marked p").count() or page.locator("[data-do=lasso][aria-pressed=true]").count() == 0:
            break
    wait_for_hits(page, "library-pictures", [retriever.index.record(int(row)).caption for row in rows[:27]])
    row, point = loneliest(retriever)
    page.touchscreen.tap(*place_of(page, point))
    wait_for_hits(page, "pixel-hits", searched_for(retriever, row))


@pytest.mark.parametrize(("language", "width"), [("vi", 1280), ("en", 390)])
def test_a_lasso_filters_the_library_and_the_search_by_clip(visit, retriever, language, width):
    words, index = WORDS[language], retriever.index
    page = open_map(visit, f"/?tab=library&lang={language}", width=width)
    corners, rows = around_mammals(retriever)

    def captions(rows):
        return [index.record(int(row)).captions.get(language) or index.record(int(row)).caption for row in rows[:27]]

    page.get_by_role("button", name=words.lasso).click()
    drag_along(page, *(place_of(page, corner) for corner in corners))
    wait_for_hits(page, "library-pictures", captions(rows))
    assert view_of(page) == [1, 0.5, 0.5]  # what a lasso encloses is not moved
    labels = Counter(index.record(int(row)).label for row in rows)
    told = page.locator("#map-marked").inner_text()
    if width > 640:  # all of it can be in sight beside the pictures
        assert page.locator(".map-column").bounding_box()["height"] < 800
    assert re.sub("</?strong>", "", words.marked.format(marked=len(rows), left_out=545 - len(rows))) in told
    assert f"mammals (animals) {labels['animals/mammals']}," in told
    page.wait_for_timeout(4000)
    assert captions_of(page, "library-pictures") == captions(rows)
    assert page.locator("#map-marked").inner_text() == told
    page.locator("#library-label input").click()
    page.get_by_role("option", name="birds (animals): 38", exact=True).click()
    birds = [row for row in rows if index.record(int(row)).label == "animals/birds"]
    wait_for_hits(page, "library-pictures", captions(birds))

    example(page, "tiger.webp").click()
    page.wait_for_url(re.compile("example=tiger"))
    page.get_by_role("tab", name=words.library_tab).click()
    page.get_by_role("button", name=words.search_area).click()
    hits = [hit for hit in retriever.by_clip(TIGER, k=545) if hit.row in rows][:10]
    hits = shown_as([replace(hit, rank=rank) for rank, hit in enumerate(hits, 1)], "clip", language)
    everywhere = shown_as(retriever.by_clip(TIGER), "clip", language)
    assert hits != everywhere
    wait_for_hits(page, "clip-hits", hits)
    page.get_by_role("tab", name="CLIP", selected=True).wait_for()
    page.wait_for_timeout(4000)
    assert captions_of(page, "clip-hits") == hits
    only = words.only_in_area.format(count=len(rows))
    again = visit("/?" + page.url.partition("?")[2], width=width)
    wait_for_hits(again, "clip-hits", hits)
    again.get_by_role("button", name=only).click()
    wait_for_hits(again, "clip-hits", everywhere)
    again.get_by_role("button", name=only).wait_for(state="hidden")
    assert "area=" not in again.url
    page.get_by_role("tab", name=words.library_tab).click()
    page.get_by_role("button", name=words.unmark).click()
    all_birds = [row for row in range(545) if index.record(row).label == "animals/birds"]
    wait_for_hits(page, "library-pictures", captions(all_birds))
    page.get_by_role("button", name=words.unmark).wait_for(state="hidden")
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_the_map_is_asked_for_when_its_tab_is_opened_and_only_once(visit):
    page, sent = visit(), {}

    def keep(answer):
        name = Path(urlsplit(answer.url).path).name.rpartition("-")[2]
        if name.startswith("map."):
            sent.setdefault(name, []).append(len(answer.body()))

    page.on("response", keep)
    page.locator("#pixel-hits img").first.wait_for()
    page.wait_for_timeout(2000)
    assert sent == {}
    for button in ("Mark what is in view", "Remove the mark"):
        tab(page, 3)
        page.wait_for_function(PAINTED)
        page.get_by_role("button", name=button).click()
        page.wait_for_timeout(1500)
        tab(page, 0)
    assert {name: len(sizes) for name, sizes in sent.items()} == {"map.1.json": 1, "map.1.webp": 1}
    assert sum(sizes[0] for sizes in sent.values()) < 300_000


SPIES = """window.written = new Set();
window.rings = [];
const { fillText, arc } = CanvasRenderingContext2D.prototype;
Object.assign(CanvasRenderingContext2D.prototype, {
  fillText(text, ...place) { written.add(text); return fillText.call(this, text, ...place); },
  arc(...circle) { if (circle[2] > 10) rings.push(circle); return arc.call(this, ...circle); },
});"""


def test_the_map_has_the_names_of_labels_more_from_near_and_a_ring_where_the_query_belongs(visit, retriever):
    page = open_map(visit, "/?tab=pixels&example=tiger.webp", script=SPIES)
    names = {label.split("/")[-1].replace("_", " ") for label in retriever.index.manifest.labels}
    from_afar = set(page.evaluate("[...written]"))
    assert {"mammals", "birds", "fruit"} <= from_afar < names
    point = locate(retriever.index, retriever.embed_query(TIGER))
    ring, box = page.evaluate("rings.at(-1)"), page.locator("#library-map canvas").bounding_box()
    assert (box["x"] + 1 + ring[0], box["y"] + 1 + ring[1]) == pytest.approx(place_of(page, point), abs=1)
    page.locator("#library-map canvas").focus()
    for key in ("+", "+", "ArrowRight", "ArrowRight"):
        page.keyboard.press(key)
        page.wait_for_timeout(100)
    assert from_afar < set(page.evaluate("[...written]")) <= names


def test_what_is_marked_on_the_map_stays_in_another_language(visit, retriever):
    page = open_map(visit)
    page.get_by_role("button", name="Nearer").click()
    view = view_of(page)
    page.get_by_role("button", name="Mark what is in view").click()
    told = page.locator("#map-marked strong").inner_text()
    shown = len(captions_of(page, "library-pictures"))
    page.locator("#language").get_by_text("Tiếng Việt").click()
    page.get_by_text(f"Đang chọn và hiển thị {told} hình").wait_for()
    page.wait_for_function(PAINTED)
    page.wait_for_timeout(4000)
    assert page.locator("#library-map canvas").get_attribute("aria-label") == WORDS["vi"].map
    assert view_of(page) == view
    assert page.locator("#map-marked strong").inner_text() == told
    assert len(captions_of(page, "library-pictures")) == shown


def serious_violations(page):
    found = Axe().run(page).response["violations"]
    serious = [violation for violation in found if violation["impact"] in ("serious", "critical")]
    return [(violation["id"], violation["nodes"][0]["html"]) for violation in serious]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_part_of_the_page_shuts_anybody_out(visit, scheme):
    """By axe, which among others measures contrast as WCAG AA asks for it."""
    page = visit(color_scheme=scheme)
    assert serious_violations(page) == []
    example(page, "tiger.webp").click()
    for number, gallery in enumerate(("pixel-hits", "clip-hits", "compare-l1", "library-pictures", "code-python")):
        tab(page, number)
        page.locator(f"#{gallery} img, #{gallery} .cm-line").first.wait_for()
        page.wait_for_timeout(500)
        if gallery == "library-pictures":
            page.get_by_role("button", name="Mark what is in view").click()
            page.get_by_role("button", name="Remove the mark").wait_for()
        assert serious_violations(page) == []


def test_the_page_works_by_keyboard_alone(page, retriever):
    example(page, "dog.webp").focus()
    page.keyboard.press("Enter")
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(DOG, "l2", 10), "l2"))
    page.locator("#pixel-metric input").nth(1).focus()
    page.keyboard.press("Tab")
    page.keyboard.press("Space")
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(DOG, "cosine", 10), "cosine"))
    page.locator("#pixel-hits .thumbnail-item").first.focus()
    page.keyboard.press("Enter")
    like = retriever.by_pixels(DOG, "cosine", 1)[0].id
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(metric="cosine", k=10, like=like), "cosine"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone_the_results_of_a_click_are_on_the_screen(visit, scheme):
    page = visit(width=390, height=844, color_scheme=scheme)
    example(page, "butterflyfish.webp").click()
    page.locator("#pixel-hits .thumbnail-item img").first.wait_for()
    page.wait_for_timeout(300)
    page.screenshot(path=SCREENSHOTS / f"phone-{scheme}.png")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    parts = ("#pixel-query", "#pixel-metric", "#pixel-hits .thumbnail-item")
    boxes = [page.locator(part).first.bounding_box() for part in parts]
    assert [box["y"] for box in boxes] == sorted(box["y"] for box in boxes)
    assert boxes[-1]["y"] + boxes[-1]["height"] <= 844  # the first row, whole


def test_a_finger_drawn_over_the_picture_searches_for_that_part(visit, retriever):
    page = visit("/?tab=pixels&example=tiger.webp", width=390, height=844, has_touch=True, is_mobile=True)
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(TIGER), "l2"))
    assert page.get_by_text("Draw with a finger").first.is_visible()
    assert not page.get_by_text("Drag over the picture").first.is_visible()
    box = page.locator("#pixel-query .image-frame img").bounding_box()
    touch = page.context.new_cdp_session(page)
    for kind, share in (("touchStart", 0.1), ("touchMove", 0.3), ("touchMove", 0.6), ("touchEnd", None)):
        at = [] if share is None else [{"x": box["x"] + share * box["width"], "y": box["y"] + share * box["height"]}]
        touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
    part = part_in(page)
    assert part == pytest.approx([0.1, 0.1, 0.6, 0.6], abs=0.03)
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(cropped(load_image(TIGER), *part)), "l2"))


AREA = "5000_2000_5000_9000_8000_9000_8000_2000"
OSTRICH, DRAKE, MAMMALS = "animals/birds/ostrich.webp", "animals/birds/drake.webp", "animals/mammals"
SHARED = {
    "a metric": ({"method": "l1", "example": "tiger.webp"}, lambda r: r.by_pixels(TIGER, "l1")),
    "a picture of the library": (
        {"method": "l1", "id": OSTRICH, "k": 4},
        lambda r: r.by_pixels(None, "l1", 4, like=OSTRICH),
    ),
    "a part": (
        {"example": "tiger.webp", "part": "0.000,0.000,0.500,1.000"},
        lambda r: r.by_pixels(cropped(load_image(TIGER), 0, 0, 0.5, 1), "l2"),
    ),
    "a like by pixels": ({"example": "tiger.webp", "like": OSTRICH}, lambda r: r.by_pixels(TIGER, likes=[OSTRICH])),
    "a text": ({"text": "an elephant"}, lambda r: r.by_clip(text="an elephant")),
    "a negative": (
        {"text": "an elephant", "negative": "a bird"},
        lambda r: r.by_clip(text="an elephant", negative="a bird"),
    ),
    "a weight": (
        {"text": "an elephant", "weight": "0.3", "id": OSTRICH},
        lambda r: r.by_clip(text="an elephant", text_weight=0.3, like=OSTRICH),
    ),
    "labels": (
        {"text": "an elephant", "label": f"{MAMMALS}|animals/birds"},
        lambda r: r.by_clip(text="an elephant", labels=[MAMMALS, "animals/birds"]),
    ),
    "an area of the map": (
        {"text": "an elephant", "area": AREA},
        lambda r: r.find_by_clip(text="an elephant", among=rows_in(r.index, AREA)).hits,
    ),
    "k": ({"text": "an elephant", "k": 25}, lambda r: r.by_clip(text="an elephant", k=25)),
    "likes": (
        {"text": "an elephant", "like": f"{OSTRICH}|{DRAKE}"},
        lambda r: r.by_clip(text="an elephant", likes=[OSTRICH, DRAKE]),
    ),
    "likes alone": ({"tab": "clip", "like": OSTRICH}, lambda r: r.by_clip(likes=[OSTRICH])),
    "a dislike": ({"text": "an elephant", "dislike": DRAKE}, lambda r: r.by_clip(text="an elephant", dislikes=[DRAKE])),
    "a metric on embeddings": (
        {"text": "an elephant", "method": "clip-l1"},
        lambda r: r.find_by_clip(text="an elephant", metric="l1").hits,
    ),
    "all at once": (
        {
            "id": OSTRICH,
            "text": "an elephant",
            "negative": "a bird",
            "weight": "0.3",
            "label": MAMMALS,
            "k": 3,
            "like": DRAKE,
            "dislike": "animals/birds/owl.webp",
            "method": "clip-correlation",
        },
        lambda r: (
            r.find_by_clip(
                None,
                "an elephant",
                "a bird",
                0.3,
                [MAMMALS],
                3,
                like=OSTRICH,
                likes=[DRAKE],
                dislikes=["animals/birds/owl.webp"],
                metric="correlation",
            ).hits
        ),
    ),
}


def test_a_shared_search_stays_as_it_is_for_seconds_and_over_a_reload(visit, retriever):
    opened = {}
    for named, (wanted, search) in SHARED.items():
        address = {"tab": "clip" if "text" in wanted else "pixels"} | {key: str(value) for key, value in wanted.items()}
        by_clip = address["tab"] == "clip"
        expected = shown_as(search(retriever), "clip" if by_clip else address.get("method", "l2"))
        page = visit(f"/?{urlencode(address)}")
        opened[named] = page, address, "clip-hits" if by_clip else "pixel-hits", expected
    for again in range(2):
        for page, _, gallery, expected in opened.values():
            if again:
                page.reload()
            wait_for_hits(page, gallery, expected)
        page.wait_for_timeout(4000)
        for named, (page, wanted, gallery, expected) in opened.items():
            assert captions_of(page, gallery) == expected, named
            if "text" in wanted:
                assert page.locator("#clip-text textarea, #clip-text input").first.input_value() == "an elephant"
            address = dict(parse_qsl(urlsplit(page.evaluate("location.href")).query))
            assert {name: value for name, value in address.items() if name in wanted} == wanted, named


def test_a_line_is_drawn_after_the_last_sure_match(visit, retriever):
    def matches(text):
        return sum((hit.p or 1) <= ALPHA for hit in retriever.by_clip(text=text, k=10))

    some = next(text for text in ("a bus", "a violin", "an apple") if 0 < matches(text) < 10)
    page = visit(f"/?tab=clip&{urlencode({'text': some})}")
    page.locator("#clip-hits .last-match").wait_for()
    line = page.locator("#clip-hits .gallery-item").nth(matches(some) - 1)
    assert "last-match" in (line.get_attribute("class") or "")
    assert page.locator("#clip-hits .last-match").count() == 1
    none = next(text for text in ("an elephant", "a cow", "a horse") if matches(text) == 0)
    page.locator("#clip-text textarea").fill(none)
    page.locator("#clip-search").click()
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_clip(text=none, k=10), "clip"))
    page.wait_for_timeout(500)
    assert page.locator("#clip-hits .last-match").count() == 0


def test_what_one_likes_or_not_joins_the_query_and_is_no_hit(visit, retriever):
    page = visit("/?tab=clip&text=a+cat")
    hits = retriever.by_clip(text="a cat")
    wait_for_hits(page, "clip-hits", shown_as(hits, "clip"))
    marks = page.locator("#clip-hits .mark")
    assert marks.count() == 20
    marks.nth(2 * 3).click()  # the heart of the fourth
    liked = retriever.by_clip(text="a cat", likes=[hits[3].id])
    wait_for_hits(page, "clip-hits", shown_as(liked, "clip"))
    marks.nth(1).click()  # the cross of the first
    both = retriever.by_clip(text="a cat", likes=[hits[3].id], dislikes=[liked[0].id])
    wait_for_hits(page, "clip-hits", shown_as(both, "clip"))
    assert [each.strip() for each in page.locator("#clip-likes .caption-label").all_text_contents()] == ["♥", "✕"]
    page.locator("#clip-why label").first.click()
    page.get_by_text(f"cosine similarity of {both[0].score:.3f} falls").wait_for()
    page.locator("#clip-likes .thumbnail-item").first.click()
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_clip(text="a cat", dislikes=[liked[0].id]), "clip"))
    page.locator("#clip-likes .thumbnail-item").first.click()
    wait_for_hits(page, "clip-hits", shown_as(hits, "clip"))
    page.locator("#clip-likes").wait_for(state="hidden")
    tab(page, 0)
    example(page, "tiger.webp").click()
    hits = retriever.by_pixels(TIGER)
    wait_for_hits(page, "pixel-hits", shown_as(hits, "l2"))
    assert page.locator("#pixel-hits .mark").count() == 10  # what a picture is not like, no mean of pixels says
    page.locator("#pixel-hits .mark").nth(2).click()
    liked = retriever.by_pixels(TIGER, likes=[hits[2].id])
    wait_for_hits(page, "pixel-hits", shown_as(liked, "l2"))
    page.get_by_text("for the mean of all the pictures").wait_for()
    page.locator("#pixel-why label").first.click()
    page.get_by_text(f"the root of that is the score, {liked[0].score:,.0f}").wait_for()
    example(page, "dog.webp").click()  # a whole new query
    wait_for_hits(page, "pixel-hits", shown_as(retriever.by_pixels(DOG), "l2"))


def test_a_click_shows_more_hits_until_there_are_no_more(visit, retriever):
    page = visit("/?tab=clip&text=a+cat&k=85")
    for k in (95, 100):
        page.locator("#clip-more").click()
        wait_for_hits(page, "clip-hits", shown_as(retriever.by_clip(text="a cat", k=k), "clip"))
    page.locator("#clip-more").wait_for(state="hidden")
    few = visit("/?tab=clip&text=a+cat&k=20&label=animals/fish")
    few.locator("#clip-hits img").first.wait_for()
    few.locator("#clip-more").wait_for(state="hidden")


def test_the_way_back_and_forth_shows_each_search_again(visit, retriever):
    page = visit()
    first = page.locator("#pixel-hits .caption-label")
    first.nth(9).wait_for()
    of_the_day = captions_of(page, "pixel-hits")
    seen = [("pixel-hits", of_the_day)]

    def searched(gallery, hits, method):
        seen.append((gallery, shown_as(hits, method)))
        wait_for_hits(page, *seen[-1])
        page.wait_for_timeout(500)

    example(page, "tiger.webp").click()
    searched("pixel-hits", retriever.by_pixels(TIGER), "l2")
    page.locator("#pixel-metric").get_by_text("L1").click()
    searched("pixel-hits", retriever.by_pixels(TIGER, "l1"), "l1")
    page.locator('#pixel-query button[aria-label="Remove Image"]').click()
    page.locator("#pixel-query input[type=file]").set_input_files(ROOT / "examples/library" / OSTRICH)
    uploaded = retriever.by_pixels(load_image(ROOT / "examples/library" / OSTRICH), "l1")
    searched("pixel-hits", uploaded, "l1")
    tab(page, 1)
    searched("clip-hits", retriever.by_clip(load_image(ROOT / "examples/library" / OSTRICH)), "clip")
    page.locator("#clip-text textarea, #clip-text input").fill("a flower")
    page.locator("#clip-search").click()
    searched("clip-hits", retriever.by_clip(load_image(ROOT / "examples/library" / OSTRICH), "a flower"), "clip")
    example(page, "dog.webp").click()
    searched("clip-hits", retriever.by_clip(DOG), "clip")
    seen.insert(3, ("pixel-hits", []))  # the picture was taken away before another was given
    tabs = {"pixel-hits": "Pixels", "clip-hits": "CLIP"}
    for way, steps in ((page.go_back, seen[-2::-1]), (page.go_forward, seen[1:])):
        for gallery, hits in steps:
            way()
            wait_for_hits(page, gallery, hits)
            page.get_by_role("tab", name=tabs[gallery], selected=True).wait_for()
    page.wait_for_timeout(3000)
    assert captions_of(page, "clip-hits") == seen[-1][1]


def test_embeddings_are_compared_by_the_metric_that_is_chosen(visit, retriever):
    page = visit("/?tab=clip&example=tiger.webp")
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_clip(TIGER), "clip"))
    page.locator("#clip-metric").get_by_text("L1").click()
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_embedding(TIGER, "l1"), "clip"))
    page.wait_for_url(re.compile("method=clip-l1"))
    page.locator("#clip-metric").get_by_text("L2").click()
    wait_for_hits(page, "clip-hits", shown_as(retriever.by_embedding(TIGER, "l2"), "clip"))
    page.get_by_text("L2 and cosine rank alike here").wait_for()


@pytest.mark.parametrize(
    ("language", "address", "named"), [("en", "/", False), ("vi", "/", False), ("vi", "/?method=l1", True)]
)
def test_the_page_is_sent_with_its_language_and_its_first_hits_unless_the_address_names_others(
    browser, server, retriever, language, address, named
):
    """No event of the page reaches the server, so whatever is shown was sent with the page."""
    page = browser.new_page(locale=language)
    page.route("**/gradio_api/queue/join*", lambda route: None)  # left without an answer
    while page.request.get(f"{server}/gradio_api/health").json()["status"] == "warming":
        page.wait_for_timeout(100)
    page.goto(server + address)
    page.get_by_role("heading", name=WORDS[language].title).wait_for()
    assert [page.locator("[role=tab]").first.text_content().strip()] == [WORDS[language].pixels_tab]
    words = WORDS[language]
    assert page.locator("#pixel-query label").first.text_content().strip() == words.query_picture
    if not named:
        assert page.locator("#pixel-more").text_content().strip() == words.more.format(count=10)
    examples = read_examples()
    of_the_day = load_image(examples[date.today().toordinal() % len(examples)].path)
    hits = [] if named else retriever.by_pixels(of_the_day, "l2", 10)
    page.wait_for_timeout(2000 if named else 0)
    wait_for_hits(page, "pixel-hits", shown_as(hits, "l2", language))
    page.close()


def test_hits_are_there_at_first_sight_in_each_tab_and_the_address_stays_bare(visit):
    page = visit("/")
    page.locator("#pixel-hits img").first.wait_for(timeout=20_000)
    page.wait_for_timeout(3000)
    assert page.locator("#pixel-hits img").count() == 10
    assert page.get_by_text("Error", exact=True).count() == 0  # Gradio's mark on a field whose event failed
    assert "example" not in page.url
    page.get_by_role("tab", name="CLIP").click()
    page.locator("#clip-hits img").first.wait_for(timeout=20_000)


@pytest.mark.parametrize("width", [390, 320])
@pytest.mark.parametrize("language", ["vi", "en"])
def test_a_phone_shows_all_tabs_without_a_menu(visit, width, language):
    page = visit(f"/?lang={language}", width=width, height=844)
    page.locator("#pixel-hits img").first.wait_for(timeout=20_000)
    tabs = page.get_by_role("tab").filter(visible=True)
    assert [tab.inner_text() for tab in tabs.all()] == [
        getattr(WORDS[language], f"{name}_tab") for name in ("pixels", "clip", "compare", "library", "code", "course")
    ]
    assert not page.locator(".overflow-menu button").first.is_visible()
    assert all(0 <= tab.bounding_box()["x"] < width for tab in tabs.all())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
