"""The sections of modules that imports run down, and the page that shows them.

python -m tests.architecture > docs/architecture.md
"""

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
SECTIONS = {
    "Entry points": {"app", "imgret.__main__"},
    "The command line": {"imgret.cli"},
    "The page": {"imgret.ui"},
    "Starting and deploying a demo": {"imgret.startup", "imgret.hub.space"},
    "Ray, model card, requirements of a Space": {
        "imgret.build.ray",
        "imgret.hub.model_card",
        "imgret.hub.requirements",
    },
    "Preparing one's own pictures": {"imgret.prepare"},
    "Building": {"imgret.build"},
    "Measuring and explaining": {"imgret.evaluate", "imgret.explain", "imgret.course"},
    "Searching and fetching": {
        "imgret.search",
        "imgret.blindness",
        "imgret.projection",
        "imgret.hub",
    },
    "Hits and near duplicates": {"imgret.duplicates", "imgret.hits"},
    "The index": {"imgret.index"},
    "What an index says of itself": {"imgret.manifest"},
    "Pixel search, the Chroma store, calibration": {"imgret.calibration", "imgret.pixels", "imgret.vectors"},
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
"""Each module stands in one section, by the nearest unit that holds it, and imports only from those below."""

HEAD = """\
# Architecture

This page is generated: its sections are the table `SECTIONS` in `tests/architecture.py`, its sentences are the first of
each module. `python -m tests.architecture > docs/architecture.md` writes it, and `tests/test_imports.py` checks both.

Two processes share the index, a folder with all that a search needs:

- **Building**, offline and once: library → `build_index` → index.
- **Searching**, online, for each query: query → `Retriever` → index → hits. It reads no data set and imports no torch.

| package | what it is for |
|---|---|
| `imgret` | The public names: `import imgret` gives `ImageLibrary`, `build_index`, `Retriever` and more, each loaded when it is first used. |
| `imgret/library` | Reads folders, tables and data sets of the Hub as pictures with ids, labels and captions. |
| `imgret/images` | Decodes pictures of any format, size and origin, within limits. |
| `imgret/encoders` | Makes vectors of pictures and of texts. An encoder is two neural networks, the picture tower and the text tower. |
| `imgret/build` | Makes an index of a library. |
| `imgret/index.py`, `imgret/manifest.py` | The files of an index, and what it says of itself. |
| `imgret/pixels` | Exact search of pixel vectors: all rows of a small library; of a large one those that its sketches, short summaries of each row, cannot rule out. |
| `imgret/vectors` | The store of embeddings in Chroma. |
| `imgret/search.py` | Answers queries: `Retriever`. |
| `imgret/evaluate.py`, `imgret/explain.py`, `imgret/blindness.py` | How good answers are, why a hit has its score, what a metric cannot see. |
| `imgret/course` | The functions of the course, and checks of a student's own. |
| `imgret/hub` | Publishes and fetches indexes, and deploys Spaces. |
| `imgret/startup.py` | Finds, fetches or builds the index that a demo serves. |
| `imgret/ui`, `imgret/cli` | The page with its endpoints and scripts, and the command line. |
| `tests`, `benchmarks`, `examples`, `docs` | Tests; measurements beside other programs; the library, the queries and the notebooks that come with imgret; these pages. |

Words that have one meaning here:

| word | what it means |
|---|---|
| metric, method | A metric is one of the four formulas. A method is one of the five ways to search: the four metrics on pixels, and `clip`. |
| entry, record, row | An entry is a picture of a library before it is read; a record is what an index says of it; its row is its number there. |
| score, key | A score is what the formula gives. A key is the number by which exact search sorts, smallest first. |
| tower | The neural network of an encoder for pictures, or that for texts. |
| sketch | A short summary of a pixel vector, from which a bound of its score follows without reading the vector. |
| match | A hit that a query without a match in the library would rarely find: its p-value is at most alpha. |
| audit | The measured share of the true neighbours that Chroma finds. |
| embedded library, `starter` | The pictures and the encoder that come with imgret. |

A build has seven stages. Five are functions of `imgret/build/pipeline.py`: `extract_features` decodes and embeds,
`assemble` writes matrices, thumbnails and records, `write_search_structures` adds the pixel index, the vectors and
the encoder, `measure_answers` measures how good the answers are, `group_duplicates` groups equal and nearly
equal pictures. `calibrate` in `imgret/build/calibrate.py` keeps the best scores of queries that have no match, and
`audit_filters` in `imgret/build/filters.py` measures what Chroma's own label filter finds. Last, the manifest is
written; only then is the new index in use.

A click on an example goes through `_Page` in `imgret/ui/page.py` to the search tab that was used last, and from there
through `Endpoints`, which answers for the page, for programs and for the MCP tools alike, to `Retriever`. `respond`
adds the thumbnails.

A module imports from its own package and from sections with a higher number; from no other module of its section, and
from no section with a lower number. A module or sub-package may have a section of its own, above or below that of its
package: `imgret/build/ray.py` imports `imgret/build`, which never imports it back; `imgret/pixels` imports
`imgret/pixels/sketches`. Progress is reported through a callback. Only `app.py` and the commands read the settings;
they pass them on as arguments.
"""  # noqa: E501
TAIL = """\
## Where to add

| what | where |
|---|---|
| a metric | Its function and its entry in `METRICS` in `imgret/metrics.py`, and in `LARGER_IS_CLOSER` if a larger score is better. Its key, the number by which rows are sorted, smallest first, for small libraries in `imgret/pixels/exact.py`; for large ones its key, and from the sketch a number that the key is never below, in `imgret/pixels/sketches/kernels.py`. Its steps for two small pictures in `imgret/course/steps.py`, and the mistakes that students make with it in `imgret/course/diagnosis.py`. Its terms in `imgret/explain.py`; what it cannot see in `imgret/blindness.py`, which needs the triangle inequality: of the metric, or of the angle where it is a cosine. Its name in `Metric` in `imgret/ui/endpoints.py`, its formula in `imgret/ui/pixels_tab.py`, its texts in `imgret/ui/i18n.py`. |
| an encoder | Any open_clip model works by its URI, without code. Another kind is a subclass of `Encoder` (`imgret/encoders/base.py`) in a module of its own in `imgret/encoders/`, with both towers, `uri`, `dim` and `languages`, and a branch in `load_encoder` (`imgret/encoders/__init__.py`) that recognises its URI. A search needs whatever that module imports, unless `can_export` knows how to export it. |
| a tab | A search tab is a subclass of `Tab` (`imgret/ui/tab.py`) in a module of its own in `imgret/ui/`. `build_page` in `imgret/ui/page.py` creates it and lists it for `_Page`, which connects its events. Its texts go to `imgret/ui/i18n.py`, new fields of its address to `OURS` in `imgret/ui/address.py`. |
| a tab that does not search | A class in a module of its own, like `imgret/ui/code_tab.py`, created in `build_page` and named in `OTHER_TABS`, so that an address can open it; its texts go to `imgret/ui/i18n.py`. |
| a command | A module in `imgret/cli/` with `add` and `run`, in the tuple `COMMANDS` of `imgret/cli/__init__.py`, and a section in `docs/cli.md`. |
| an error sentence | `raise SomeError("... {name} ...", name=name)`, a class below `ImgretError`, never an f-string; its Vietnamese under the same template in `imgret/vietnamese.py`. |
| a language of the page | Its name in `LANGUAGES` and its texts in `WORDS` (`imgret/ui/i18n.py`); the sentences of errors, as `imgret/vietnamese.py` has them; its choice in `imgret/cli/check.py`. |
| a kind of source | A subclass of `Reader` (`imgret/library/records.py`) in a module of its own in `imgret/library/`, which yields an `Entry` for each picture, and a branch in `ImageLibrary.load` (`imgret/library/loading.py`) that recognises the source, before what is no path is taken for a data set of the Hub. |
| a stage of the build | A function in `imgret/build/pipeline.py`, or in a module of its own beside it, and the name of its file in the layout at the top of `imgret/index.py`. |
| a setting | A field of `Settings` in `imgret/settings.py`, handed on by `app.py` and the commands that use it, and a row in `docs/settings.md`. |
| a module | A sentence at its top that says what it is for; if it is in no package, a place in `SECTIONS` in `tests/architecture.py`. Its tests go to `tests/`. |
"""  # noqa: E501


def modules() -> dict[str, Path]:
    """Every module of the program by its name; a package by its own."""
    paths = [ROOT / "app.py", *sorted((ROOT / "imgret").rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def unit_of(module: str) -> str | None:
    """The entry of SECTIONS that a module belongs to: the nearest of those that hold it."""
    units = (
        unit for section in SECTIONS.values() for unit in section if module == unit or module.startswith(unit + ".")
    )
    return max(units, key=len, default=None)


def page() -> str:
    """The text of docs/architecture.md."""
    lines = [HEAD]
    for number, (title, units) in enumerate(SECTIONS.items(), 1):
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
