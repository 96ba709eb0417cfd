"""The tab of the course: its text, a metric worked out for two small pictures, and where its code differs."""

from typing import Any

import gradio as gr
import numpy as np
import numpy.typing as npt

from imgret.course.steps import WorkedExample, overflowed_norm, small_picture, work_out
from imgret.metrics import METRICS
from imgret.search import SearchError
from imgret.ui.examples import Example
from imgret.ui.handlers import gradio_handler
from imgret.ui.i18n import DEFAULT, WORDS
from imgret.ui.localized import LocalizedComponents
from imgret.ui.pixels_tab import LATEX
from imgret.ui.tab import INTERNAL_EVENT

COLOURS = {"a": "#c2570c", "b": "#1d6fd1", "term": "#15803d"}
"""Of a, b and the terms, in the tables and in the formulas."""


class CourseTab:
    """The text of the course, and below it the choice of two pictures and a metric, with each number of its formula."""

    name = "course"

    def __init__(self, localized: LocalizedComponents, examples: list[Example], language: gr.Radio) -> None:
        self._examples = examples
        with localized(gr.Tab, {"label": lambda words: words.course_tab}, id=self.name, elem_id="course") as course:
            localized(gr.Markdown, {"value": lambda words: words.course_text})
            if not examples:
                return
            localized(gr.Markdown, {"value": lambda words: words.worked_lead})
            with gr.Row():
                first, second = (
                    gr.Dropdown(self._names(DEFAULT), value=number, label=name, elem_id=f"worked-{name}", min_width=140)
                    for number, name in enumerate("ab")
                )
                metric = localized(
                    gr.Radio,
                    {
                        "label": lambda words: words.metric,
                        "choices": lambda words: [(words.metrics[name], name) for name in METRICS],
                    },
                    value="l2",
                    elem_id="worked-metric",
                    min_width=300,
                )
            tables = gr.HTML(elem_id="worked-tables")
            steps = gr.Markdown(latex_delimiters=LATEX, elem_id="worked-steps")
            localized(gr.Markdown, {"value": lambda words: words.remarks}, latex_delimiters=LATEX)
        asked, shown = [language, first, second, metric], [tables, steps]
        show = gradio_handler(self._shown)
        gr.on([first.input, second.input, metric.input], show, asked, shown, **INTERNAL_EVENT)

        def speak(language: str, *chosen: Any) -> list[Any]:
            names = self._names(language)
            return [gr.update(choices=names), gr.update(choices=names), *self._shown(language, *chosen)]

        spoken = [first, second, *shown]
        course.select(gradio_handler(speak), asked, spoken, **INTERNAL_EVENT)
        language.input(gradio_handler(speak), asked, spoken, **INTERNAL_EVENT)

    def _names(self, language: str) -> list[tuple[str, int]]:
        return [(example.caption(language), number) for number, example in enumerate(self._examples)]

    def _shown(self, language: str, first: Any, second: Any, metric: Any) -> list[str]:
        known = dict(enumerate(self._examples))
        if not all(isinstance(number, int) and number in known for number in (first, second)):
            raise SearchError("There is no such example.")
        a, b = (small_picture(known[number].path) for number in (first, second))
        worked, words = work_out(metric, a, b), WORDS[language]
        norm, overflowed = overflowed_norm(a)
        lines = [f"$$ {_coloured(step.formula)} = {_in_latex(step.value)} $$" for step in worked.steps[:-1]]
        last = worked.steps[-1]
        score = f"\\mathbf{{{_in_latex(last.value)}}}"
        lines.append(f"$$ \\text{{{words.worked_score}}} = {_coloured(last.formula)} = {score} $$")
        if metric == "cosine" and overflowed:
            lines.append(words.overflow.format(norm=norm, overflowed=overflowed, score=norm / overflowed))
        return [_tables(worked), "\n\n".join(lines)]


def _in_latex(value: float) -> str:
    return f"{value:,.0f}".replace(",", "{,}") if abs(value) >= 1000 else f"{value:.4g}"


def _coloured(formula: str) -> str:
    """The formula with a and b in the colours of their tables."""
    for name in "ab":
        for part in (f"{name}_i", rf"\bar {name}"):
            formula = formula.replace(part, rf"\textcolor{{{COLOURS[name]}}}{{{part}}}")
    return formula


def _tables(worked: WorkedExample) -> str:
    most = max(float(np.abs(worked.terms).max()), 1e-9)
    term = worked.term.replace(r"\cdot", "·").replace(r"\,", " ").replace(r"\bar a", "ā").replace(r"\bar b", "b̄")
    term = term.replace("_i", "").replace("^2", "²")
    parts = [
        _table("a", COLOURS["a"], worked.a, [[f"rgb({v},{v},{v})" for v in row] for row in worked.a]),
        _table("b", COLOURS["b"], worked.b, [[f"rgb({v},{v},{v})" for v in row] for row in worked.b]),
        _table(term, COLOURS["term"], worked.terms, [[_warm(v / most) for v in row] for row in worked.terms]),
    ]
    return f'<div class="worked">{"".join(parts)}</div>'


def _table(name: str, colour: str, values: npt.NDArray[Any], fills: list[list[str]]) -> str:
    cells = [
        "".join(
            f'<td style="background:{fill}"><span>{value:.0f}</span></td>' for value, fill in zip(*row, strict=True)
        )
        for row in zip(values, fills, strict=True)
    ]
    rows = "".join(f"<tr>{row}</tr>" for row in cells)
    head = f'<figcaption style="background:{colour}">{name}</figcaption>'
    return f'<figure style="border-color:{colour}">{head}<table>{rows}</table></figure>'


def _warm(share: float) -> str:
    """The colour of a term: the stronger, the larger its share of the largest; green adds, red takes away."""
    red, green, blue = (21, 128, 61) if share >= 0 else (185, 28, 28)
    return f"rgba({red},{green},{blue},{abs(share):.2f})"
