"""`imgret check`: checks the metrics that a student wrote, and shows the smallest example that goes wrong."""

import argparse
import json
import sys

from imgret.cli.shared import Commands
from imgret.errors import Sentence
from imgret.vietnamese import translated

CODE_IF_WRONG = 3
"""The exit code where a function is wrong."""


def add(commands: Commands) -> None:
    command = commands.add_parser("check", help="check your own metrics, and see the smallest example that goes wrong")
    command.set_defaults(run=run)
    command.add_argument("file", metavar="FILE", help="a Python file with one or more of the course's four functions")
    command.add_argument("--language", choices=["en", "vi"], default="en", help="en by default")
    command.add_argument("--json", action="store_true", help="print {function: {verdict, example, sentence}}")


def run(options: argparse.Namespace) -> int:
    from imgret.course.check import FUNCTIONS, WRONG, check_file

    def note(sentence: Sentence) -> None:
        print(translated(sentence, options.language), file=sys.stderr)

    if sys.platform != "linux":
        note(Sentence("note: the memory that a function takes is limited on Linux only"))
    verdicts = check_file(options.file)
    if options.json:
        answers = {verdict.function: verdict.as_dict(options.language) for verdict in verdicts}
        print(json.dumps(answers, ensure_ascii=False))
    else:
        for verdict in verdicts:
            print(verdict.text(options.language))
    checked = {verdict.function for verdict in verdicts}
    if missing := [name for name in FUNCTIONS if name not in checked]:
        note(Sentence("note: not in the file: {functions}", functions=", ".join(missing)))
    return CODE_IF_WRONG if any(verdict.verdict == WRONG for verdict in verdicts) else 0
