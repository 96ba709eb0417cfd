"""The notebooks run from top to bottom, on the embedded library and on a folder in the course's layout."""

import re
import shutil

import nbformat
import pytest
from nbclient import NotebookClient
from PIL import Image

from tests.conftest import QUERIES, ROOT

NOTEBOOKS = sorted((ROOT / "examples" / "notebooks").glob("*.ipynb"))


def read(path):
    return nbformat.read(path, as_version=4)


def code_of(path):
    return [cell.source for cell in read(path).cells if cell.cell_type == "code"]


@pytest.fixture
def execute(cache, monkeypatch, tmp_path):
    """Runs a notebook in a folder of its own; gives what its cells printed, and the number of its plots."""
    monkeypatch.setenv("IMGRET_CACHE", str(cache))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def run(path):
        notebook = read(path)
        NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(tmp_path)}}).execute()
        outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
        printed = "".join(output.text for output in outputs if output.get("name") == "stdout")
        return printed, sum("image/png" in output.get("data", {}) for output in outputs)

    return run


VIETNAMESE, ENGLISH = NOTEBOOKS[::-1]
"""Both have the same code, as a test below says, so each runs on one library."""


def test_a_notebook_runs_on_the_embedded_library(execute, tmp_path):
    printed, plots = execute(VIETNAMESE)
    assert plots == 7  # four metrics, embeddings, two collections
    assert len([*(tmp_path / "data" / "train").iterdir()]) == 12
    overflown, right = (float(re.search(rf"^{kind} (.*)$", printed, re.M)[1]) for kind in ("uint8", "float"))
    assert overflown > 2  # no cosine
    assert right == pytest.approx(1)


def test_a_notebook_runs_on_a_folder_in_the_layout_of_the_course(execute, tmp_path, small_library):
    for folder in small_library.iterdir():
        train = shutil.copytree(folder, tmp_path / "data" / "train" / folder.name)
        test = tmp_path / "data" / "test" / folder.name
        test.mkdir(parents=True)
        shutil.move(sorted(train.iterdir())[0], test)
    Image.open(QUERIES / "dog.webp").resize((40, 40)).save(tmp_path / "data" / "train" / "birds" / "tiny.png")
    twin = next((tmp_path / "data" / "train" / "fruit").iterdir())
    shutil.copy(twin, twin.with_name("twin.webp"))
    (tmp_path / "data" / "train" / "birds" / "Thumbs.db").write_bytes(b"no picture")
    printed, plots = execute(ENGLISH)
    assert plots == 7
    assert re.search(r"^4 38 4 data.test.birds", printed, re.M)
    assert re.search(r"tiny\.png'\]$", printed, re.M)  # too small
    assert re.search(r"^38 \[.*fruit/twin\.webp", printed, re.M)  # a duplicate


def test_both_notebooks_run_the_same_code_and_are_stored_without_outputs():
    assert (ENGLISH.name, VIETNAMESE.name) == ("imgret.en.ipynb", "imgret.vi.ipynb")
    assert code_of(VIETNAMESE) == code_of(ENGLISH)
    for path in NOTEBOOKS:
        cells = read(path).cells
        assert all(not cell.outputs and cell.execution_count is None for cell in cells if cell.cell_type == "code")
    said = [[cell.source for cell in read(path).cells if cell.cell_type == "markdown"] for path in NOTEBOOKS]
    assert len(said[0]) == len(said[1]) > 10
