"""`imgret check`: checks the metrics that a student wrote, and shows the smallest example that goes wrong."""

import argparse
import json
import sys

from imgret.cli.shared import Commands

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

    if sys.platform != "linux":
        print("note: the memory that a function takes is limited on Linux only", file=sys.stderr)
    verdicts = check_file(options.file)
    if options.json:
        answers = {verdict.function: verdict.as_dict(options.language) for verdict in verdicts}
        print(json.dumps(answers, ensure_ascii=False))
    else:
        for verdict in verdicts:
            print(verdict.text(options.language))
    checked = {verdict.function for verdict in verdicts}
    if missing := [name for name in FUNCTIONS if name not in checked]:
        print(f"note: not in the file: {', '.join(missing)}", file=sys.stderr)
    return CODE_IF_WRONG if any(verdict.verdict == WRONG for verdict in verdicts) else 0
