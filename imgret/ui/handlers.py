"""How does a request end? With an answer or with a sentence in the visitor's language, and with a line in the log."""

import html
import json
import logging
import time
import traceback
from collections.abc import Callable
from functools import wraps
from inspect import signature
from typing import ParamSpec, TypeVar
from uuid import uuid4

import gradio as gr

from imgret.ui.i18n import translated

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("imgret.requests")


class UnansweredError(ValueError):
    """A request that failed through no fault of whoever sent it; the text names its entry in the log."""


def logged(function: Callable[P, R]) -> Callable[P, R]:
    """Each call is a line of JSON in the log: its number, method, milliseconds and outcome, never what was asked.

    An error that is no ValueError becomes an UnansweredError with the call's number, under which the log says where it
    happened.
    """

    @wraps(function)
    def logging_it(*args: P.args, **kwargs: P.kwargs) -> R:
        number, started, outcome = uuid4().hex[:12], time.perf_counter(), "answered"
        try:
            return function(*args, **kwargs)
        except ValueError as error:
            outcome = f"refused: {type(error).__name__}"
            raise
        except Exception as error:
            outcome = f"failed: {type(error).__name__}"
            where = "".join(
                traceback.format_tb(error.__traceback__)
            )  # without the message, which may quote the visitor
            log.error("request %s: %s\n%s", number, type(error).__name__, where)
            sentence = f"This could not be answered; the log of the demo says why, under {number}."
            raise UnansweredError(sentence) from None
        finally:
            elapsed = round((time.perf_counter() - started) * 1000, 1)
            log.info(json.dumps({"request": number, "method": function.__name__, "ms": elapsed, "outcome": outcome}))

    return logging_it


def notice(sentence: str, language: str) -> str:
    """A sentence of ours as the text of a notice on the page: Gradio takes that for HTML, and the sentence may quote an
    address that somebody else wrote.
    """
    return html.escape(translated(sentence, language), quote=False)


def told(function: Callable[P, R]) -> Callable[P, R]:
    """`logged`, with each ValueError, the errors that a visitor can cause, as a `gr.Error`: its sentence reaches
    client as it is, and the page in the language that its handlers are given by the name of `language`.
    """
    names, answering = list(signature(function).parameters), logged(function)

    @wraps(function)
    def telling(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return answering(*args, **kwargs)
        except ValueError as error:
            if "language" not in names:
                raise gr.Error(str(error), print_exception=False) from error
            text = notice(str(error), str(args[names.index("language")]))
            raise gr.Error(text, print_exception=False) from error

    return telling
