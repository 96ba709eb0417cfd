"""Sends the page in the visitor's language and with its first hits, so that both are there as soon as it is."""

import logging
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from datetime import date
from typing import Any

import gradio as gr
from gradio.blocks import Block, BlockContext, postprocess_update_dict
from gradio.components import Component
from gradio.data_classes import BlocksConfigDict
from gradio.processing_utils import move_files_to_cache
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from imgret.errors import ImgretError
from imgret.startup import ReadyIndex, Startup
from imgret.ui.address import OURS
from imgret.ui.i18n import chosen_language

log = logging.getLogger(__name__)

Changes = Mapping[Block, Any]
Properties = dict[int, dict[str, Any]]
"""The properties of components by their ids, as Gradio's script gets them."""

_visit: ContextVar[Request | None] = ContextVar("visit", default=None)


class RememberVisit:
    """ASGI middleware that keeps the request of the page for `FirstSight`, as Gradio's configuration knows of none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands the request on."""
        of_page = scope["type"] == "http" and scope["path"].removeprefix(scope.get("root_path", "")) in ("", "/")
        token = _visit.set(Request(scope) if of_page else None)
        try:
            await self._app(scope, receive, send)
        finally:
            _visit.reset(token)


class FirstSight:
    """The configuration of the page for a visitor: in their language, and with what is to be seen at first. The hits
    are left to the page's first events where the address names a search, or a search would have to wait.
    """

    def __init__(
        self,
        start: Startup,
        in_language: Callable[[str], Changes],
        at_first: Callable[[ReadyIndex, str], Changes],
    ) -> None:
        """`in_language` gives what depends on the language only, `at_first` the rest."""
        self._start, self._in_language, self._at_first = start, in_language, at_first
        self._made: dict[tuple[str, bool], tuple[Any, Properties]] = {}

    def of_visit(self, config: BlocksConfigDict) -> BlocksConfigDict:
        """`config` for the visitor whose request is being answered; `config` itself if it is not the page's."""
        request = _visit.get()
        if request is None or "components" not in config:
            return config
        language = chosen_language(request)
        properties = self._properties(language, with_hits=not request.query_params.keys() & set(OURS))
        components = [
            {**one, "props": {**one["props"], **properties.get(one["id"], {})}} for one in config["components"]
        ]
        return {**config, "components": components}

    def _properties(self, language: str, *, with_hits: bool) -> Properties:
        """Those that were made before, while index and day are the same: Gradio asks twice for each page."""
        ready = self._start.wait() if self._start.warm else None
        key = (ready, self._start.done, date.today())
        made_of, properties = self._made.get((language, with_hits), (None, {}))
        if made_of == key:
            return properties
        properties = {}
        try:
            shown = self._at_first(ready, language) if with_hits and ready is not None else {}
            for changes in (self._in_language(language), shown):
                for component, change in changes.items():
                    properties[component._id] = properties.get(component._id, {}) | _properties(component, change)
        except ImgretError as error:
            log.warning("the page is sent without hits: %s", error)
        except Exception:
            log.exception("the page is sent without hits")
        else:
            self._made[language, with_hits] = key, properties
        return properties


def _properties(component: Block, change: Any) -> dict[str, Any]:
    """What a handler's answer for a component, a value or an update, changes of its properties; as Gradio does it."""
    if not isinstance(change, dict) or change.get("__type__") != "update":
        change = gr.update(value=change)
    given = {name: value for name, value in change.items() if name not in ("__type__", "value")}
    if given:
        component = component.__class__(**component.constructor_args | given | {"render": False})
    assert isinstance(component, Component | BlockContext)
    properties = postprocess_update_dict(component, dict(change))
    del properties["__type__"]
    if "value" in properties:
        properties["value"] = move_files_to_cache(properties["value"], component, postprocess=True)
    return properties
