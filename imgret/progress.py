"""How a long task tells how far it is."""

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called with (stage, done, total); total is None as long as it is not known."""


def no_progress(stage: str, done: int, total: int | None) -> None:
    """The `Progress` of a caller who wants to hear nothing."""
