"""The result area of a tab: a gallery of hits with scores, explanations, and buttons that save the hits."""

import json
from typing import Any

import gradio as gr
from gradio.blocks import Block

from imgret.metrics import LARGER_IS_CLOSER
from imgret.ui.endpoints import Endpoints
from imgret.ui.explanations import Explain, Explanation
from imgret.ui.i18n import WORDS, Words
from imgret.ui.localized import LocalizedComponents
from imgret.ui.names import hit_name
from imgret.ui.responses import Response
from imgret.vietnamese import translated

PER_CLICK = 10
"""How many further hits a click shows."""
JSON_TEXT = "JSON.stringify(answer, null, 1)"
CSV_TEXT = """(() => {
    const columns = ['rank', 'id', 'label', 'caption', 'score'];
    const cell = (value) => '"' + String(value ?? '').replaceAll('"', '""') + '"';
    const rows = answer.hits.map((hit) => columns.map((column) => cell(hit[column])).join(','));
    return [columns.join(','), ...rows].join('\\r\\n') + '\\r\\n';
  })()"""
ANSWERED = "() => document.dispatchEvent(new Event('answer'))"
SAVED = {"JSON": (JSON_TEXT, "json", "application/json"), "CSV": (CSV_TEXT, "csv", "text/csv")}


class Results:
    """The components of one answer; `outputs` are what a search fills, with `shown` or `cleared`."""

    def __init__(self, localized: LocalizedComponents, prefix: str, marks: str) -> None:
        """`marks`: "likable" for hits that can be given a heart, and "dislikable", too, for a cross."""
        first_line(localized)
        self._status = gr.Markdown("", elem_classes="status")
        self.hits = hits_gallery(f"{prefix}-hits", *marks.split())
        self.more = localized(
            gr.Button,
            {"value": lambda words: words.more.format(count=PER_CLICK)},
            size="sm",
            elem_id=f"{prefix}-more",
            visible=False,
        )
        self._answer = gr.Textbox("", visible="hidden", elem_id=f"{prefix}-answer")  # as JSON
        self._answer.change(None, js=ANSWERED, api_visibility="private")
        self._explanation = Explanation(localized, f"{prefix}-why")
        localized(gr.Markdown, {"value": lambda words: words.matches_meaning}, elem_classes="small")
        with gr.Row(elem_classes="save"):
            localized(gr.Markdown, {"value": lambda words: words.go_on}, elem_classes="small")
            for kind, (text, ending, media) in SAVED.items():

                def says(words: Words, kind: str = kind) -> str:
                    return f"{words.save} {kind}"

                button = localized(gr.Button, {"value": says}, size="sm", min_width=110, scale=0)
                button.click(None, self._answer, js=_saving(text, ending, media), api_visibility="private")
        self.outputs: list[Block] = [self._status, self.hits, self.more, self._answer, *self._explanation.outputs]

    def shown(self, response: Response, language: str, status: str, *, more: bool) -> list[Any]:
        """The values of `outputs` for an answer, of which `status` is a line; `more`: whether more can be asked for."""
        notice = translated(response.notice, language) if response.notice else ""
        status = " ".join(part for part in (status, _matches(response, language)) if part)
        hits, answer = captioned(response, language), json.dumps(response.as_dict(with_images=False))
        offered = gr.update(visible=more)
        return [f"{status} {notice}", hits, offered, answer, *self._explanation.cleared(len(response.hits))]

    def cleared(self) -> list[Any]:
        """The values of `outputs` before a search."""
        return ["", [], gr.update(visible=False), "", *self._explanation.cleared(0)]

    def wire(
        self, endpoints: Endpoints, explain: Explain, language: Block, query: list[Block], form: list[Block]
    ) -> None:
        """Connects the explanation of a hit to `explain`."""
        self._explanation.wire(endpoints, explain, language, self._answer, query, form)


def _matches(response: Response, language: str) -> str:
    """A sentence about where the matches end, if that is known."""
    words, count = WORDS[language], response.matches
    if count is None or not response.hits:
        return ""
    if count == 0:
        return f"· {words.no_matches}"
    return f"· {words.matches.format(count=count)}" if count < len(response.hits) else f"· {words.all_match}"


def first_line(localized: LocalizedComponents) -> None:
    """The hint above empty galleries; page.css hides it once there are hits."""
    localized(gr.Markdown, {"value": lambda words: words.first}, elem_classes="first")


def hits_gallery(elem_id: str, *classes: str) -> gr.Gallery:
    """An empty gallery of clickable pictures."""
    return gr.Gallery(
        show_label=False,
        elem_id=elem_id,
        elem_classes=["hits", *classes],
        height="auto",
        object_fit="contain",
        interactive=False,
        allow_preview=False,
        buttons=[],
    )


def captioned(response: Response, language: str, marks: dict[str, str] | None = None) -> list[tuple[str, str]]:
    """The hits of an answer as a gallery's pictures with captions; `marks` stand before the names of hits, by id."""
    marks = marks or {}
    texts = (
        f"{hit.rank}. {_score(response.method, hit.score)} · {marks.get(hit.id, '')}{hit_name(hit, language)}"
        for hit in response.hits
    )
    return list(zip(map(str, response.images), texts, strict=True))


def _score(method: str, score: float) -> str:
    """In the digits of its scale."""
    return f"{score:.4f}" if method in LARGER_IS_CLOSER or method.startswith("clip") else f"{score:,.0f}"


def _saving(text: str, ending: str, media: str) -> str:
    """A script that saves `text`, an expression over an answer, as a file."""
    return f"""(given) => {{
  const answer = JSON.parse(given);
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([{text}], {{type: '{media}'}}));
  link.download = 'imgret-' + answer.method + '.{ending}';
  link.click();
  URL.revokeObjectURL(link.href);
}}"""
