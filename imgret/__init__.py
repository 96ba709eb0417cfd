"""Image retrieval with basic maths: L1, L2, cosine and correlation on pixels, and CLIP embeddings in Chroma.

What stands in `__all__` is imported when first used, so that `import imgret` costs nothing.
"""

from importlib import import_module
from typing import Any

from imgret.privacy import opt_out

opt_out()

_HOMES = {
    "course": (
        "get_l1_score",
        "get_l2_score",
        "get_cosine_similarity_score",
        "get_correlation_coefficient_score",
        "get_single_image_embedding",
    ),
    "metrics": ("absolute_difference", "mean_square_difference", "cosine_similarity", "correlation_coefficient"),
    "errors": ("ImgretError",),
    "images": ("ImageError", "load_image"),
    "library": ("ImageLibrary", "LibraryError", "Record"),
    "encoders": ("Encoder", "EncoderError", "load_encoder"),
    "pixels": ("PixelIndex",),
    "vectors": ("ChromaServer", "VectorError"),
    "index": ("Index", "InvalidIndexError"),
    "build": ("BuildError", "build_index"),
    "search": ("Hit", "Retriever", "SearchError", "SearchWarning"),
    "duplicates": ("DuplicateGroup", "find_duplicates"),
    "evaluate": ("Evaluation", "EvaluationError"),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__version__ = "0.1.0"
__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'imgret' has no attribute {name!r}")
    return getattr(import_module(f"imgret.{_HOME_OF[name]}"), name)


def __dir__() -> list[str]:
    return [*globals(), *__all__]
