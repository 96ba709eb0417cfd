"""How a long task reports its progress."""

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called with (stage, done, total); total is None as long as it is not known."""


StageProgress = Callable[[int, int], None]
"""The same for one stage: called with (done, total)."""


def no_progress(stage: str, done: int, total: int | None) -> None:
    """The `Progress` of a caller who wants to hear nothing."""
