"""The tab for CLIP search: by picture, by text, by both, minus a text, among some labels."""

from pathlib import Path
from typing import Any

import gradio as gr

from imgret.ui.endpoints import Endpoints, told
from imgret.ui.pixels_tab import example_path, shown


def build(endpoints: Endpoints, examples: gr.Gallery, paths: list[Path]) -> gr.Dropdown:
    """Adds the tab's components and events; the returned choice of labels is filled once the library is known."""
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            query = gr.Image(
                label="Query picture",
                type="filepath",
                sources=["upload", "clipboard", "webcam"],
                height=280,
                elem_id="clip-query",
            )
            text = gr.Textbox(label="Text", placeholder="a red flower", elem_id="clip-text")
            negative = gr.Textbox(label="But not", placeholder="a tree")
            weight = gr.Slider(0, 1, value=0.5, step=0.05, label="Weight of the text, where a picture is given too")
            labels = gr.Dropdown([], multiselect=True, label="Only these labels")
            k = gr.Slider(1, 50, value=10, step=1, label="k, how many pictures")
            button = gr.Button("Search", variant="primary", elem_id="clip-search")
        with gr.Column(scale=5, min_width=320):
            status = gr.Markdown("")
            hits = gr.Gallery(
                show_label=False,
                elem_id="clip-hits",
                height="auto",
                object_fit="contain",
                interactive=False,
            )

    def search(image: Any, text: Any, negative: Any, weight: Any, labels: Any, k: Any) -> tuple[Any, str]:
        # An empty field of the form means "not given"; a program that sends an empty text is told so instead.
        answer = endpoints.search_clip(image, text or None, negative or None, weight, labels or None, k)
        return shown(
            answer
        ), f"{len(answer['hits'])} pictures in {answer['elapsed_ms']:.0f} ms. {answer['notice'] or ''}"

    def search_example(k: Any, chosen: gr.SelectData) -> tuple[Any, Any, Any, Any, str]:
        path = example_path(paths, chosen)
        return str(path), "", "", *search({"path": str(path)}, None, None, 0.5, None, k)

    form = [query, text, negative, weight, labels, k]
    gr.on(
        [button.click, text.submit, negative.submit],
        told(search),
        form,
        [hits, status],
        preprocess=False,
        api_visibility="private",
    )
    examples.select(
        told(search_example), [k], [query, text, negative, hits, status], preprocess=False, api_visibility="private"
    )
    return labels
