"""The rows of modules that imports run down, and the page that shows them.

python -m tests.architecture > docs/architecture.md
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
ROWS = {
    "Doors": {"app", "imgret.__main__"},
    "The command line": {"imgret.cli"},
    "The page": {"imgret.ui"},
    "Starting and deploying a demo": {"imgret.startup", "imgret.hub.space"},
    "Ray, model card, requirements of a Space": {
        "imgret.build.ray",
        "imgret.hub.model_card",
        "imgret.hub.requirements",
    },
    "Preparing own pictures": {"imgret.prepare"},
    "Building": {"imgret.build"},
    "Measuring and explaining": {"imgret.evaluate", "imgret.explain", "imgret.course"},
    "Searching and fetching": {
        "imgret.search",
        "imgret.blindness",
        "imgret.projection",
        "imgret.hub",
    },
    "Hits and near duplicates": {"imgret.duplicates", "imgret.hits"},
    "The index, where both roads meet": {"imgret.index"},
    "What an index says of itself": {"imgret.manifest"},
    "The two stores, and where matches end": {"imgret.calibration", "imgret.pixels", "imgret.vectors"},
    "Libraries and metrics": {"imgret.library", "imgret.metrics", "imgret.pixels.sketches"},
    "Pictures, encoders, settings and translations": {
        "imgret.images",
        "imgret.alignment",
        "imgret.held_out",
        "imgret.encoders",
        "imgret.settings",
        "imgret.vietnamese",
        "imgret.pixels.sketch_layout",
    },
    "Tools": {"imgret.network", "imgret.errors", "imgret.files", "imgret.privacy", "imgret.progress"},
}
"""Each module stands in one row, by the nearest unit that holds it, and imports only from rows below its own."""

HEAD = """\
# Architecture

Two roads meet in the index, a folder with all that a search needs:

- **Building**, offline and once: library → `build_index` → index.
- **Searching**, online, for each query: query → `Retriever` → index → hits. It reads no data set and imports no torch.

A build has seven stages, functions of `imgret/build/pipeline.py`: `extract_features` decodes and embeds, `assemble`
writes the rows, `write_search_structures` adds pixel index and vectors, `write_evaluation` searches the draft
and measures it, `write_duplicates` groups equal pictures, `write_calibration` finds where matches end;
`audit_filters` of `imgret/build/filters.py` measures what Chroma's label filter finds. Then the manifest names the new
data.

A click on an example goes through `_Page` in `imgret/ui/page.py` to the search tab that was used last, and from there
through `Endpoints`, which answers for the page, for programs and for the MCP tools alike, to `Retriever`. `respond`
adds the thumbnails.

Each numbered section below imports only from the sections under it. Progress is a callback that is handed down.
`app.py` and the commands read the settings and hand them down as arguments. `tests/test_imports.py` checks the rows
and makes sure that this page is current; `python -m tests.architecture > docs/architecture.md` writes it from the
rows and the first lines of the modules.
"""
TAIL = """\
## Where to add

| what | where |
|---|---|
| a metric | Its function and its entry in `METRICS` in `imgret/metrics.py`, and in `LARGER_IS_CLOSER` if a larger score is better. Its key for small libraries in `imgret/pixels/exact.py`, its bound and key for large ones in `imgret/pixels/sketches/kernels.py`. Its terms in `imgret/explain.py`, what it cannot see in `imgret/blindness.py`, its name in `Metric` in `imgret/ui/endpoints.py`, its formula in `imgret/ui/pixels_tab.py`, its texts in `imgret/ui/i18n.py`. |
| an encoder | Any open_clip model works by its URI, without code. Another kind is a subclass of `Encoder` (`imgret/encoders/base.py`) in a module of its own in `imgret/encoders/`, and a branch in `load_encoder` that recognises its URI. |
| a tab | A search tab is a subclass of `Tab` (`imgret/ui/tab.py`) in a module of its own in `imgret/ui/`. `build_page` in `imgret/ui/page.py` creates it and lists it for `_Page`, which connects its events. Its texts go to `imgret/ui/i18n.py`. |
| a tab that does not search | A class in a module of its own, as `imgret/ui/code_tab.py`, created in `build_page`. |
| a command | A module in `imgret/cli/` with `add` and `run`, in the tuple `COMMANDS` of `imgret/cli/__init__.py`, and a section in `docs/cli.md`. |
| an error sentence | `raise SomeError("... {name} ...", name=name)`, a class below `ImgretError`, never an f-string; its Vietnamese under the same template in `imgret/vietnamese.py`. |
| a kind of source | A reader beside the others in `imgret/library/`, which yields an `Entry` for each picture, and a branch in `ImageLibrary.load` (`imgret/library/loading.py`) that recognises the source. |
| a stage of the build | A function in `imgret/build/pipeline.py`, and the name of its file in the layout at the top of `imgret/index.py`. |
| a setting | A field of `Settings` in `imgret/settings.py`. |
"""  # noqa: E501


def modules() -> dict[str, Path]:
    """Every module of the program by its name; a package by its own."""
    paths = [ROOT / "app.py", *sorted((ROOT / "imgret").rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def unit_of(module: str) -> str | None:
    """The entry of ROWS that a module belongs to: the nearest of those that hold it."""
    units = (unit for row in ROWS.values() for unit in row if module == unit or module.startswith(unit + "."))
    return max(units, key=len, default=None)


def page() -> str:
    """The text of docs/architecture.md."""
    lines = [HEAD]
    for number, (title, units) in enumerate(ROWS.items(), 1):
        lines += [f"## {number}. {title}\n", "| module | what it is for |", "|---|---|"]
        for module, path in sorted(modules().items()):
            if unit_of(module) in units:
                lines.append(f"| `{path.relative_to(ROOT).as_posix()}` | {_purpose(path)} |")
        lines.append("")
    return "\n".join([*lines, TAIL])


def _purpose(path: Path) -> str:
    """The first sentences of a module: its docstring up to the first blank line."""
    first = (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n\n")[0]
    return " ".join(first.split()).replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
