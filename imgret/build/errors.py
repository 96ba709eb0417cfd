"""The error of a build."""

from imgret.errors import ImgretError


class BuildError(ImgretError):
    """An index that cannot be built; the text says why and what would work."""
