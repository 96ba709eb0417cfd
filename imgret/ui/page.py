"""Builds the page from its tabs and the example gallery, connects events to searches, and launches it."""

import json
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import wraps
from inspect import Parameter, signature
from pathlib import Path
from typing import Any, ParamSpec
from urllib.parse import parse_qsl, urlencode

import gradio as gr
from gradio.block_function import BlockFunction
from gradio.blocks import Block
from gradio.context import LocalContext
from gradio.data_classes import BlocksConfigDict
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from imgret.errors import ImgretError
from imgret.images import ImageError
from imgret.search import SearchError
from imgret.settings import Settings
from imgret.startup import ReadyIndex, Startup
from imgret.ui.address import BACK_AND_FORTH, LANGUAGE_TO_ADDRESS, OURS, TO_ADDRESS, copy_script
from imgret.ui.area import WHOLE_LIBRARY, AreaFilter
from imgret.ui.clip_tab import ClipTab
from imgret.ui.code_tab import CodeTab
from imgret.ui.compare_tab import CompareTab
from imgret.ui.course_tab import CourseTab
from imgret.ui.crop import FULL_IMAGE
from imgret.ui.downloads import bound_downloads
from imgret.ui.endpoints import SEARCH_QUEUE, Endpoints
from imgret.ui.examples import QUERIES, Example, read_examples
from imgret.ui.first_sight import FirstSight, RememberVisit
from imgret.ui.handlers import gradio_handler, notice
from imgret.ui.i18n import DEFAULT, LANGUAGES, WORDS
from imgret.ui.library_tab import LibraryTab
from imgret.ui.likes import CROSS, HEART, Likes, Marks
from imgret.ui.localized import LocalizedComponents
from imgret.ui.mcp_tools import AVAILABLE, Tools
from imgret.ui.middleware import RequestLimits
from imgret.ui.names import label_name
from imgret.ui.pixels_tab import PixelsTab
from imgret.ui.results import PER_CLICK
from imgret.ui.tab import INTERNAL_EVENT, MAX_K, Tab
from imgret.ui.thumbnails import Thumbnails, ThumbnailsOnDemand
from imgret.vietnamese import translated

STYLE = Path(__file__).with_name("page.css")
SCRIPTS = [Path(__file__).with_name(name) for name in ("crop.js", "hits.js", "map.js")]
FIRST_SCRIPT = Path(__file__).with_name("uploads.js")
"""What listens before the page is there to take a file; Gradio runs the other scripts once it is."""
FONT = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
HEALTH = "/gradio_api/health"
CACHE_HOURS = 1
SECONDS_BETWEEN_STAGES = 3
SESSIONS = 200
"""How many sessions Gradio remembers, at 0.3 MB each. The page keeps nothing in them, so a forgotten one works on."""
WAITING = 100
"""How many requests may wait; Gradio refuses more with a sentence that the demo is busy."""

OTHER_TABS = (LibraryTab.name, CodeTab.name, CourseTab.name)
"""The tabs without a search, which an address may open."""

P = ParamSpec("P")
TURNS = [threading.Lock() for _ in range(64)]

Changes = dict[Block, Any]
"""Components and their values."""

# A script that throws keeps its event from the server. Scripts below are given the handlers' inputs, by number.
ONLY_IF = """(...given) => {
  if (!(%s)) throw new Error('There is nothing to ask for.');
  return given;
}"""
CHANGED = """((now, before) => {
  (window.seenPictures ??= {})['%s'] = now;
  return now !== before;
})(%s, window.seenPictures?.['%s'] ?? '')"""
"""Whether the picture of a tab is another one than when its field last changed; what never had one has not changed."""
REMOVE = "() => {{ (window.removedPictures ??= new Set()).add('{0}'); }}"
REMOVED = "(window.removedPictures ??= new Set()).delete('{0}')"
"""Whether the visitor has taken the picture of a tab away, not an answer."""
OPENED = """(language, latest) => {
  document.documentElement.lang = language;
  return latest === '' ? 'hits' : '';
}"""
"""What the page still lacks."""
PART_SHOWN = "() => document.dispatchEvent(new Event('part'))"


def build_page(start: Startup, settings: Settings) -> "Demo":
    """The demo as Gradio Blocks, over whatever `start` makes ready."""
    thumbnails = Thumbnails(settings.cache)
    gr.set_static_paths([QUERIES])
    endpoints = Endpoints(start, thumbnails, (thumbnails.folder, QUERIES), settings.max_upload_mb * 2**20)
    seconds = CACHE_HOURS * 3600
    localized = LocalizedComponents()
    with Demo(
        title="imgret: image retrieval with basic maths", analytics_enabled=False, delete_cache=(seconds, seconds)
    ) as demo:
        demo.thumbnails = thumbnails
        with gr.Row(elem_id="top"):
            localized(gr.Markdown, {"value": lambda words: f"# {words.title}\n{words.lead}"})
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
        with gr.Row(elem_id="above-examples"):
            localized(gr.Markdown, {"value": lambda words: words.examples}, elem_classes="small")
            says = {"value": lambda words: words.share}
            share = localized(gr.Button, says, size="sm", scale=0, min_width=140, elem_id="share")
            says = {"value": lambda words: json.dumps([words.share, words.shared])}
            shared = localized(gr.Textbox, says, visible="hidden")
            says = {"value": lambda words: json.dumps({HEART: words.like, CROSS: words.dislike})}
            localized(gr.Textbox, says, visible="hidden", elem_id="mark-words")
            share.click(None, shared, js=copy_script(settings.space_host), api_visibility="private")
        gallery = gr.Gallery(
            _captioned(read_examples(), DEFAULT),
            show_label=False,
            elem_id="example-gallery",
            height="auto",
            buttons=[],
            allow_preview=False,
            interactive=False,
        )
        latest = gr.Textbox("", visible="hidden"), gr.Textbox(FULL_IMAGE, visible="hidden")
        with gr.Tabs() as choice:
            pixels, clip = PixelsTab(endpoints, localized, language), ClipTab(endpoints, localized, language)
            compare = CompareTab(endpoints, localized)
            library = LibraryTab(endpoints, localized, language, latest)
            CodeTab(localized)
            CourseTab(localized, read_examples(), language)
        localized(gr.Markdown, {"value": lambda words: words.privacy}, elem_classes="small")
        timer = gr.Timer(SECONDS_BETWEEN_STAGES, active=False)
        endpoints.register()
        Tools(endpoints).register()
        page = _Page(endpoints, [pixels, clip, compare], library, language, latest, choice)
        page.wire(gallery)

        def status(ready: ReadyIndex, language: str) -> Changes:
            manifest = ready.retriever.index.manifest
            return {
                about: _about(ready, start, language),
                clip.starter: WORDS[language].starter if manifest.encoder.uri == "starter" else "",
                clip.labels: gr.update(choices=[(label_name(label), label) for label in manifest.labels]),
                gallery: _captioned(endpoints.examples(), language),
                timer: gr.update(active=not start.done),
            }

        def show_status(language: str, progress: gr.Progress = gr.Progress()) -> Changes:  # noqa: B008
            def show(stage: str, done: int, total: int | None) -> None:
                words = WORDS[language]
                progress((done, total) if total else done, desc=words.stage.format(stage=stage), unit=stage)

            return status(start.wait(show), language)

        def in_language(code: str) -> Changes:
            return dict(zip(localized.components, localized.updates(code), strict=True)) | {
                language: code,
                about: WORDS[code].wait,
                pixels.about: pixels.default_formula(code),
                gallery: _captioned(endpoints.examples(), code),
            }

        def speak(language: str) -> Changes:
            return {field: value for field, value in in_language(language).items() if field in spoken}

        demo.first_sight = FirstSight(start, in_language, lambda ready, code: status(ready, code) | page.at_first(code))
        spoken = [gallery, *localized.components]
        status_fields = [about, timer, clip.starter, clip.labels, gallery]
        # A page that is sent with its hits asks for nothing. Not a script that throws: that would be shown as an error.
        lacking = gr.Textbox("", visible="hidden")
        demo.load(None, [language, latest[0]], lacking, js=OPENED, api_visibility="private")
        lacking.change(
            gradio_handler(show_status), language, status_fields, show_progress_on=about, api_visibility="private"
        ).then(gradio_handler(_in_turn(page.open)), page.inputs, page.outputs, **INTERNAL_EVENT, **SEARCH_QUEUE)
        language.input(speak, language, spoken, **INTERNAL_EVENT).then(
            gradio_handler(show_status), language, status_fields, **INTERNAL_EVENT
        ).then(gradio_handler(_in_turn(page.again)), page.inputs, page.outputs, **INTERNAL_EVENT, **SEARCH_QUEUE)
        timer.tick(gradio_handler(show_status), language, status_fields, **INTERNAL_EVENT)
        language.input(None, language, js=LANGUAGE_TO_ADDRESS, api_visibility="private")
    demo.queue(default_concurrency_limit=4, max_size=WAITING, status_update_rate=1)
    return demo


class Demo(gr.Blocks):
    """The page, the files of `thumbnails` that it shows, and what a visitor sees of it at first."""

    thumbnails: Thumbnails
    first_sight: FirstSight | None = None

    @property
    def config(self) -> BlocksConfigDict:
        """What Gradio's script is sent to draw the page."""
        return self._config if self.first_sight is None else self.first_sight.of_visit(self._config)

    @config.setter
    def config(self, config: BlocksConfigDict) -> None:
        self._config = config

    def validate_inputs(self, block_fn: BlockFunction, inputs: list[Any]) -> None:
        """Adds the defaults of arguments that a plain request leaves out at the end, as gradio_client does. Raises
        gr.Error for too few arguments: Gradio's own error prints them into the log.
        """
        if block_fn.api_visibility == "public" and block_fn.fn is not None:
            left_out = [*signature(block_fn.fn).parameters.values()][len(inputs) : len(block_fn.inputs)]
            if all(parameter.default is not Parameter.empty for parameter in left_out):
                inputs += [parameter.default for parameter in left_out]
        if len(inputs) < (wanted := len(block_fn.inputs)):
            raise gr.Error(f"{len(inputs)} arguments were given; {wanted} are needed.", print_exception=False)


class _Page:
    """The tabs together: the picture that was searched for last goes with the visitor from one to the next, as `latest`
    keeps its path and its part.

    Handlers get the values of `inputs` and return changes of `outputs`, by component.
    """

    def __init__(
        self,
        endpoints: Endpoints,
        tabs: Sequence[Tab],
        library: LibraryTab,
        language: gr.Radio,
        latest: tuple[gr.Textbox, gr.Textbox],
        choice: gr.Tabs,
    ) -> None:
        self._endpoints, self._tabs, self._library, self._choice = endpoints, tabs, library, choice
        self._latest, self._part = latest
        self._active = gr.Textbox(tabs[0].name, visible="hidden")
        self._address = gr.Textbox("", visible="hidden")
        self._gone_to = gr.Textbox("", visible="hidden", elem_id="gone-to")
        self._default_form = {field: field.value for tab in tabs for field in tab.form}  # type: ignore[attr-defined]
        fields = [field for tab in tabs for field in (tab.picture, tab.part, *tab.form)]
        marks = [tab.likes.marked for tab in tabs if tab.likes]
        on_map = [library.map.picked, library.map.area]
        self.inputs = [language, self._active, *latest, self._gone_to, *marks, *on_map, *fields]
        found = [output for tab in tabs for output in tab.outputs]
        self._kept = [self._latest, self._part, self._address]
        self.outputs = [choice, self._active, *self._kept, *fields, *found]

    def wire(self, gallery: gr.Gallery) -> None:
        """Adds the events of the tabs, of the example `gallery`, and of the library's pictures."""
        first = self._tabs[0]
        opened = [self._choice, self._active, first.picture, first.part]
        self._on(self._library.pictures.select, first, self._pick_from_library, outputs=opened)
        self._on(self._library.map.picked.change, first, self._pick_from_map, outputs=opened)
        kept = [self._address, self._latest, self._part]
        gr.on([each.change for each in kept], None, kept, js=TO_ADDRESS, api_visibility="private")
        handler = gradio_handler(_in_turn(self._go_to))
        self._gone_to.change(handler, self.inputs, self.outputs, **INTERNAL_EVENT, **SEARCH_QUEUE)
        for tab in self._tabs:
            self._wire(tab, gallery)

    def _wire(self, tab: Tab, gallery: gr.Gallery) -> None:
        def pick(chosen: gr.SelectData, language: str, *values: Any) -> Changes:
            """A click on an example: the whole query."""
            examples = self._endpoints.examples()
            if not isinstance(chosen.index, int) or not 0 <= chosen.index < len(examples):
                raise SearchError("There is no such example.")
            emptied: Changes = dict.fromkeys(tab.cleared_on_example, "")
            return emptied | self._at(tab, language, str(examples[chosen.index].path), self._given(values) | emptied)

        def search(language: str, *values: Any) -> Changes:
            return self._found(tab, language, self._given(values))

        def change_picture(language: str, *values: Any) -> Changes:
            given = self._given(values)
            if given[tab.picture] is None and not any(given[field] for field in tab.asking):
                return self._emptied(tab, language, given)
            try:
                return {tab.part: FULL_IMAGE} | self._found(tab, language, given | {tab.part: FULL_IMAGE})
            except ImageError as error:  # or the browser shows a broken picture above the hits of the one before
                gr.Warning(notice(error.sentence, language))
                return {tab.picture: None} | self._emptied(tab, language, given)

        def enter(language: str, *values: Any) -> Changes:
            given = self._given(values)
            return self._at(tab, language, given[self._latest], given, given[self._part])

        def go_on(chosen: gr.SelectData, language: str, *values: Any) -> Changes:
            return self._at(tab, language, chosen.value["image"]["path"], self._given(values))

        latest, part, picture, own_part, active = map(
            self._script, (self._latest, self._part, tab.picture, tab.part, self._active)
        )
        own = f"({picture}?.path ?? '')"
        another = f"{own} !== {latest} || {own_part} !== {part}"
        fields = [tab.picture, tab.part]
        self._on(gallery.select, tab, pick, f"{active} === '{tab.name}'", [*fields, *tab.cleared_on_example])
        # What is the latest picture was set and searched for by an answer. Not `input` or `clear` alone: when a picture
        # is taken away, they come with the one that was there.
        changed, removed = CHANGED % (tab.name, own, tab.name), REMOVED.format(tab.name)
        tab.picture.clear(None, js=REMOVE.format(tab.name), api_visibility="private")
        self._on(
            tab.picture.change, tab, change_picture, f"{changed} && ({own} ? {own} !== {latest} : {removed})", fields
        )
        # Gradio takes no `input` from a script.
        self._on(tab.part.change, tab, search, another)
        self._on(tab.triggers, tab, search)
        tab.part.change(None, js=PART_SHOWN, api_visibility="private")
        tab.tab.select(None, None, self._active, js=f"() => '{tab.name}'", api_visibility="private")
        self._on(tab.tab.select, tab, enter, f"{latest} && ({another})", fields)
        for hits in tab.hits:
            self._on(hits.select, tab, go_on, outputs=fields)
        if tab.likes:
            self._wire_likes(tab, tab.likes)
        if tab.area:
            self._wire_area(tab, tab.area)
        if tab.more:
            self._wire_more(tab, *tab.more)

    def _wire_likes(self, tab: Tab, likes: Likes) -> None:
        def search(language: str, given: Changes, marks: Marks) -> Changes:
            given = given | {**marks}
            if given[tab.picture] is None and not any(given[field] for field in tab.asking):
                return {**marks} | self._emptied(tab, language, given)
            return {**marks} | self._found(tab, language, given)

        def mark(language: str, *values: Any) -> Changes:
            given = self._given(values)
            return search(language, given, likes.mark(given[likes.marked], *(given[each] for each in likes.fields)))

        def unmark(chosen: gr.SelectData, language: str, *values: Any) -> Changes:
            given = self._given(values)
            return search(language, given, likes.without(chosen.index, *(given[each] for each in likes.fields)))

        self._on(likes.marked.change, tab, mark, outputs=likes.fields)
        self._on(likes.pictures.select, tab, unmark, outputs=likes.fields)

    def _wire_area(self, tab: Tab, area: AreaFilter) -> None:
        def search_there(language: str, *values: Any) -> Changes:
            given = self._given(values)
            opened = {self._choice: gr.Tabs(selected=tab.name), self._active: tab.name}
            return opened | search(language, given, given[self._library.map.area])

        def search_everywhere(language: str, *values: Any) -> Changes:
            return search(language, self._given(values), WHOLE_LIBRARY)

        def search(language: str, given: Changes, where: str) -> Changes:
            """With what the tab has, else with the latest picture, if there is one."""
            given, kept = given | {area.value: where}, {area.value: where}
            if given[tab.picture] is not None or any(given[field] for field in tab.asking):
                return kept | self._found(tab, language, given)
            if given[self._latest]:
                return kept | self._at(tab, language, given[self._latest], given, given[self._part])
            return kept | self._emptied(tab, language, given)

        opened = [self._choice, self._active, tab.picture, tab.part, area.value]
        self._on(self._library.map.search_there.click, tab, search_there, outputs=opened)
        self._on(area.button.click, tab, search_everywhere, outputs=[tab.picture, tab.part, area.value])

    def _wire_more(self, tab: Tab, button: gr.Button, field: gr.Slider) -> None:
        def more(language: str, *values: Any) -> Changes:
            given = self._given(values)
            k = min(given[field] + PER_CLICK, MAX_K)
            return {field: k} | self._found(tab, language, given | {field: k})

        self._on(button.click, tab, more, outputs=[field])

    def _on(
        self,
        events: Any,
        tab: Tab,
        handler: Callable[..., Changes],
        only_if: str = "",
        outputs: Sequence[Block] = (),
    ) -> None:
        """Has `handler` answer `events` for which `only_if`, an expression in the browser, holds; besides `outputs` it
        changes those of `tab` and what is kept of its search. Not more: Gradio takes a millisecond for each output that
        is left as it is.
        """
        filled = [*outputs, *self._kept, *tab.outputs]
        # What a visitor does while an answer is on its way is asked for after it, instead of being dropped.
        js = ONLY_IF % only_if if only_if else None
        gr.on(
            events,
            gradio_handler(_in_turn(handler)),
            self.inputs,
            filled,
            js=js,
            trigger_mode="always_last",
            **INTERNAL_EVENT,
            **SEARCH_QUEUE,
        )

    def _script(self, field: Block) -> str:
        """The value of a field in a script."""
        return f"given[{self.inputs.index(field)}]"

    def open(self, request: gr.Request, language: str, *values: Any) -> Changes:
        """Runs the search that the address of the page names; without one, shows the hits of the example of the day."""
        parameters = {name: str(value) for name, value in request.query_params.items()}
        return self._follow(language, parameters) if parameters.keys() & set(OURS) else self.at_first(language)

    def at_first(self, language: str) -> Changes:
        """The hits of the example of the day. Neither the address nor the tab nor the form."""
        kept = (self._address, self._choice, self._active, *self._tabs[0].form)
        return {field: value for field, value in self._follow(language, {}).items() if field not in kept}

    def _go_to(self, language: str, *values: Any) -> Changes:
        """Runs the search that the visitor came back to."""
        search, picture, part, _ = json.loads(self._given(values)[self._gone_to])
        return self._follow(language, dict(parse_qsl(search.removeprefix("?"))), picture or None, part)

    def _follow(
        self, language: str, parameters: Mapping[str, str], uploaded: str | None = None, part: str = FULL_IMAGE
    ) -> Changes:
        """The search that an address names; `uploaded` is the picture of one whose address names none."""
        tab, name = self._tab(parameters.get("tab")), parameters.get("tab", "")
        form: Changes = dict(
            zip(tab.form, tab.from_address(parameters, *(self._default_form[field] for field in tab.form)), strict=True)
        )
        selected = name if name in OTHER_TABS else tab.name
        opened = form | {self._choice: gr.Tabs(selected=selected), self._active: tab.name}
        named = parameters.keys() & set(OURS)
        path = self._named(parameters) or (uploaded if named else None)
        if path is not None or any(form[field] for field in tab.asking):
            return opened | self._at(tab, language, path, form, parameters.get("part", part))
        if name not in OTHER_TABS and named:
            # A form with nothing to search for, or an example that there is not.
            return opened | {tab.picture: None} | self._emptied(tab, language, form)
        examples = self._endpoints.examples()
        of_the_day = examples[date.today().toordinal() % len(examples)]
        return opened | self._at(tab, language, str(of_the_day.path), form) | {self._address: ""}

    def again(self, language: str, *values: Any) -> Changes:
        """The content of all tabs in another language."""
        given = self._given(values)
        changes: Changes = {}
        for tab in self._tabs:
            try:
                changes |= self._found(tab, language, given)
            except ImgretError:  # an empty form or a broken picture, which the visitor knows already
                continue
        return {part: value for part, value in changes.items() if part not in (self._latest, self._part, self._address)}

    def _pick_from_map(self, language: str, *values: Any) -> Changes:
        path = self._library.map.path(self._given(values)[self._library.map.picked])
        return self._in_first_tab(language, path, values)

    def _pick_from_library(self, chosen: gr.SelectData, language: str, *values: Any) -> Changes:
        return self._in_first_tab(language, chosen.value["image"]["path"], values)

    def _in_first_tab(self, language: str, path: str, values: Sequence[Any]) -> Changes:
        tab = self._tabs[0]
        found = self._at(tab, language, path, self._given(values))
        return found | {self._choice: gr.Tabs(selected=tab.name), self._active: tab.name}

    def _at(self, tab: Tab, language: str, path: str | None, given: Changes, part: str = FULL_IMAGE) -> Changes:
        """A search for the picture in a file, or a part of it, which become those of the tab."""
        asked = given | {tab.picture: {"path": path} if path else None, tab.part: part}
        return {tab.picture: path, tab.part: part} | self._found(tab, language, asked)

    def _found(self, tab: Tab, language: str, given: Changes) -> Changes:
        """What a search with the picture of a tab changes: its outputs, the latest picture, the address."""
        ready, form = self._endpoints.start.wait(), [given[field] for field in tab.form]
        picture, part = given[tab.picture], given[tab.part]
        query = self._endpoints.query(ready, picture, part)
        outputs = tab.search(ready, language, query, *form)
        link = {"tab": tab.name} | tab.address(*form)
        if query is not None and query.example:
            link["example"] = query.example
        elif query is not None and query.like:
            link["id"] = query.like
        if part != FULL_IMAGE and link.keys() & {"example", "id"}:
            link["part"] = part
        latest = {self._latest: picture["path"] if picture else "", self._part: part}
        return latest | {self._address: urlencode(link, safe=",")} | dict(zip(tab.outputs, outputs, strict=True))

    def _emptied(self, tab: Tab, language: str, given: Changes) -> Changes:
        form = [given[field] for field in tab.form]
        address = urlencode({"tab": tab.name} | tab.address(*form), safe=",")
        emptied = {tab.part: FULL_IMAGE, self._latest: "", self._part: FULL_IMAGE, self._address: address}
        return emptied | dict(zip(tab.outputs, tab.cleared(language, *form), strict=True))

    def _named(self, parameters: Mapping[str, str]) -> str | None:
        """The file of the example or of the picture of the library that the address names."""
        for example in self._endpoints.examples():
            if example.name == parameters.get("example"):
                return str(example.path)
        if "id" not in parameters:
            return None
        retriever = self._endpoints.start.wait().retriever
        return str(self._endpoints.thumbnails.path(retriever, retriever.row_of(parameters["id"])))

    def _tab(self, name: Any) -> Tab:
        return next((tab for tab in self._tabs if tab.name == name), self._tabs[0])

    def _given(self, values: Sequence[Any]) -> Changes:
        return dict(zip(self.inputs[1:], values, strict=True))


def _in_turn(handler: Callable[P, Changes]) -> Callable[P, Changes]:
    """Answers the events of a visitor one by one: of two that are answered at once, the first answer may come last.

    Visitors share locks, so that there is nothing to tidy away for a session.
    """

    @wraps(handler)
    def answering(*args: P.args, **kwargs: P.kwargs) -> Changes:
        session = getattr(LocalContext.request.get(), "session_hash", None)
        with TURNS[hash(session) % len(TURNS)]:
            return handler(*args, **kwargs)

    return answering


def launch(demo: Demo, start: Startup, settings: Settings, *, port: int | None = None, **options: Any) -> Any:
    """Serves the page. Host and port default to Gradio's own variables."""
    max_bytes = settings.max_upload_mb * 2**20
    bound_downloads(max_bytes)

    scripts = [*(path.read_text(encoding="utf-8") for path in SCRIPTS), BACK_AND_FORTH]

    def health(request: Request) -> JSONResponse:
        found = start.health()
        return JSONResponse({"status": found.status, "reason": found.reason}, 200 if found.searchable else 503)

    middleware = [
        Middleware(RequestLimits, max_bytes),
        Middleware(ThumbnailsOnDemand, demo.thumbnails, start),
        Middleware(RememberVisit),
    ]
    return demo.launch(
        css_paths=STYLE,
        js="() => {" + "\n".join(f"({script})();" for script in scripts) + "}",
        head=f"<script>(\n{FIRST_SCRIPT.read_text(encoding='utf-8')})();</script>",
        server_port=port,
        max_file_size=max_bytes,
        app_kwargs={"middleware": middleware, "routes": [Route(HEALTH, health)]},
        enable_monitoring=False,
        state_session_capacity=SESSIONS,
        ssr_mode=False,
        mcp_server=AVAILABLE,
        theme=_theme(),
        **options,
    )


def _captioned(examples: Sequence[Example], language: str) -> list[tuple[str, str]]:
    return [(str(example.path), example.caption(language)) for example in examples]


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


def _about(ready: ReadyIndex, start: Startup, language: str) -> str:
    words, manifest = WORDS[language], ready.retriever.index.manifest
    line = words.about.format(
        count=manifest.count,
        library=manifest.library.name,
        languages=", ".join(words.about_languages.get(code, code) for code in manifest.encoder.languages),
    )
    figures = words.about_figures.format(
        encoder=manifest.encoder.uri,
        recall=manifest.recall.recall,
        k=manifest.recall.k,
        ef_search=manifest.recall.ef_search,
    )
    line += f"\n\n<details><summary>{words.figures}</summary>{figures}</details>"
    notices = [f"⚠️ {translated(ready.notice, language)}"] if ready.notice else []
    if not start.done:
        stage, done, total = start.stage
        notices.append(f"{words.stage.format(stage=stage)}: {done}{f' / {total}' if total else ''}")
    return "\n\n".join([line, *notices])
