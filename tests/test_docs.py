"""The pages say what is so: their programs run, their commands print what they show, their links lead somewhere."""

import ast
import importlib.util
import re
import shlex
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from imgret.cli import parser
from imgret.hub import space
from imgret.settings import Settings
from imgret.ui.address import OURS
from imgret.ui.code_tab import LOCAL, snippets
from tests.docs import BLOCK, PAGES, ROOT, blocks, commands, is_same, make_folder, output_of, run, write_outputs

READMES = [ROOT / "README.md", ROOT / "README.vi.md"]
COMMANDS = {
    command: output
    for page in PAGES
    for kind, text in blocks(page)
    if kind == "console"
    for command, output in commands(text)
}
PROGRAMS = {
    f"{page.name} {number}": text
    for page in PAGES
    if page.name != "http-and-mcp.md"  # the page's own snippets, which tests/test_code.py runs
    for number, (kind, text) in enumerate(blocks(page))
    if kind == "python"
}


def read(path):
    return path.read_text(encoding="utf-8")


def prose(page):
    """A page without its fenced blocks, and without the YAML block of the README."""
    text = read(page)
    return BLOCK.sub("", text.split("---\n", 2)[2] if text.startswith("---\n") else text)


def links(page):
    """The links of a page to files of the project: path from the page's folder, and anchor."""
    targets = re.findall(r"\]\(([^)\s]+)\)", prose(page))
    return [target.partition("#")[::2] for target in targets if "://" not in target]


def linked(page, name):
    return (page.parent / name).resolve() if name else page


@pytest.fixture(scope="module")
def folder(index_folder, tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("pages") / "work", index_folder)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_prints_what_the_pages_say(command, folder, cache):
    printed = output_of(command, folder, cache)
    assert is_same(printed, COMMANDS[command]), f"write it anew, python -m tests.docs:\n{printed}"


def test_a_command_has_the_same_output_on_every_page():
    found = [
        (command, output)
        for page in PAGES
        for kind, text in blocks(page)
        if kind == "console"
        for command, output in commands(text)
    ]
    assert len(found) > len(COMMANDS)  # the READMEs and docs/cli.md share some
    assert dict(found) == COMMANDS
    assert all(COMMANDS[command] == output for command, output in found)


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_python_program_of_the_pages_runs_as_it_stands(name, folder, cache):
    run(["-c", PROGRAMS[name]], folder, cache)


def test_the_page_on_http_prints_the_snippets_of_the_demo():
    shown = {kind: text for kind, text in blocks(ROOT / "docs" / "http-and-mcp.md") if kind}
    assert shown == snippets(LOCAL)


def test_every_imgret_command_of_the_pages_is_one_that_there_is():
    shown = [text for page in PAGES for kind, text in blocks(page) if kind in ("sh", "console")]
    lines = [line.strip().removeprefix("$ ") for text in shown for line in text.splitlines()]
    asked = [line for line in lines if line.startswith("imgret ")]
    assert len(asked) > 20
    for line in asked:
        parser().parse_args(shlex.split(line, comments=True)[1:])


def test_every_module_target_and_test_that_the_pages_name_is_there():
    everything = "\n".join(read(page) for page in PAGES)
    modules = set(re.findall(r"python -m ((?:benchmarks|tests)[.\w]*)", everything))
    targets = set(re.findall(r"`make ([\w-]+)", everything))
    assert len(modules) > 5
    assert {"run", "test", "rehearsal"} <= targets
    assert [name for name in modules if importlib.util.find_spec(name) is None] == []
    makefile = read(ROOT / "Makefile")
    assert [target for target in targets if not re.search(rf"^{target}:", makefile, re.M)] == []
    files = set(re.findall(r"\b((?:tests|imgret|benchmarks|examples)/[\w./-]*\.\w+)", everything))
    assert len(files) > 20
    assert [name for name in files if not (ROOT / name).exists()] == []


def anchors(page):
    """The anchors that GitHub gives the headings of a page."""
    return {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in re.findall(r"^#+ (.*)", prose(page), re.M)
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_the_links_of_a_page_lead_to_a_file_and_a_heading_of_it(page):
    for name, anchor in links(page):
        file = linked(page, name)
        assert file.exists(), f"{page.name} links to {name}"
        assert not anchor or anchor in anchors(file), f"{page.name} links to {name}#{anchor}"


@pytest.mark.parametrize("readme", READMES, ids=lambda page: page.name)
def test_a_readme_is_read_in_a_few_minutes(readme):
    text = read(readme)
    assert len((text.split("---\n", 2)[2] if text.startswith("---\n") else text).split()) <= 900


def test_every_page_of_the_documentation_is_reached_from_the_readme():
    reached, left = set(), [READMES[0]]
    while left:
        page = left.pop()
        if page not in reached:
            reached.add(page)
            left += [linked(page, name) for name, _ in links(page) if name.endswith(".md")]
    assert len(reached) > 15
    assert [page.name for page in PAGES if page not in reached] == []


def test_a_space_has_what_its_readme_links_to():
    sent = [*space.FILES, "README.md"]
    for page in PAGES:
        for name, _ in links(page):
            target = linked(page, name).relative_to(ROOT).as_posix()
            assert target in sent or target.split("/")[0] in space.FOLDERS, f"{page.name} links to {target}"


def test_the_outputs_of_a_page_are_written_anew(folder, cache, tmp_path):
    page, (command, output) = tmp_path / "page.md", next(iter(COMMANDS.items()))
    page.write_text(f"Text.\n\n```console\n$ {command}\nstale\nlines\n```\n\n```sh\nleft alone\n```\n")
    write_outputs(page, folder, cache)
    assert page.read_text() == f"Text.\n\n```console\n$ {command}\n{output}\n```\n\n```sh\nleft alone\n```\n"


def test_the_workflow_of_the_tests_and_the_hooks_run_what_there_is():
    workflow = yaml.safe_load(read(ROOT / ".github" / "workflows" / "test.yml"))
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    matrix = workflow["jobs"]["test"]["strategy"]["matrix"]
    assert [runner.split("-")[0] for runner in matrix["os"]] == ["ubuntu", "macos", "windows"]
    assert all(SpecifierSet(project["requires-python"]).contains(version) for version in matrix["python"])
    steps = [step["run"] for job in workflow["jobs"].values() for step in job["steps"] if "run" in step]
    assert {f"mypy --platform {platform}" for platform in ("linux", "darwin", "win32")} <= set(steps)
    targets = re.findall(r"\bmake (\S+)", "\n".join(steps))
    assert [target for target in targets if not re.search(rf"^{target}:", read(ROOT / "Makefile"), re.M)] == []
    hooks = yaml.safe_load(read(ROOT / ".pre-commit-config.yaml"))["repos"][0]["hooks"]
    wanted = {Requirement(line).name for line in project["optional-dependencies"]["dev"]}
    assert {hook["entry"].split()[0] for hook in hooks} == {"ruff", "mypy"} <= wanted


def test_the_templates_of_issues_are_forms():
    forms = [yaml.safe_load(read(path)) for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")]
    assert len(forms) == 2
    for form in forms:
        assert form.keys() >= {"name", "description", "body"}
        assert all(field["attributes"]["label"] for field in form["body"])


def test_the_readmes_have_the_figures_of_the_build(retriever):
    figures = retriever.index.evaluation["methods"]
    first = {method: f"{values['precision@1']:.2f}" for method, values in figures.items()}
    for readme in READMES:
        (row,) = re.findall(r"^\| .*precision@1.*$", prose(readme), re.M)
        assert re.findall(r"\d\.\d\d", row.replace(",", ".")) == list(first.values())
    (table,) = re.findall(r"^## Quality$(.*?)^## ", read(ROOT / "docs" / "benchmarks.md"), re.S | re.M)
    shown = re.findall(r"^\| .*?\| (\d.*) \|$", table, re.M)
    assert shown == [" | ".join(f"{value:.2f}" for value in values.values()) for values in figures.values()]


def test_the_page_on_the_command_line_has_every_command_and_option():
    page = read(ROOT / "docs" / "cli.md")
    (subparsers,) = [action for action in parser()._actions if hasattr(action.choices, "items")]
    assert len(subparsers.choices) > 5
    for name, command in subparsers.choices.items():
        (section,) = re.findall(rf"^## {name}$(.*?)(?=^## |\Z)", page, re.S | re.M)
        options = {option for action in command._actions for option in action.option_strings} - {"-h", "--help"}
        assert [option for option in sorted(options) if f"`{option}" not in section] == [], name


def test_the_page_on_settings_has_every_variable():
    page = read(ROOT / "docs" / "settings.md")
    names = [f"IMGRET_{name.upper()}" for name in Settings.model_fields if not name.startswith("space")]
    assert len(names) > 10
    assert [name for name in names if f"`{name}`" not in page] == []


def test_the_page_on_errors_has_each_that_a_user_can_cause():
    page, found = read(ROOT / "docs" / "errors.md"), []
    for path in (ROOT / "imgret").rglob("*.py"):
        classes = [node for node in ast.walk(ast.parse(read(path))) if isinstance(node, ast.ClassDef)]
        found += [one.name for one in classes if {"ValueError", "ImgretError"} & set(map(ast.unparse, one.bases))]
    assert len(found) > 10
    assert [name for name in found if f"`{name}`" not in page] == []


def test_the_page_on_http_has_every_parameter_of_the_address():
    page = read(ROOT / "docs" / "http-and-mcp.md")
    assert [name for name in (*OURS, "lang") if f"`{name}`" not in page] == []
