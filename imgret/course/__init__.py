"""The functions of the course, by the names that its notebook gives them."""

from imgret.course.check import check
from imgret.course.collections import add_embedding, search
from imgret.course.embeddings import get_single_image_embedding
from imgret.course.pictures import folder_to_images, get_files_path, read_image_from_path
from imgret.course.plots import plot_results
from imgret.course.scores import (
    get_correlation_coefficient_score,
    get_cosine_similarity_score,
    get_l1_score,
    get_l2_score,
)

__all__ = [
    "add_embedding", "check", "folder_to_images", "get_correlation_coefficient_score",
    "get_cosine_similarity_score", "get_files_path", "get_l1_score", "get_l2_score", "get_single_image_embedding",
    "plot_results", "read_image_from_path", "search",
]  # fmt: skip
