"""The programs that the page and docs/http-and-mcp.md print run as they stand."""

import re
import shutil
import subprocess
import sys

import pytest
from axe_playwright_python.sync_playwright import Axe

from imgret.ui.code_tab import snippets
from tests.browser import CHROMIUM, open_browser
from tests.conftest import ROOT

SCREENSHOTS = ROOT / "tests" / "screenshots"
GRADIO_CLIENT = "@gradio/client@2.7.0"


def run(command, folder):
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture
def expected(retriever):
    """The ids that the snippets' two searches find."""
    found = retriever.by_clip(text="a guitar", k=5)
    same = retriever.by_pixels(retriever.thumbnail(found[0].id), "l2", 5)
    return [hit.id for hit in found], [hit.id for hit in same]


def test_the_python_snippet_runs_as_printed(server, tmp_path, retriever, expected):
    printed = run([sys.executable, "-c", snippets(server)["python"]], tmp_path)
    found, same = expected
    assert re.findall(r"^\d (\S+\.webp) ", printed, re.M) == found
    assert f"l2 {same}" in printed
    assert f"l2 {same[:3]}" in printed  # of the comparison
    assert printed.endswith(f"{len(retriever.index)} pictures\n")


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_the_curl_snippet_runs_as_printed(server, tmp_path, expected):
    printed = run(["sh", "-c", snippets(server)["shell"]], tmp_path)
    assert re.findall(r'"id": "([^"]+)"', printed) == [*expected[0], *expected[1]]


@pytest.mark.skipif(shutil.which("npm") is None, reason="node and npm are not installed")
def test_the_javascript_snippet_runs_as_printed(server, tmp_path, expected):
    installed = subprocess.run(["npm", "install", GRADIO_CLIENT], cwd=tmp_path, capture_output=True, timeout=60)
    if installed.returncode:
        pytest.skip(f"npm cannot install {GRADIO_CLIENT}")
    (tmp_path / "search.mjs").write_text(snippets(server)["javascript"])
    printed = run(["node", "search.mjs"], tmp_path)
    found, same = expected
    assert re.findall(r"^\d (\S+\.webp) ", printed, re.M) == found
    assert re.findall(r"'([^']+\.webp)'", printed) == same


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
@pytest.mark.parametrize(
    ("language", "tab", "scheme", "width"),
    [("en", "Code", "light", 1280), ("vi", "Mã", "dark", 800)],
)
def test_the_page_prints_the_snippets_with_the_address_at_which_it_is_seen(server, language, tab, scheme, width):
    seen = server.replace("127.0.0.1", "localhost")
    with open_browser() as browser:
        page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": 800})
        page.goto(f"{seen}/?lang={language}")
        page.get_by_role("tab", name=tab).click()
        page.locator("#code-python", has_text=seen).wait_for()
        for name, code in snippets(seen).items():
            lines = page.locator(f"#code-{name} .cm-line").all_text_contents()
            assert "\n".join(lines) == code
        found = Axe().run(page).response["violations"]
        assert [violation["id"] for violation in found if violation["impact"] in ("serious", "critical")] == []
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=SCREENSHOTS / f"programs-{language}.png", full_page=True)
