"""Wraps event handlers: each call is logged, and each error reaches the visitor as a sentence in their language."""

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

from imgret.errors import ImgretError
from imgret.vietnamese import translated

P = ParamSpec("P")
R = TypeVar("R")

log = logging.getLogger("imgret.requests")


class UnansweredError(ImgretError):
    """A request that failed because of a bug; the text names its entry in the log."""


def logged(function: Callable[P, R]) -> Callable[P, R]:
    """Logs each call as a line of JSON: its number, method, milliseconds and outcome, but not its arguments.

    Any other error than an ImgretError is a bug: its place is logged with the call's number, and the caller gets an
    UnansweredError with that number.
    """

    @wraps(function)
    def logging_it(*args: P.args, **kwargs: P.kwargs) -> R:
        number, started, outcome = uuid4().hex[:12], time.perf_counter(), "answered"
        try:
            return function(*args, **kwargs)
        except ImgretError as error:
            outcome = f"refused: {type(error).__name__}"
            raise
        except Exception as error:
            outcome = f"failed: {type(error).__name__}"
            where = "".join(
                traceback.format_tb(error.__traceback__)
            )  # without the message, which may quote the visitor
            log.error("request %s: %s\n%s", number, type(error).__name__, where)
            raise UnansweredError(
                "This could not be answered, number {number}; the log of the demo says why.", number=number
            ) from None
        finally:
            elapsed = round((time.perf_counter() - started) * 1000, 1)
            log.info(json.dumps({"request": number, "method": function.__name__, "ms": elapsed, "outcome": outcome}))

    return logging_it


def notice(sentence: str, language: str) -> str:
    """Translates and escapes a sentence for a notice on the page. Gradio renders notices as HTML, and the sentence may
    quote a URL of the visitor.
    """
    return html.escape(translated(sentence, language), quote=False)


def gradio_handler(function: Callable[P, R]) -> Callable[P, R]:
    """`logged`, and converts each ImgretError to a `gr.Error`, translated if `function` has a parameter `language`."""
    names, answering = list(signature(function).parameters), logged(function)

    @wraps(function)
    def telling(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return answering(*args, **kwargs)
        except ImgretError as error:
            if "language" not in names:
                raise gr.Error(str(error), print_exception=False) from error
            text = notice(error.sentence, str(args[names.index("language")]))
            raise gr.Error(text, print_exception=False) from error

    return telling
