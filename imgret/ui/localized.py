"""Remembers the components to update when the language of the page changes."""

from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr
from gradio.blocks import Block

from imgret.ui.i18n import DEFAULT, WORDS, Words

B = TypeVar("B", bound=Block)
Says = Callable[[Words], Any]


class LocalizedComponents:
    """The components whose properties depend on the language. Calling it creates one of them."""

    def __init__(self) -> None:
        self.components: list[Block] = []
        self._says: list[dict[str, Says]] = []

    def __call__(self, kind: Callable[..., B], says: dict[str, Says], **properties: Any) -> B:
        """Creates a component of `kind`; `says` maps its properties to functions of the `Words` of a language."""
        component = kind(**{name: say(WORDS[DEFAULT]) for name, say in says.items()}, **properties)
        self.components.append(component)
        self._says.append(says)
        return component

    def updates(self, language: str) -> list[Any]:
        """The updates of all components to `language`, in the order of `components`."""
        return [gr.update(**{name: say(WORDS[language]) for name, say in says.items()}) for says in self._says]
