"""What is installed here is what requirements.txt pins and requirements.lock has hashes of."""

import re
from importlib.metadata import version

from packaging.requirements import Requirement

from tests.conftest import ROOT


def test_every_requirement_is_pinned_locked_with_hashes_and_installed_as_locked():
    lock = (ROOT / "requirements.lock").read_text().replace("\\\n", " ")
    entries = [line for line in lock.splitlines() if line and not line.startswith("#")]
    assert all(re.search(r"--hash=sha256:[0-9a-f]{64}", entry) for entry in entries)
    locked = [Requirement(entry.partition("--hash")[0]) for entry in entries]
    here = {entry.name: str(entry.specifier) for entry in locked if entry.marker is None or entry.marker.evaluate()}
    wanted = [Requirement(line) for line in (ROOT / "requirements.txt").read_text().splitlines() if line[0] != "#"]
    assert {entry.name: str(entry.specifier) for entry in wanted}.items() <= here.items()
    assert {name: f"=={version(name)}" for name in here} == here
