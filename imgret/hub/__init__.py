"""Indexes and Spaces on the Hugging Face Hub. The client of the Hub is not imported before it is asked."""

from imgret.hub.index_repo import MOUNT, HubError, fetch, is_repo, publish

__all__ = ["MOUNT", "HubError", "fetch", "is_repo", "publish"]
