"""Every template of a sentence for users that the source has: of the errors, and of the notices.

python -m tests.sentences lists those without a Vietnamese translation.
"""

import ast
from pathlib import Path
from string import Formatter

from imgret.vietnamese import VIETNAMESE

ROOT = Path(__file__).parent.parent


def fields(template: str) -> set[str]:
    """The names of the fields of a template."""
    return {name for _, name, _, _ in Formatter().parse(template) if name}


def error_classes() -> set[str]:
    """The names of ImgretError and of all classes below it in the source."""
    below = {"ImgretError"}
    while True:
        more = {
            node.name
            for tree in trees().values()
            for node in ast.walk(tree)
            if isinstance(node, ast.ClassDef) and any(ast.unparse(base).split(".")[-1] in below for base in node.bases)
        }
        if more <= below:
            return below
        below |= more


def trees() -> dict[Path, ast.Module]:
    """The source of the program, parsed."""
    return {path: ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "imgret").rglob("*.py"))}


def made_sentences() -> list[tuple[str, ast.Call]]:
    """Each call that makes an error or a sentence, and where."""
    makers = error_classes() | {"Sentence", "_unlike", "__init__"}  # an error class gives its own to super().__init__
    return [
        (f"{path.relative_to(ROOT)}:{node.lineno}", node)
        for path, tree in trees().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in makers
    ]


def template_of(call: ast.Call) -> ast.expr | None:
    """The template that a call gives: its first argument, of an EncoderError the second."""
    at = 1 if ast.unparse(call.func).split(".")[-1] == "EncoderError" else 0
    return call.args[at] if len(call.args) > at else None


def templates() -> dict[str, str]:
    """All templates that are written out where they are used, and where that is."""
    found = ((where, template_of(call)) for where, call in made_sentences())
    return {node.value: where for where, node in found if isinstance(node, ast.Constant) and node.value}


if __name__ == "__main__":
    for template, where in templates().items():
        if template not in VIETNAMESE:
            print(f"{where}\n    {template}")
