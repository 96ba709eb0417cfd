"""Builds the index of a library, with threads or on Ray."""

from imgret.build.pipeline import BuildError, Progress, build_index

__all__ = ["BuildError", "Progress", "build_index"]
