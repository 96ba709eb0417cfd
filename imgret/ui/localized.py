"""Which components say something, and what do they say in another language?"""

from collections.abc import Callable
from typing import Any, TypeVar

import gradio as gr
from gradio.blocks import Block

from imgret.ui.i18n import DEFAULT, WORDS, Words

B = TypeVar("B", bound=Block)
Says = Callable[[Words], Any]


class Spoken:
    """The components of a page whose properties are words, made by calling this, and what each says."""

    def __init__(self) -> None:
        self.components: list[Block] = []
        self._says: list[dict[str, Says]] = []

    def __call__(self, kind: Callable[..., B], says: dict[str, Says], **properties: Any) -> B:
        """A component of `kind` whose properties in `says` depend on the language."""
        component = kind(**{name: say(WORDS[DEFAULT]) for name, say in says.items()}, **properties)
        self.components.append(component)
        self._says.append(says)
        return component

    def updates(self, language: str) -> list[Any]:
        """An update of each component to `language`, in the order of `components`."""
        return [gr.update(**{name: say(WORDS[language]) for name, say in says.items()}) for says in self._says]
