"""The command line, one module per command.

Exit code 0; 2 for an error of the user's; 1 for a bug; 130 if stopped by Ctrl-C; 3 for `imgret check` if a function is
wrong.
"""

import argparse
import logging
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import imgret
from imgret.cli import (
    build,
    cache,
    check,
    compare_encoders,
    deploy,
    duplicates,
    encoders,
    evaluate,
    info,
    prepare,
    publish,
    search,
    serve,
)
from imgret.errors import ImgretError
from imgret.vietnamese import translated

COMMANDS = (
    build, search, info, duplicates, evaluate, serve, publish, deploy, encoders, compare_encoders, prepare, check,
    cache,
)  # fmt: skip
"""Each has `add(commands)`, which adds its parser, with the function that runs it as the default of `run`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command, and returns its exit code.

    An `ImgretError`, which a user can cause, becomes one line on standard error and code 2. Any other error is a bug:
    its traceback goes to standard error under a number, and the code is 1.
    """
    options = parser().parse_args(arguments)
    # Libraries log what they then raise, and one line for an error is enough. Without a handler they would add one.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        code = options.run(options)
        sys.stdout.flush()
        return int(code or 0)
    except ImgretError as error:
        sentence = translated(error.sentence, getattr(options, "language", "en"))
        print(f"imgret: {' '.join(sentence.split())}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # the reader, head say, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("imgret: stopped", file=sys.stderr)
        return 130
    except Exception:
        number = uuid4().hex[:12]
        print(f"imgret: bug {number}", traceback.format_exc(), sep="\n", file=sys.stderr)
        print(f"imgret: This could not be answered, number {number}; please report what stands above.", file=sys.stderr)
        return 1


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        self.exit(2, f"{self.prog}: {message}; see {self.prog} --help\n")


def parser() -> argparse.ArgumentParser:
    """The parser of all commands."""
    whole = _Parser(prog="imgret", description="Find the similar pictures of a library.")
    whole.add_argument("--version", action="version", version=f"imgret {imgret.__version__}")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")
    for command in COMMANDS:
        command.add(commands)
    return whole
