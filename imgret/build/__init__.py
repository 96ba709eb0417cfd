"""Builds the index of a library, with threads or on Ray."""

from imgret.build.errors import BuildError
from imgret.build.pipeline import build_index
from imgret.progress import Progress

__all__ = ["BuildError", "Progress", "build_index"]
