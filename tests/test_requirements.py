"""What is installed where: the lists agree with each other, and the platform's own commands can resolve them."""

import re
import subprocess
import sys
import tomllib

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from imgret.hub.requirements import space_requirements
from tests.conftest import ROOT

PLATFORM = ["uvicorn>=0.14.0", "websockets>=10.4", "spaces"]
"""What Hugging Face asks for in the command that installs a Gradio Space, besides its own gradio[oauth,mcp]."""
BUILDING = {"torch", "torchvision", "open-clip-torch", "timm", "transformers", "onnx", "onnxscript"}


def block():
    return yaml.safe_load((ROOT / "README.md").read_text(encoding="utf-8").split("---\n")[1])


def locked():
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8").replace("\\\n", " ")
    return [line for line in lock.splitlines() if line and not line.startswith("#")]


def test_the_space_s_list_is_made_from_the_project_and_the_lock():
    assert (ROOT / "requirements.txt").read_text(encoding="utf-8") == space_requirements("build")
    assert f"gradio=={block()['sdk_version']}\n" in space_requirements()


def test_the_lock_has_hashes_and_a_version_that_each_of_the_project_s_ranges_admits():
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in locked())
    entries = [Requirement(entry.partition("--hash")[0]) for entry in locked()]
    versions = {one.name: str(one.specifier).removeprefix("==") for one in entries}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"].values()
    wanted = [Requirement(line) for lines in (project["dependencies"], *extras) for line in lines]
    asked = [one for one in wanted if one.name != project["name"]]
    assert len(asked) > 40
    for one in asked:
        assert one.specifier.contains(versions[canonicalize_name(one.name)]), one


def test_what_serves_an_index_does_without_what_builds_one():
    names = {Requirement(line).name for line in space_requirements().splitlines() if line[0] != "#"}
    assert names.isdisjoint(BUILDING)
    assert {"gradio", "chromadb", "onnxruntime"} <= names


def resolved(*arguments):
    """Runs `uv pip compile` on lists of requirements; as strict as pip, which takes a minute for each."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "--quiet", "--no-annotate", "--no-header", *arguments]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def package_index(tmp_path_factory):
    """Skips what asks a package index where there is none."""
    file = tmp_path_factory.mktemp("one") / "requirements.txt"
    file.write_text("packaging", encoding="utf-8")
    if resolved("--refresh", file).returncode:
        pytest.skip("there is no package index here")


@pytest.mark.parametrize(
    ("hardware", "extras", "added"),
    [
        ("a CPU, to build one", ("build",), ()),
        ("ZeroGPU, to serve an index", (), ("torch<=2.13.0",)),
        ("ZeroGPU, to build one", ("build",), ("torch<=2.13.0",)),
    ],
)
def test_the_command_of_the_platform_can_be_resolved(hardware, extras, added, tmp_path, package_index):
    ours, theirs, version = tmp_path / "requirements.txt", tmp_path / "platform.txt", block()["sdk_version"]
    ours.write_text(space_requirements(*extras), encoding="utf-8")
    theirs.write_text("\n".join([f"gradio[oauth,mcp]=={version}", *PLATFORM, *added]), encoding="utf-8")
    where = ("--python-version", block()["python_version"], "--python-platform", "x86_64-manylinux_2_28")
    done = resolved(*where, "--only-binary", ":all:", ours, theirs)
    assert done.returncode == 0, done.stderr
    found = {one.name: str(one.specifier).removeprefix("==") for one in map(Requirement, done.stdout.splitlines())}
    assert found["gradio"] == version
    assert "spaces" in found
    if added:
        assert Requirement(added[0]).specifier.contains(found["torch"])
