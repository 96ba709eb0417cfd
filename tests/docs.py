"""The pages of the documentation, and the commands in them with what these print.

    python -m tests.docs        writes the output below each command of the pages anew

A block marked `console` has commands after `$ `, each with its output. They run in a folder that has `examples` and,
as `index`, the index of `examples/library`.
"""

import math
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
NUMBER = re.compile(r"-?\d+\.\d+")
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)\n? *```$", re.S | re.M)


def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page: language and text, in their order."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(block: str) -> list[tuple[str, str]]:
    """The commands of a `console` block, each with its output."""
    parts = re.split(r"^\$ (.*)\n?", block, flags=re.M)[1:]
    return [(command, output.rstrip("\n")) for command, output in zip(parts[::2], parts[1::2], strict=True)]


def is_same(printed: str, shown: str) -> bool:
    """Whether two outputs are alike but for the last digits of scores, which differ from one processor to another."""
    numbers = zip(map(float, NUMBER.findall(printed)), map(float, NUMBER.findall(shown)), strict=False)
    alike = NUMBER.sub("#", printed) == NUMBER.sub("#", shown)
    return alike and all(math.isclose(one, other, rel_tol=1e-3, abs_tol=2e-3) for one, other in numbers)


def make_folder(folder: Path, index: Path) -> Path:
    """A folder in which the commands of the pages run."""
    folder.mkdir(exist_ok=True)
    try:
        (folder / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
    except OSError:  # Windows, without the right to make links
        shutil.copytree(ROOT / "examples", folder / "examples")
    shutil.copytree(index, folder / "index")
    return folder


def run(arguments: list[str], folder: Path, cache: Path) -> str:
    """What Python prints in such a folder, without the line break at its end."""
    environment = os.environ | {"IMGRET_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    if done.returncode:
        raise RuntimeError(f"{shlex.join(arguments)} ended with {done.returncode}: {done.stderr}")
    return done.stdout.rstrip("\n")


def output_of(command: str, folder: Path, cache: Path) -> str:
    """What an `imgret` command prints in such a folder."""
    program, *arguments = shlex.split(command)
    if program != "imgret":
        raise ValueError(f"{command!r} is no command of imgret; only those are run")
    return run(["-m", "imgret", *arguments], folder, cache)


def write_outputs(page: Path, folder: Path, cache: Path) -> None:
    """Writes what the commands of a page print in such a folder below each of them."""

    def anew(match: re.Match[str]) -> str:
        language, block = match.groups()
        if language != "console":
            return match[0]
        lines = ["```console"]
        for command, shown in commands(block):
            printed = output_of(command, folder, cache)
            lines += [f"$ {command}", shown if is_same(printed, shown) else printed]
        return "\n".join([*lines, "```"])

    page.write_text(BLOCK.sub(anew, page.read_text(encoding="utf-8")), encoding="utf-8")


def main() -> None:
    """Builds the index of `examples/library` and writes the outputs of all pages anew."""
    with tempfile.TemporaryDirectory() as temp:
        work, cache = Path(temp), Path(temp) / "cache"
        run(["-m", "imgret", "build", str(ROOT / "examples" / "library"), "--out", "built"], work, cache)
        folder = make_folder(work / "pages", work / "built")
        for page in PAGES:
            write_outputs(page, folder, cache)


if __name__ == "__main__":
    main()
