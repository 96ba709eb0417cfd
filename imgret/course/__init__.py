"""The functions of the course, by the names that its notebook gives them."""

from imgret.course.check import check
from imgret.course.scores import (
    get_correlation_coefficient_score,
    get_cosine_similarity_score,
    get_l1_score,
    get_l2_score,
    get_single_image_embedding,
)

__all__ = [
    "check",
    "get_correlation_coefficient_score",
    "get_cosine_similarity_score",
    "get_l1_score",
    "get_l2_score",
    "get_single_image_embedding",
]
