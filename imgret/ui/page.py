"""The page: an example gallery over the tabs, and how a click anywhere becomes a search."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import gradio as gr

from imgret.search import SearchError
from imgret.settings import Settings
from imgret.start import Ready, Start
from imgret.ui.answers import Thumbnails
from imgret.ui.clip_tab import ClipTab
from imgret.ui.code_tab import CodeTab
from imgret.ui.compare_tab import CompareTab
from imgret.ui.endpoints import Endpoints, told
from imgret.ui.examples import QUERIES, Example, read_examples
from imgret.ui.library_tab import LibraryTab
from imgret.ui.pixels_tab import PixelsTab
from imgret.ui.spoken import Spoken
from imgret.ui.tab import Tab
from imgret.ui.texts import DEFAULT, LANGUAGES, WORDS, chosen_language, translated
from imgret.ui.tools import AVAILABLE, Tools

STYLE = Path(__file__).with_name("page.css")
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
CACHE_HOURS = 1
SECONDS_BETWEEN_STAGES = 3

# Without preprocessing a picture arrives as the file it is, undecoded: images.py alone decodes what strangers send.
QUIETLY: dict[str, Any] = {"preprocess": False, "show_progress": "hidden", "api_visibility": "private"}

TO_ADDRESS = """(query) => {
  const url = new URL(window.location);
  const kept = new Set(['__theme', 'lang']);
  for (const name of [...url.searchParams.keys()]) if (!kept.has(name)) url.searchParams.delete(name);
  for (const [name, value] of new URLSearchParams(query)) url.searchParams.set(name, value);
  window.history.replaceState(null, '', url);
}"""
LANGUAGE_TO_ADDRESS = """(language) => {
  const url = new URL(window.location);
  url.searchParams.set('lang', language);
  window.history.replaceState(null, '', url);
  document.documentElement.lang = language;
}"""


def build_page(start: Start, settings: Settings) -> gr.Blocks:
    """The demo as Gradio Blocks, over whatever `start` makes ready."""
    thumbnails = Thumbnails(settings.cache)
    gr.set_static_paths([QUERIES])
    endpoints = Endpoints(start, thumbnails, (thumbnails.folder, QUERIES), settings.max_upload_mb * 2**20)
    seconds = CACHE_HOURS * 3600
    spoken = Spoken()
    with gr.Blocks(
        title="imgret: image retrieval with basic maths", analytics_enabled=False, delete_cache=(seconds, seconds)
    ) as demo:
        with gr.Row(elem_id="top"):
            spoken(gr.Markdown, {"value": lambda words: f"# {words.title}\n{words.lead}"})
            language = gr.Radio(
                [(name, code) for code, name in LANGUAGES.items()],
                value=DEFAULT,
                show_label=False,
                label="Language",
                container=False,
                scale=0,
                min_width=230,
                elem_id="language",
            )
        about = gr.Markdown(WORDS[DEFAULT].wait, elem_id="about")
        spoken(gr.Markdown, {"value": lambda words: words.examples}, elem_classes="small")
        examples = read_examples()
        gallery = gr.Gallery(
            [(str(example.path), example.captions[DEFAULT]) for example in examples],
            show_label=False,
            elem_id="example-gallery",
            height="auto",
            buttons=[],
            allow_preview=False,
            interactive=False,
        )
        latest = gr.Textbox("", visible="hidden")
        with gr.Tabs() as choice:
            pixels, clip = PixelsTab(endpoints, spoken, language), ClipTab(endpoints, spoken, language)
            compare = CompareTab(endpoints, spoken)
            library = LibraryTab(endpoints, spoken, language, latest)
            CodeTab(spoken)
        with spoken(gr.Accordion, {"label": lambda words: words.course}, open=False):
            spoken(gr.Markdown, {"value": lambda words: words.course_text})
        spoken(gr.Markdown, {"value": lambda words: words.privacy}, elem_classes="small")
        timer = gr.Timer(SECONDS_BETWEEN_STAGES, active=False)
        endpoints.publish()
        Tools(endpoints).publish()
        page = _Page(endpoints, [pixels, clip, compare], examples, language, latest)
        page.wire(gallery, choice, library)

        def describe(language: str, progress: gr.Progress = gr.Progress()) -> list[Any]:  # noqa: B008
            def show(stage: str, done: int, total: int | None) -> None:
                words = WORDS[language]
                progress((done, total) if total else done, desc=words.stage.format(stage=stage), unit=stage)

            ready = start.wait(show)
            words, manifest = WORDS[language], ready.retriever.index.manifest
            small = words.starter if manifest.encoder.uri == "starter" else ""
            labels = gr.update(choices=list(manifest.labels))
            return [_about(ready, start, language), gr.Timer(active=not start.done), small, labels]

        def speak(language: str) -> list[Any]:
            named = [(str(example.path), example.captions[language]) for example in examples]
            return [named, *spoken.updates(language)]

        def greet(request: gr.Request) -> list[Any]:
            code = chosen_language(request)
            return [code, *speak(code)]

        described = [about, timer, clip.starter, clip.labels]
        private: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        demo.load(greet, None, [language, gallery, *spoken.components], **private).then(
            None, language, js="(language) => { document.documentElement.lang = language; }", api_visibility="private"
        ).then(told(describe), language, described, api_visibility="private").then(
            told(page.follow), [language, *page.fields], [choice, *page.everything], **QUIETLY
        )
        language.input(speak, language, [gallery, *spoken.components], **private).then(
            told(describe), language, described, **private
        ).then(told(page.again), [language, *page.fields], page.answers, **QUIETLY)
        timer.tick(told(describe), language, described, **private)
        language.input(None, language, js=LANGUAGE_TO_ADDRESS, api_visibility="private")
    demo.queue(default_concurrency_limit=4)
    return demo


class _Page:
    """The tabs together: the picture that was searched for last goes with the visitor from one to the next."""

    def __init__(
        self,
        endpoints: Endpoints,
        tabs: Sequence[Tab],
        examples: Sequence[Example],
        language: gr.Radio,
        latest: gr.Textbox,
    ) -> None:
        self._endpoints, self._tabs, self._examples, self._language = endpoints, tabs, examples, language
        self._active = gr.Textbox(tabs[0].name, visible="hidden")
        self._latest = latest
        self._address = gr.Textbox("", visible="hidden")
        self.fields = [field for tab in tabs for field in (tab.picture, *tab.form)]
        self.answers = [output for tab in tabs for output in tab.outputs]
        self.everything = [
            self._latest,
            self._address,
            *(part for tab in tabs for part in (tab.picture, *tab.form, *tab.outputs)),
        ]

    def wire(self, gallery: gr.Gallery, choice: gr.Tabs, library: LibraryTab) -> None:
        """Adds the events of the tabs, of the example `gallery`, and of the library's pictures."""
        gallery.select(told(self._pick), [self._language, self._active, *self.fields], self.everything, **QUIETLY)
        library.pictures.select(
            told(self._pick_from_library),
            [self._language, library.pictures, *self.fields],
            [choice, self._active, *self.everything],
            **QUIETLY,
        )
        library.map.select(
            told(self._pick_from_map(library)),
            [self._language, *self.fields],
            [choice, self._active, *self.everything],
            **QUIETLY,
        )
        self._address.change(None, self._address, js=TO_ADDRESS, api_visibility="private")
        for tab in self._tabs:
            form = [self._language, tab.picture, *tab.form]
            outputs = [self._latest, self._address, *tab.outputs]

            def search(language: str, picture: Any, *form: Any, tab: Tab = tab) -> list[Any]:
                return self._searched(tab, language, picture, form)

            gr.on([tab.picture.input, *tab.triggers], told(search), form, outputs, **QUIETLY)

            def enter(language: str, latest: str, picture: Any, *form: Any, tab: Tab = tab) -> list[Any]:
                if not latest or (picture and picture.get("path") == latest):
                    return [gr.skip()] * (3 + len(tab.outputs))
                before, address, *outputs = self._searched(tab, language, {"path": latest}, form)
                return [before, address, latest, *outputs]

            tab.tab.select(None, None, self._active, js=f"() => '{tab.name}'", api_visibility="private")
            tab.tab.select(
                told(enter),
                [self._language, self._latest, tab.picture, *tab.form],
                [self._latest, self._address, tab.picture, *tab.outputs],
                **QUIETLY,
            )
            for hits in tab.hits:

                def go_on(chosen: gr.SelectData, language: str, hits: Any, *form: Any, tab: Tab = tab) -> list[Any]:
                    path = hits[chosen.index]["image"]["path"]
                    before, address, *outputs = self._searched(tab, language, {"path": path}, form)
                    return [before, address, path, *outputs]

                hits.select(
                    told(go_on),
                    [self._language, hits, *tab.form],
                    [self._latest, self._address, tab.picture, *tab.outputs],
                    **QUIETLY,
                )

    def follow(self, request: gr.Request, language: str, *fields: Any) -> list[Any]:
        """What the address of the page asks for: `choice`, then `everything`."""
        parameters = {name: str(value) for name, value in request.query_params.items()}
        tab = next((tab for tab in self._tabs if tab.name == parameters.get("tab")), self._tabs[0])
        path = self._named(parameters)
        values = tab.from_address(parameters, *self._form_of(tab, fields))
        if path is None and not parameters.get("text"):
            return [gr.skip()] * (1 + len(self.everything))
        picture = {"path": path} if path else None
        return [
            gr.Tabs(selected=tab.name),
            *self._only(tab, path, values, self._searched(tab, language, picture, values)),
        ]

    def again(self, language: str, *fields: Any) -> list[Any]:
        """What every tab shows, in another language: `answers`."""
        found: list[Any] = []
        for tab in self._tabs:
            picture, *form = self._all_of(tab, fields)
            try:
                found += self._searched(tab, language, picture, form)[2:]
            except ValueError:  # an empty form, a picture that is none: said already
                found += [gr.skip()] * len(tab.outputs)
        return found

    def _pick(self, chosen: gr.SelectData, language: str, active: str, *fields: Any) -> list[Any]:
        """A click on an example: `everything`."""
        if not isinstance(chosen.index, int) or not 0 <= chosen.index < len(self._examples):
            raise SearchError("There is no such example.")
        tab = next((tab for tab in self._tabs if tab.name == active), self._tabs[0])
        path = str(self._examples[chosen.index].path)
        form, changed = self._form_of(tab, fields), None
        if tab.name == "clip":  # the example is the query, not a part of it
            form[:2] = changed = ["", ""]
            changed = [*changed, *[gr.skip()] * (len(form) - 2)]
        return self._only(tab, path, changed, self._searched(tab, language, {"path": path}, form))

    def _pick_from_library(self, chosen: gr.SelectData, language: str, pictures: Any, *fields: Any) -> list[Any]:
        """A click on a picture of the library: the first tab, its name, `everything`."""
        return self._in_first_tab(language, pictures[chosen.index]["image"]["path"], fields)

    def _pick_from_map(self, library: LibraryTab) -> Callable[..., list[Any]]:
        def pick(chosen: gr.SelectData, language: str, *fields: Any) -> list[Any]:
            x, y = chosen.index
            return self._in_first_tab(language, library.clicked(float(x), float(y)), fields)

        return pick

    def _in_first_tab(self, language: str, path: str, fields: Sequence[Any]) -> list[Any]:
        tab = self._tabs[0]
        form = self._form_of(tab, fields)
        found = self._only(tab, path, None, self._searched(tab, language, {"path": path}, form))
        return [gr.Tabs(selected=tab.name), tab.name, *found]

    def _searched(self, tab: Tab, language: str, picture: Any, form: Sequence[Any]) -> list[Any]:
        """The latest picture, the address, and the tab's outputs."""
        ready = self._endpoints.start.wait()
        query = self._endpoints.query(ready, picture)
        outputs = tab.search(ready, language, query, *form)
        link = {"tab": tab.name} | tab.address(*form)
        if query is not None and query.example:
            link["example"] = query.example
        elif query is not None and query.like:
            link["id"] = query.like
        return [picture["path"] if picture else "", urlencode(link), *outputs]

    def _only(self, tab: Tab, path: str | None, form: Sequence[Any] | None, searched: Sequence[Any]) -> list[Any]:
        """`everything`, of which only what belongs to `tab` changes, and its form only where one is given."""
        latest, address, *outputs = searched
        values: list[Any] = [latest, address]
        for other in self._tabs:
            if other is tab:
                values += [path, *(form or [gr.skip()] * len(tab.form)), *outputs]
            else:
                values += [gr.skip()] * (1 + len(other.form) + len(other.outputs))
        return values

    def _named(self, parameters: dict[str, str]) -> str | None:
        """The file of the example or of the picture of the library that the address names."""
        for example in self._examples:
            if example.path.name == parameters.get("example"):
                return str(example.path)
        if "id" not in parameters:
            return None
        try:
            return str(self._endpoints.thumbnails.path(self._endpoints.start.wait().retriever, parameters["id"]))
        except KeyError:
            raise SearchError(f"There is no picture {parameters['id']!r} in the library.") from None

    def _all_of(self, tab: Tab, fields: Sequence[Any]) -> list[Any]:
        start = sum(1 + len(other.form) for other in self._tabs[: self._tabs.index(tab)])
        return list(fields[start : start + 1 + len(tab.form)])

    def _form_of(self, tab: Tab, fields: Sequence[Any]) -> list[Any]:
        return self._all_of(tab, fields)[1:]


def launch(demo: gr.Blocks, settings: Settings, *, port: int | None = None, **options: Any) -> Any:
    """Serves the page; host and port are Gradio's own variables where not given."""
    return demo.launch(
        css_paths=STYLE,
        server_port=port,
        max_file_size=settings.max_upload_mb * 2**20,
        ssr_mode=False,
        mcp_server=AVAILABLE,
        theme=_theme(),
        **options,
    )


def _theme() -> gr.themes.Base:
    """Teal on slate, with the contrast that WCAG AA asks for: Gradio's own shades of a hue fall short of it."""
    theme = gr.themes.Soft(
        primary_hue="teal",
        secondary_hue="teal",
        neutral_hue="slate",
        radius_size="md",
        spacing_size="sm",
        font=FONT,
        font_mono=("ui-monospace", "monospace"),
    )
    strong = dict.fromkeys(
        (
            "button_primary_background_fill",
            "button_primary_background_fill_dark",
            "button_primary_background_fill_hover",
            "button_primary_background_fill_hover_dark",
            "checkbox_label_background_fill_selected",
            "checkbox_label_background_fill_selected_dark",
        ),
        "*primary_700",
    )
    quiet = {
        f"block_{part}_{name}{mode}": value
        for part in ("label", "title")
        for mode, text in (("", "*neutral_700"), ("_dark", "*neutral_200"))
        for name, value in (("text_color", text), ("background_fill", "*block_background_fill"))
    }
    subdued = {
        f"{part}{mode}": text
        for part in ("body_text_color_subdued", "input_placeholder_color")
        for mode, text in (("", "*neutral_600"), ("_dark", "*neutral_300"))
    }
    theme.set(color_accent="*primary_700", slider_color="*primary_700", **strong, **quiet, **subdued)
    return theme


def _about(ready: Ready, start: Start, language: str) -> str:
    words, manifest = WORDS[language], ready.retriever.index.manifest
    line = words.about.format(
        count=manifest.count,
        library=manifest.library.name,
        encoder=manifest.encoder.uri,
        languages=", ".join(words.about_languages.get(code, code) for code in manifest.encoder.languages),
        recall=manifest.recall.recall,
        k=manifest.recall.k,
        ef_search=manifest.recall.ef_search,
    )
    notices = [f"⚠️ {translated(ready.notice, language)}"] if ready.notice else []
    if not start.done:
        stage, done, total = start.stage
        notices.append(f"{words.stage.format(stage=stage)}: {done}{f' / {total}' if total else ''}")
    return "\n\n".join([line, *notices])
