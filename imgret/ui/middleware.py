"""What may come in, whatever becomes of it? So many bytes a request, in so long, and so many of uploads on the disk."""

import asyncio
import time
from pathlib import Path
from urllib.parse import unquote

from gradio.utils import get_upload_folder
from starlette.exceptions import HTTPException
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

UPLOADS = 50
"""Uploads of the largest size that are kept on the disk together, until the oldest go before their time."""
SECONDS_BETWEEN_SWEEPS = 2
BODY_SECONDS = 180.0
"""How long a body may take to come in; 10 MB in this time are half a megabit a second."""
FORM_BYTES = 2**20
"""What a request may have around its picture."""
BASE64 = 4 / 3
FETCHED = "/file=http"


class Guard:
    """An ASGI middleware: refuses a body that is larger than any picture that is taken or does not come to its end,
    keeps the uploads on the disk bounded, and fetches no addresses for whoever asks Gradio's file route for one.
    """

    def __init__(self, app: ASGIApp, max_bytes: int) -> None:
        self._app, self._max_bytes = app, max_bytes
        self._most = int(max_bytes * BASE64) + FORM_BYTES
        self._swept = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Hands the request on, or answers it with 403, 408 or 413 and a sentence."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        if FETCHED in unquote(scope["path"]).lower():
            return await PlainTextResponse("No addresses are fetched here.", 403)(scope, receive, send)
        if scope["method"] == "POST" and scope["path"].endswith("/upload"):
            await asyncio.to_thread(self._sweep)
        sentence = f"At most {self._max_bytes / 2**20:g} MB are taken, so send a smaller copy."
        if int(dict(scope["headers"]).get(b"content-length", b"0")) > self._most:
            return await PlainTextResponse(sentence, 413)(scope, receive, send)
        received, until = 0, time.monotonic() + BODY_SECONDS
        whole = False

        async def bounded() -> Message:  # the length was not announced, or is a lie
            nonlocal received, whole
            if whole:  # what comes after the body is that the client has gone
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), until - time.monotonic())
            except TimeoutError:
                raise HTTPException(408, f"The request did not arrive within {BODY_SECONDS:g} seconds.") from None
            whole = not message.get("more_body", False)
            received += len(message.get("body", b""))
            if received > self._most:
                raise HTTPException(413, sentence)
            return message

        await self._app(scope, bounded, send)

    def _sweep(self) -> None:
        """Drops the oldest uploads beyond the bound; Gradio itself drops them by their age."""
        if time.monotonic() - self._swept < SECONDS_BETWEEN_SWEEPS:
            return
        self._swept = time.monotonic()
        held = []
        for path in Path(get_upload_folder()).rglob("*"):
            try:
                status = path.stat()
            except OSError:  # just dropped by somebody else
                continue
            if path.is_file():
                held.append((status.st_mtime, status.st_size, path))
        room = UPLOADS * self._max_bytes - sum(size for _, size, _ in held)
        for _, size, path in sorted(held):
            if room >= 0:
                break
            path.unlink(missing_ok=True)
            room += size
