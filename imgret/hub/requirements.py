"""The requirements of a Space, from pyproject.toml and the versions in requirements.lock.

A Space installs `requirements.txt` before it has any other file of the project, and adds packages of its own to the
same command. So the list names what the project imports, at the versions that were tested, and leaves the rest to the
resolver.

    python -m imgret.hub.requirements > requirements.txt
"""

import re
import tomllib
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent.parent
OPEN = {"torch", "torchvision"}
"""Packages that keep their range: ZeroGPU asks for a torch of its own, and a torchvision belongs to each torch."""

WHOLE = "What a Space without an index installs: it builds one."
SHORT = "What a Space with an index installs: no torch."


def space_requirements(*extras: str, root: Path = ROOT) -> str:
    """The text of a Space's requirements.txt: the project's dependencies, and those of its `extras`, one a line.

    Without extras the list is enough to serve an index; with "build" also to make one. Each package has the version of
    requirements.lock, except those in `OPEN`. `root` is a checkout of the project.
    """
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = dict(re.findall(r"^([\w.-]+)==(\S+)", (root / "requirements.lock").read_text(encoding="utf-8"), re.M))
    lines = project["dependencies"] + [line for extra in extras for line in project["optional-dependencies"][extra]]
    wanted = sorted((Requirement(line) for line in lines), key=lambda wanted: wanted.name)
    pinned = [str(one) if one.name in OPEN else f"{one.name}=={locked[one.name]}" for one in wanted]
    head = f"# {WHOLE if extras else SHORT} Made by imgret/hub/requirements.py."
    return "\n".join([head, *pinned, ""])


if __name__ == "__main__":
    print(space_requirements("build"), end="")
