"""An installed package is the whole demo: its wheel carries the pictures, and needs no checkout."""

import json
import os
import subprocess
import sys
import zipfile

import pytest

from tests.conftest import LIBRARY, QUERIES, ROOT

LOOK = """
import json
from imgret.library import ImageLibrary
from imgret.settings import Settings
from imgret.ui.examples import read_examples

library = ImageLibrary.load(Settings().library)
print(json.dumps([library.source, library.revision, len(read_examples()), sum(1 for _ in library.entries())]))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder as `pip install` makes it of the wheel, far from the checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT]
    built = subprocess.run(command, capture_output=True, text=True)
    if built.returncode and "hatchling" in built.stderr:
        pytest.skip("there is no package index here, and a wheel needs hatchling")
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def run(installed, *arguments):
    command = [sys.executable, *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(installed)}
    return subprocess.run(command, cwd=installed.parent, env=environment, capture_output=True, text=True, check=True)


def test_the_wheel_has_the_demo_s_pictures_and_no_other_top_level(installed):
    tops = sorted(path.name for path in installed.iterdir())
    assert [name for name in tops if not name.endswith(".dist-info")] == ["imgret"]
    assert (installed / "imgret" / "py.typed").is_file()
    found = {path.relative_to(installed / "imgret" / "examples") for path in (installed / "imgret").rglob("*.webp")}
    assert found == {
        path.relative_to(ROOT / "examples") for folder in (LIBRARY, QUERIES) for path in folder.rglob("*.webp")
    }


def test_an_installed_package_reads_its_own_examples(installed):
    source, revision, queries, pictures = json.loads(run(installed, "-c", LOOK).stdout.splitlines()[-1])
    assert source == str(installed / "imgret" / "examples" / "library")
    assert (queries, pictures) == (16, 545)
    here = json.loads(run(ROOT, "-c", LOOK).stdout.splitlines()[-1])
    assert here[0] == str(LIBRARY)
    assert here[1] == revision  # so that an index made by one is taken by the other
