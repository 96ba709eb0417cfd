"""Publishes and fetches indexes, and deploys Spaces, on the Hugging Face Hub."""

from imgret.hub.index_repo import MOUNT, HubError, fetch, is_repo, publish

__all__ = ["MOUNT", "HubError", "fetch", "is_repo", "publish"]
