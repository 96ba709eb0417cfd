"""The tab for the four basic metrics."""

from pathlib import Path
from typing import Any

import gradio as gr

from imgret.metrics import LARGER_IS_CLOSER, METRICS
from imgret.search import SearchError
from imgret.ui.endpoints import Endpoints, told

FORMULAS = {
    "l1": r"$$L_1(\vec a, \vec b) = \sum_{i=1}^{N} \left| a_i - b_i \right|$$",
    "l2": r"$$L_2(\vec a, \vec b) = \sqrt{\sum_{i=1}^{N} (a_i - b_i)^2}$$",
    "cosine": r"$$\cos(\vec a, \vec b) = \frac{\sum a_i b_i}{\sqrt{\sum a_i^2} \sqrt{\sum b_i^2}}$$",
    "correlation": r"$$r = \frac{\sum (a_i - \mu_a)(b_i - \mu_b)}{\sqrt{\sum (a_i - \mu_a)^2 \sum (b_i - \mu_b)^2}}$$",
}
LATEX: list[dict[str, str | bool]] = [{"left": "$$", "right": "$$", "display": True}]


def build(endpoints: Endpoints, examples: gr.Gallery, paths: list[Path]) -> None:
    """Adds the tab's components and events; a click on one of `examples`, which shows `paths`, searches."""
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            query = gr.Image(
                label="Query",
                type="filepath",
                sources=["upload", "clipboard", "webcam"],
                height=280,
                elem_id="pixel-query",
            )
            metric = gr.Radio(list(METRICS), value="l2", label="Metric", elem_id="pixel-metric")
            formula = gr.Markdown(_formula("l2"), latex_delimiters=LATEX)
            k = gr.Slider(1, 50, value=10, step=1, label="k, how many pictures")
        with gr.Column(scale=5, min_width=320):
            status = gr.Markdown("")
            hits = gr.Gallery(
                show_label=False,
                elem_id="pixel-hits",
                height="auto",
                object_fit="contain",
                interactive=False,
            )

    def search(image: Any, metric: str, k: Any) -> tuple[Any, str]:
        if image is None:
            return [], ""
        answer = endpoints.search_pixels(image, metric, k)
        return shown(answer), _status(answer)

    def search_example(metric: str, k: Any, chosen: gr.SelectData) -> tuple[Any, Any, str]:
        path = example_path(paths, chosen)
        return str(path), *search({"path": str(path)}, metric, k)

    # Without preprocessing the picture arrives as the file it is, undecoded: images.py alone decodes what strangers
    # send.
    gr.on(
        [query.input, metric.input, k.release],
        told(search),
        [query, metric, k],
        [hits, status],
        preprocess=False,
        api_visibility="private",
    )
    examples.select(
        told(search_example), [metric, k], [query, hits, status], preprocess=False, api_visibility="private"
    )
    metric.change(_formula, metric, formula, api_visibility="private")


def shown(answer: dict[str, Any]) -> list[tuple[str, str]]:
    """The hits of an answer as a gallery's pictures with captions."""
    return [
        (hit["image"]["path"], f"{hit['rank']}. {_score(hit['score'])} · {hit['label'] or hit['id']}")
        for hit in answer["hits"]
    ]


def example_path(paths: list[Path], chosen: gr.SelectData) -> Path:
    """The file behind a click in the example gallery. Raises SearchError."""
    if not isinstance(chosen.index, int) or not 0 <= chosen.index < len(paths):
        raise SearchError("There is no such example.")
    return paths[chosen.index]


def _formula(metric: str) -> str:
    direction = "Larger is closer." if metric in LARGER_IS_CLOSER else "Smaller is closer."
    return f"{FORMULAS[metric]}\n\n{direction}" if metric in FORMULAS else ""


def _status(answer: dict[str, Any]) -> str:
    found = f"{len(answer['hits'])} pictures by {answer['method']} in {answer['elapsed_ms']:.1f} ms."
    return f"{found} {answer['notice'] or ''}"


def _score(score: float) -> str:
    return f"{score:,.0f}" if abs(score) > 10 else f"{score:.4f}"
