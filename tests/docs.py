"""The pages of the documentation, and the commands in them with what these print.

    python -m tests.docs        writes the output below each command of the pages anew

A block marked `console` has commands after `$ `, each with its output. They run in a folder that has `examples` and,
as `index`, the index of `examples/library`.
"""

import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), ROOT / "benchmarks" / "scale.md"])
BLOCK = re.compile(r"^ *```(\w*)\n(.*?)\n? *```$", re.S | re.M)


def blocks(page: Path) -> list[tuple[str, str]]:
    """The fenced blocks of a page: language and text, in their order."""
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def commands(block: str) -> list[tuple[str, str]]:
    """The commands of a `console` block, each with its output."""
    parts = re.split(r"^\$ (.*)\n?", block, flags=re.M)[1:]
    return [(command, output.rstrip("\n")) for command, output in zip(parts[::2], parts[1::2], strict=True)]


def make_folder(folder: Path, index: Path) -> Path:
    """A folder in which the commands of the pages run."""
    folder.mkdir(exist_ok=True)
    (folder / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
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


def main() -> None:
    """Builds the index of `examples/library` and writes the output of each command into its page."""
    with tempfile.TemporaryDirectory() as temp:
        work, cache = Path(temp), Path(temp) / "cache"
        (work / "examples").symlink_to(ROOT / "examples", target_is_directory=True)
        output_of("imgret build examples/library --out built", work, cache)
        folder = make_folder(work / "pages", work / "built")
        printed: dict[str, str] = {}
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            for language, block in blocks(page):
                if language != "console":
                    continue
                for command, _ in commands(block):
                    if command not in printed:
                        printed[command] = output_of(command, folder, cache)
                anew = "\n".join(f"$ {command}\n{printed[command]}" for command, _ in commands(block))
                text = text.replace(f"```console\n{block}\n```", f"```console\n{anew}\n```")
            page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
