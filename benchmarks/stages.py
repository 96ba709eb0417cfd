"""The seconds of each stage of a build, by its progress callback."""

import time


class Stages:
    """A progress callback that takes the time of each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._stage, self._since = "rows", time.perf_counter()

    def __call__(self, stage: str, done: int, total: int | None) -> None:
        if stage != self._stage:
            self._end()
            self._stage = stage

    def _end(self) -> None:
        now = time.perf_counter()
        self.seconds[self._stage] = self.seconds.get(self._stage, 0) + now - self._since
        self._since = now

    def ended(self) -> dict[str, float]:
        self._end()
        return self.seconds
