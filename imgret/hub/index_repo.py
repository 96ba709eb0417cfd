"""Publishes an index as a model repo, one commit a version, and fetches it again, with every file's hash checked."""

import hashlib
import json
import logging
import re
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgret.errors import ImgretError, one_line
from imgret.manifest import MANIFEST, InvalidIndexError, Manifest, check_hashes, is_whole
from imgret.network import hub_answers
from imgret.progress import Progress, no_progress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

log = logging.getLogger(__name__)

MOUNT = Path("/index")
"""The mount path of the index as a read-only volume of a Space."""

_REPO = re.compile(r"[\w][\w.-]*/[\w][\w.-]*")
_HARMLESS = {".gitattributes", "README.md", "LICENSE"}
"""Files that the Hub puts into a new repo."""


class HubError(ImgretError):
    """An index that cannot be fetched or published; the text says why and what would work."""


@dataclass(frozen=True)
class Fetched:
    """An index with checked hashes: its folder, which must not be written to, and its origin."""

    folder: Path
    origin: str


@dataclass(frozen=True)
class Published:
    """An index as it now is on the Hub: the commit that holds it, and whether anything was uploaded."""

    repo: str
    commit: str
    changed: bool


def is_repo(name: str) -> bool:
    """Whether `name` has the form of a Hub repo, org/name."""
    return _REPO.fullmatch(name) is not None


def fetch(
    repo: str,
    mismatch: Callable[[Manifest], str | None] = lambda manifest: None,
    *,
    mount: Path = MOUNT,
    progress: Progress = no_progress,
) -> Fetched:
    """The index of the model repo `repo`: from the volume at `mount`, else from the Hub's cache, else downloaded there.

    `mismatch` returns why an index is not the one that is wanted, or None. An index that cannot be used is skipped,
    with a line in the log: one of a newer format, truncated, changed, or a mismatch. `progress` gets the bytes
    downloaded. The files belong to the Hub's cache, which other programs share: never write to them. Raises HubError or
    InvalidIndexError for the last choice.
    """
    if not is_repo(repo):
        raise HubError("{repo!r} is not the name of a repo, which has the form org/name.", repo=repo)
    for origin, folder in (
        ("the volume", mount if (mount / MANIFEST).is_file() else None),
        ("the Hub's cache", _cached(repo)),
    ):
        if folder is None:
            continue
        try:
            _checked(folder, mismatch, progress)
            return Fetched(folder, f"{origin} ({repo})")
        except (InvalidIndexError, HubError) as error:
            log.warning("The index %s in %s is passed over: %s", repo, origin, error)
    if not hub_answers():
        raise HubError("The index {repo} is not at hand, and the Hub cannot be reached for it.", repo=repo)
    with hub_errors(repo):
        return Fetched(_download(repo, mismatch, progress), f"the Hub ({repo})")


def read_manifest(repo: str) -> Manifest | None:
    """The manifest of the index that is in `repo` on the Hub now, or None without a repo or index. Raises HubError, and
    InvalidIndexError for a manifest that cannot be read.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError

    with hub_errors(repo):
        try:
            return Manifest.read(Path(hf_hub_download(repo, MANIFEST)).parent)
        except (RepositoryNotFoundError, RemoteEntryNotFoundError):
            return None


def publish(
    folder: Path,
    repo: str,
    companions: Callable[[], Mapping[str, bytes]] = dict,
    *,
    create: bool = False,
    private: bool = False,
) -> Published:
    """Uploads the index in `folder` to the model repo `repo` in one commit, or does nothing if the repo has it already.

    `companions` returns further files for the commit by name, such as the model card; it is called only if there is
    something to upload. `create` creates a missing repo, public unless `private`. Local paths are not published: the
    source of a local library becomes its name. Raises HubError, before anything is sent if the token cannot write, and
    InvalidIndexError for an index that is damaged.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    manifest = Manifest.read(folder)
    if manifest.vectors is not None:
        raise HubError(
            "The vectors of the index in {folder} are on a Chroma server, and a published index carries "
            "its own; build it again with IMGRET_CHROMA_URL unset, which embeds nothing anew, and "
            "publish that.",
            folder=folder,
        )
    check_hashes(folder, manifest)
    manifest = replace(manifest, library=replace(manifest.library, source=manifest.library.name))
    api = HfApi()
    with hub_errors(repo):
        check_writer(api, repo)
        if not api.repo_exists(repo):
            if not create:
                raise HubError("There is no model repo {repo}; check the name, or create it with --create.", repo=repo)
            api.create_repo(repo, private=private, exist_ok=True)
        head = str(api.model_info(repo).sha)
        there = files_of(api, repo, head)
        if MANIFEST not in there and (other := sorted(there.keys() - _HARMLESS)):
            raise HubError(
                "The model repo {repo} holds something else than an index ({other}); name another one.",
                repo=repo,
                other=other[0],
            )
        if _holds(repo, there, manifest):
            return Published(repo, head, changed=False)
        given: dict[str, bytes | Path] = {name: folder / name for name in manifest.files}
        given |= {MANIFEST: manifest.to_json().encode()} | dict(companions())
        gone = {name.split("/")[0] + "/" for name in there if name.startswith("data-") and name not in given}
        operations: list[Any] = [CommitOperationDelete(name, is_folder=True) for name in sorted(gone)]
        operations += [CommitOperationAdd(name, content) for name, content in given.items()]
        made = f"Index of {manifest.count} pictures from {manifest.library.source}, encoder {manifest.encoder.uri}"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of .arrow files in a model repo; a data set repo would not be preloaded
            commit = api.create_commit(repo, operations, commit_message=made, parent_commit=head, num_threads=2)
        return Published(repo, commit.oid, changed=True)


def check_writer(api: "HfApi", repo: str) -> None:
    """Raises HubError without a token that can write to `repo`. It sends nothing but the token."""
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    if not is_repo(repo):
        raise HubError("{repo!r} is not the name of a repo, which has the form org/name.", repo=repo)
    if not hub_answers():
        raise HubError("The Hub cannot be reached; try again when there is a network.")
    try:
        who = api.whoami(cache=True)
    except LocalTokenNotFoundError:
        raise HubError("There is no token to write with; set HF_TOKEN or run hf auth login.") from None
    except HfHubHTTPError as error:
        if error.response.status_code != 401:
            raise
        raise HubError(
            "The Hub does not know the token; make a new one and set HF_TOKEN or run hf auth login."
        ) from None
    token = who.get("auth", {}).get("accessToken", {})
    fine_grained = token.get("fineGrained")
    if token.get("role") == "read" or (fine_grained is not None and "write" not in json.dumps(fine_grained)):
        raise HubError(
            "The token {token!r} of {who} can only read; make one that can write.",
            token=token.get("displayName", ""),
            who=who["name"],
        )
    owner = repo.split("/")[0]
    members = [who["name"], *(org["name"] for org in who.get("orgs", []))]
    if owner not in members:
        raise HubError(
            "The token belongs to {who}, who can write for {members} but not for {owner}.",
            who=who["name"],
            members=", ".join(members),
            owner=owner,
        )


def files_of(api: "HfApi", repo: str, revision: str, kind: str = "model") -> dict[str, "RepoFile"]:
    """The files of a repo at a commit, by path."""
    from huggingface_hub.hf_api import RepoFile

    tree = api.list_repo_tree(repo, recursive=True, revision=revision, repo_type=kind)
    return {file.path: file for file in tree if isinstance(file, RepoFile)}


def is_same(remote: "RepoFile | None", content: bytes | Path) -> bool:
    """Whether a file on the Hub has this content, by size and hash."""
    size = len(content) if isinstance(content, bytes) else content.stat().st_size
    if remote is None or remote.size != size:
        return False
    data = content if isinstance(content, bytes) else content.read_bytes()
    if remote.lfs is not None:
        return bool(remote.lfs.sha256 == hashlib.sha256(data).hexdigest())
    return bool(remote.blob_id == hashlib.sha1(b"blob %d\0" % size + data).hexdigest())


@contextmanager
def hub_errors(repo: str) -> "Iterator[None]":
    """Converts the many errors of the Hub's client to HubErrors with one sentence about `repo`."""
    from huggingface_hub import errors

    try:
        yield
    except ValueError as error:
        if isinstance(error, errors.HfHubHTTPError | errors.HFValidationError):
            raise HubError("The Hub refuses {repo} ({reason}).", repo=repo, reason=one_line(error)) from error
        raise
    except errors.GatedRepoError:
        raise HubError(
            "{repo} is gated: accept its terms on its page and set HF_TOKEN to your token.", repo=repo
        ) from None
    except errors.RepositoryNotFoundError:
        raise HubError("The Hub has no {repo}; check the name, or set HF_TOKEN if it is private.", repo=repo) from None
    except errors.RemoteEntryNotFoundError:
        raise HubError(
            "{repo} holds no index (no {manifest}); publish one there with imgret publish.",
            repo=repo,
            manifest=MANIFEST,
        ) from None
    except errors.HfHubHTTPError as error:
        if error.response.status_code == 412:
            raise HubError("{repo} was changed by somebody else meanwhile; try again.", repo=repo) from None
        if error.response.status_code == 402:
            raise HubError("The Hub does this to {repo} only for a paid plan.", repo=repo) from None
        if error.response.status_code in (401, 403):
            raise HubError("The token cannot do this to {repo}; make one that can write there.", repo=repo) from None
        raise HubError("The Hub refuses {repo} ({reason}).", repo=repo, reason=one_line(error)) from error
    except Exception as error:
        # The network, the disk, and what the client makes of them; its errors of the network are those of httpx.
        if not isinstance(error, OSError | RuntimeError) and not type(error).__module__.startswith("http"):
            raise
        raise HubError(
            "The Hub broke off with {repo} ({reason}); try again.", repo=repo, reason=one_line(error.__cause__ or error)
        ) from error


def _cached(repo: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, MANIFEST)
    return Path(found).parent if isinstance(found, str) else None


def _checked(folder: Path, mismatch: Callable[[Manifest], str | None], progress: Progress) -> None:
    manifest = Manifest.read(folder)
    if (why := mismatch(manifest)) is not None:
        raise HubError(why)
    progress("check the index", 0, None)
    check_hashes(folder, manifest)


def _download(repo: str, mismatch: Callable[[Manifest], str | None], progress: Progress) -> Path:
    """Downloads what the Hub's cache lacks of the newest commit of `repo`, and returns its folder."""
    from huggingface_hub import hf_hub_download

    folder = Path(hf_hub_download(repo, MANIFEST)).parent
    try:
        manifest = Manifest.read(folder)
    except InvalidIndexError:  # is it the Hub's copy, or the one in the cache?
        hf_hub_download(repo, MANIFEST, revision=folder.name, force_download=True)
        manifest = Manifest.read(folder)
    if (why := mismatch(manifest)) is not None:
        raise HubError("The index {repo} does not fit: {reason}", repo=repo, reason=why)
    total = sum(entry.size for entry in manifest.files.values())
    done = 0

    def hear(received: int) -> None:
        progress("download the index", min(done + received, total), total)

    for name, entry in manifest.files.items():
        path = folder / name
        if not is_whole(path, entry):
            hf_hub_download(repo, name, revision=folder.name, force_download=path.exists(), tqdm_class=_heard_bar(hear))
            if not is_whole(path, entry):
                raise HubError(
                    "The index {repo} is damaged on the Hub ({name} has changed); publish it anew.",
                    repo=repo,
                    name=name,
                )
        done += entry.size
        hear(0)
    return folder


def _heard_bar(hear: Callable[[int], None]) -> type:
    """A progress bar for the Hub's client that shows nothing and passes the bytes of its file to `hear`."""
    from tqdm import tqdm

    class Bar(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs | {"disable": True})
            self.received = 0

        def update(self, n: float | None = 1) -> None:
            self.received += int(n or 0)
            hear(self.received)

    return Bar


def _holds(repo: str, there: Mapping[str, "RepoFile"], manifest: Manifest) -> bool:
    """Whether the files of a repo are those of `manifest`, whatever its date of creation."""
    if MANIFEST not in there:
        return False
    try:
        published = read_manifest(repo)
    except InvalidIndexError:
        return False
    if published is None or replace(published, created=manifest.created) != manifest:
        return False
    for name, entry in manifest.files.items():
        file = there.get(name)
        if file is None or file.size != entry.size or (file.lfs is not None and file.lfs.sha256 != entry.sha256):
            return False
    return True
