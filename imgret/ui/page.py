"""The page: an example gallery, a tab for the basic metrics, a tab for CLIP search, and the endpoints behind them."""

from pathlib import Path
from typing import Any

import gradio as gr

from imgret.settings import Settings
from imgret.start import Ready, Start
from imgret.ui import clip_tab, pixels_tab
from imgret.ui.answers import Thumbnails
from imgret.ui.endpoints import Endpoints, told
from imgret.ui.examples import QUERIES, read_examples

STYLE = Path(__file__).with_name("page.css")
FONT = ("system-ui", "sans-serif")
CACHE_HOURS = 1


def build_page(start: Start, settings: Settings) -> gr.Blocks:
    """The demo as Gradio Blocks, over whatever `start` makes ready."""
    thumbnails = Thumbnails(settings.cache)
    gr.set_static_paths([QUERIES])
    endpoints = Endpoints(start, thumbnails, (thumbnails.folder, QUERIES), settings.max_upload_mb * 2**20)
    examples = read_examples()
    seconds = CACHE_HOURS * 3600
    with gr.Blocks(
        title="imgret: image retrieval with basic maths", analytics_enabled=False, delete_cache=(seconds, seconds)
    ) as demo:
        gr.Markdown(
            "# Image retrieval with basic maths\n"
            "Give a picture, or for CLIP a text, and see the most similar pictures of the library."
        )
        about = gr.Markdown("The library is being made ready …", elem_id="about")
        gr.Markdown("One click on an example searches:")
        gallery = gr.Gallery(
            [(str(example.path), example.captions["en"]) for example in examples],
            show_label=False,
            elem_id="example-gallery",
            height="auto",
            buttons=[],
            allow_preview=False,
            interactive=False,
        )
        paths = [example.path for example in examples]
        with gr.Tab("Basic metrics"):
            pixels_tab.build(endpoints, gallery, paths)
        with gr.Tab("CLIP search"):
            labels = clip_tab.build(endpoints, gallery, paths)
        endpoints.publish()

        def describe(progress: gr.Progress = gr.Progress()) -> tuple[str, Any]:  # noqa: B008
            def show(stage: str, done: int, total: int | None) -> None:
                progress((done, total) if total else done, desc=f"Making the library ready: {stage}", unit=stage)

            ready = start.wait(show)
            return _about(ready), gr.update(choices=list(ready.retriever.index.manifest.labels))

        demo.load(told(describe), outputs=[about, labels], api_visibility="private")
    demo.queue(default_concurrency_limit=4)
    return demo


def launch(demo: gr.Blocks, settings: Settings, *, port: int | None = None, **options: Any) -> Any:
    """Serves the page; host and port are Gradio's own variables where not given."""
    theme = gr.themes.Soft(font=FONT, font_mono=("ui-monospace", "monospace"))
    return demo.launch(
        css_paths=STYLE,
        server_port=port,
        max_file_size=settings.max_upload_mb * 2**20,
        ssr_mode=False,
        theme=theme,
        **options,
    )


def _about(ready: Ready) -> str:
    manifest = ready.retriever.index.manifest
    recall = manifest.recall
    languages = ", ".join(manifest.encoder.languages)
    lines = [
        f"**{manifest.count}** pictures from `{manifest.library.name}` · "
        f"encoder `{manifest.encoder.uri}` (reads: {languages}) · "
        f"the vector index finds {recall.recall:.2%} of the true {recall.k} nearest (ef_search {recall.ef_search})"
    ]
    return "\n\n".join([*lines, *([f"⚠️ {ready.notice}"] if ready.notice else [])])
