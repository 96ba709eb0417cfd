"""Builds an index of a library: `build_index`."""

from imgret.build.pipeline import BuildError, Progress, build_index

__all__ = ["BuildError", "Progress", "build_index"]
