"""Imports run downwards, and heavy libraries stay off the paths that do not need them."""

import ast
import re
import subprocess
import sys

import pytest

from tests.architecture import ROOT, SECTIONS, modules, page, unit_of

ALONE = {
    "gradio": {"app", "imgret.ui"},
    "chromadb": {"imgret.vectors"},
    "open_clip": {"imgret.encoders"},
    "onnxruntime": {"imgret.encoders"},
    "torch": {"imgret.encoders"},
    "datasets": {"imgret.library"},
    "numba": {"imgret.pixels.sketches"},
    "ray": {"imgret.build.ray"},
    "sklearn": {"imgret.projection"},
    "matplotlib": {"imgret.course"},
    "pydantic_settings": {"imgret.settings"},
}


def imports():
    for module, path in modules().items():
        if module == "imgret":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for name in node.names:
                    yield module, name.name
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{module} imports relatively"
                for name in node.names:
                    yield module, f"{node.module}.{name.name}"


def test_every_module_stands_in_a_section_and_imports_only_from_sections_below():
    section_of = {unit: number for number, units in enumerate(SECTIONS.values()) for unit in units}
    seen = 0
    for module, imported in imports():
        mine = unit_of(module)
        assert mine is not None, f"{module} stands in no section"
        other = unit_of(imported)
        if other is None or other == mine:
            assert not imported.startswith("imgret.") or other == mine, f"{module} imports {imported} from no section"
            continue
        seen += 1
        assert section_of[other] > section_of[mine], (
            f"{module} (section {section_of[mine] + 1}) imports {imported} (section {section_of[other] + 1})"
        )
    assert seen > 20


def test_the_page_on_the_architecture_is_made_of_these_sections():
    shown = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    assert shown == page(), "write it anew: python -m tests.architecture > docs/architecture.md"
    for name in re.findall(r"`((?:imgret|tests)/[^`]*)`", shown):
        assert (ROOT / name).exists(), f"there is no {name}"


def test_every_module_says_in_a_plain_sentence_what_it_does():
    for module, path in modules().items():
        first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
        assert first, f"{module} does not say what it does"
        assert "?" not in first, f"{module} asks what it should say: {first}"


def test_a_library_that_one_module_alone_should_know_is_known_to_it_alone():
    for module, imported in imports():
        allowed = ALONE.get(imported.partition(".")[0])
        assert allowed is None or unit_of(module) in allowed, f"{module} imports {imported}"


@pytest.mark.parametrize(
    ("statement", "heavy"),
    [
        ("import imgret", {"numpy", "torch", "gradio", "chromadb", "datasets", "PIL"}),
        ("import imgret.cli", {"torch", "gradio", "chromadb", "datasets"}),
        ("import imgret.encoders", {"torch", "open_clip", "transformers"}),
        ("import imgret.explain, imgret.projection", {"torch", "gradio", "chromadb", "datasets", "sklearn"}),
        ("import imgret.search", {"torch", "gradio", "chromadb", "datasets", "httpx", "numba"}),
        ("import imgret.startup", {"torch", "gradio", "chromadb", "datasets", "huggingface_hub", "numba", "sklearn"}),
        ("import imgret.hub.space", {"torch", "gradio", "chromadb", "datasets", "huggingface_hub"}),
    ],
)
def test_importing_a_module_does_not_bring_what_it_may_never_need(statement, heavy):
    code = f"{statement}; import sys; print(*({heavy!r} & set(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []
