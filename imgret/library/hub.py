"""Asks the Hub about a data set: its commit, its configs and its splits."""

import re

from imgret.library.records import LibraryError
from imgret.network import hub_answers


def commit_of(source: str, revision: str | None) -> str:
    """The commit that `revision` of the Hub data set `source` stands for now, main by default.

    Raises LibraryError where there is none that may be read, or no Hub.
    """
    from huggingface_hub import HfApi, errors

    try:
        if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", source):
            raise errors.HFValidationError(source)
        if not hub_answers():
            raise LibraryError(
                "{source!r} is no folder or file here, and the Hub cannot be reached for a data set of that name.",
                source=source,
            )
        api = HfApi()
        info = api.dataset_info(source, revision=revision, timeout=10)
        if info.gated:
            api.auth_check(source, repo_type="dataset")
        return str(info.sha)
    except errors.GatedRepoError:
        raise LibraryError(
            "The data set {source} is gated: accept its terms on its page and set HF_TOKEN to your token.",
            source=source,
        ) from None
    except errors.RevisionNotFoundError:
        refs = api.list_repo_refs(source, repo_type="dataset")
        names = ", ".join(ref.name for ref in [*refs.branches, *refs.tags])
        raise LibraryError(
            "The data set {source} has no revision {revision!r}; it has {names}, and its commits.",
            source=source,
            revision=revision,
            names=names,
        ) from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        raise LibraryError(
            "There is no folder, file or Hub data set {source!r} that can be read; check the name, or set HF_TOKEN if "
            "it is private.",
            source=source,
        ) from None


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a commit: only a data set of the Hub has one."""
    return re.fullmatch("[0-9a-f]{40}", revision or "") is not None


def splits_of(source: str, config: str | None, commit: str | None) -> list[str]:
    import datasets

    try:
        return list(datasets.get_dataset_split_names(source, config, revision=commit))
    except ValueError:
        names = datasets.get_dataset_config_names(source, revision=commit)
        if config is not None and config not in names:
            raise LibraryError(
                "{source} has no config {config!r}; it has {names}.",
                source=source,
                config=config,
                names=", ".join(names),
            ) from None
        if config is None and len(names) > 1:
            raise LibraryError(
                "{source} has more than one config, so one of them must be named: {names}.",
                source=source,
                names=", ".join(names),
            ) from None
        raise
