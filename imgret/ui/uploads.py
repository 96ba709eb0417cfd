"""Checks that the file in a request was uploaded to this server or shown by this page."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gradio.utils import get_upload_folder

from imgret.search import SearchError


def uploaded_file(value: Any, shown: Sequence[Path] = ()) -> Path:
    """The file behind the `FileData` dictionary that arrives for a picture. Raises SearchError.

    Gradio lets a raw request name any path, so the resolved path has to lie in Gradio's upload folder, or in one of
    `shown`, the folders that this page serves pictures from.
    """
    path = value.get("path") if isinstance(value, dict) else None
    if value is None or value == "":
        raise SearchError("There is no picture to search with; upload one or choose an example.")
    if not isinstance(path, str) or not path or "\0" in path:
        raise SearchError("The picture must be an uploaded file.")
    try:
        resolved = Path(path).resolve()
        allowed = any(resolved.is_relative_to(folder.resolve()) for folder in (Path(get_upload_folder()), *shown))
        if not allowed or not resolved.is_file():
            raise SearchError("The picture must be a file that was uploaded to this server.")
    except OSError:
        raise SearchError("The picture must be a file that was uploaded to this server.") from None
    return resolved
