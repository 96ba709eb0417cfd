"""Downloads query pictures by URL, from public addresses only and up to a size."""

import asyncio
from pathlib import Path

import gradio as gr
import gradio.processing_utils
import httpx
import safehttpx
from gradio.exceptions import InvalidPathError
from gradio.processing_utils import _check_allowed, hash_url

from imgret.search import SearchError

SECONDS = 20
NO_UPLOAD = "The picture must be a file that was uploaded to this server, or a public URL; upload it first."


def bound_downloads(max_bytes: int) -> None:
    """Makes Gradio use `download` for URLs that clients send: its own function reads a file of any size into memory.

    Anything else than such a URL and an upload is refused in a sentence: Gradio's own error reaches a client without
    its text.
    """

    async def bounded(url: str, cache_dir: str) -> str:
        try:
            return str(await download(url, Path(cache_dir), max_bytes))
        except SearchError as error:
            raise gr.Error(str(error), print_exception=False) from error

    def checked(path: str | Path, check_in_upload_folder: bool) -> None:
        try:
            _check_allowed(path, check_in_upload_folder)
        except (InvalidPathError, OSError, ValueError) as error:
            if not check_in_upload_folder:  # a file of ours on its way out
                raise
            raise gr.Error(NO_UPLOAD, print_exception=False) from error

    gradio.processing_utils.async_ssrf_protected_download = bounded
    gradio.processing_utils._check_allowed = checked


async def download(url: str, folder: Path, max_bytes: int) -> Path:
    """Downloads the file at a public URL to `folder`. Raises SearchError if the URL is not public, redirects, fails, or
    is too slow or too large.
    """
    data = bytearray()
    try:
        verified = await safehttpx.async_validate_url(httpx.URL(url).host)
        async with (
            asyncio.timeout(SECONDS),
            httpx.AsyncClient(transport=safehttpx.AsyncSecureTransport(verified)) as client,
            client.stream("GET", url) as answer,
        ):
            answer.raise_for_status()  # also for redirects, which may lead to a private address
            async for chunk in answer.aiter_bytes():
                data += chunk
                if len(data) > max_bytes:
                    break
    except Exception as error:
        raise SearchError(
            "There is no picture at {url} that this server can download; give a public URL or upload it.",
            url=url[:200],
        ) from error
    if len(data) > max_bytes:
        raise SearchError(
            "The file at {url} is larger than {megabytes:g} MB; send a smaller copy.",
            url=url[:200],
            megabytes=max_bytes / 2**20,
        )
    file = folder / hash_url(url) / "picture"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)
    return file
