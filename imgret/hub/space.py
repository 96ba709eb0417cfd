"""How does a library become a Space that serves it? Steps that say what they will do, and then do only what is due."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgret.build import Progress, build_index
from imgret.hub.index_repo import MOUNT, HubError, check_writer, files_of, is_same, publish, read_manifest, told
from imgret.hub.model_card import describe
from imgret.index import LibraryInfo
from imgret.library import ImageLibrary
from imgret.settings import EXAMPLES

if TYPE_CHECKING:
    from huggingface_hub import HfApi

ROOT = EXAMPLES.parent
FILES = ("app.py", "requirements.txt", "LICENSE")
FOLDERS = ("imgret", "examples")
VARIABLES = tuple(f"IMGRET_{name}" for name in ("LIBRARY", "CONFIG", "SPLIT", "REVISION", "LIMIT", "ENCODER", "INDEX"))
"""The variables of a Space that are set, or taken away, so that it serves what was asked for; others are left alone."""


@dataclass(frozen=True)
class Wanted:
    """What a Space is to serve: a library, as it is named and as it was found, its encoder, and where its index is.

    `revision` is the one to stay at, None to follow the library; `folder` is where the index is built if it must be.
    """

    space: str
    index: str
    library: ImageLibrary
    revision: str | None
    encoder: str
    pixel_size: int
    folder: Path
    private: bool = False
    license: str | None = None
    cache: Path | None = None


@dataclass(frozen=True)
class Step:
    """One thing that deploying does: a sentence, and how it is done; None where it is done already."""

    says: str
    run: Callable[[], Any] | None


def deploy(
    wanted: Wanted,
    *,
    dry_run: bool = False,
    say: Callable[[str], None] = print,
    progress: Progress = lambda stage, done, total: None,
) -> None:
    """Brings the index and the Space on the Hub to what is wanted: first published, then served.

    `say` hears each step before it is done; with `dry_run` nothing else happens. What is current stays as it is. Raises
    HubError, and what building an index raises; a second run goes on where a first one ended.
    """
    from huggingface_hub import HfApi

    if not (ROOT / "app.py").is_file():
        raise HubError("A Space gets the project's own files, so deploy runs from a checkout of it.")
    api = HfApi()
    for repo in (wanted.index, wanted.space):
        check_writer(api, repo)
    with told(wanted.space):
        for step in _steps(api, wanted, say, progress):
            say(f"{'done already' if step.run is None else 'to do' if dry_run else 'doing'}: {step.says}")
            if step.run is not None and not dry_run:
                step.run()


def _steps(api: "HfApi", wanted: Wanted, say: Callable[[str], None], progress: Progress) -> Iterator[Step]:
    """The steps in their order: each looks at the Hub when its turn comes, so it sees what those before it did."""
    index = _index_step(wanted, progress)
    yield index
    yield _space_step(api, wanted)
    yield _variables_step(api, wanted)
    yield _volume_step(api, wanted, say)
    files = _files_step(api, wanted)
    yield files
    if index.run is not None and files.run is None:  # new files would have the Space built anew, a new index does not
        yield Step(
            f"build {wanted.space} anew, so that it preloads the new index",
            lambda: api.restart_space(wanted.space, factory_reboot=True),
        )


def space_variables(wanted: Wanted) -> dict[str, str]:
    """The variables of the Space, by name."""
    library = LibraryInfo.of(wanted.library)
    values = {
        "IMGRET_LIBRARY": library.name,
        "IMGRET_CONFIG": library.config,
        "IMGRET_SPLIT": library.split,
        "IMGRET_REVISION": wanted.revision,
        "IMGRET_LIMIT": library.limit,
        "IMGRET_ENCODER": wanted.encoder,
        "IMGRET_INDEX": wanted.index,
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def space_readme(wanted: Wanted, text: str) -> str:
    """The project's README `text` with the YAML block of the Space: its index preloaded, model and data set named."""
    from huggingface_hub import RepoCard

    library = LibraryInfo.of(wanted.library)
    card = RepoCard(text)
    card.data["preload_from_hub"] = [wanted.index]
    card.data["models"] = [wanted.index]
    if wanted.encoder.startswith("hf-hub:"):
        card.data["models"].append(wanted.encoder.removeprefix("hf-hub:"))
    card.data["datasets"] = [library.source] if library.on_hub else None
    return str(card)


def _index_step(wanted: Wanted, progress: Progress) -> Step:
    library = LibraryInfo.of(wanted.library)

    def build_and_publish() -> None:
        index = build_index(
            wanted.library, wanted.folder, wanted.encoder, wanted.pixel_size, progress=progress, cache=wanted.cache
        )
        index.close()

        def companions() -> Mapping[str, bytes]:
            return describe(wanted.folder, wanted.index, wanted.license, cache=wanted.cache)

        publish(wanted.folder, wanted.index, companions, create=True, private=wanted.private)

    manifest = read_manifest(wanted.index)
    why = "there is none yet" if manifest is None else manifest.misfit(library.name, wanted.encoder, **_part(library))
    visibility = "private" if wanted.private else "public"
    return Step(
        f"build the index of {library.name} with {wanted.encoder} and publish it as the {visibility} {wanted.index}"
        + (f", as {why.rstrip('.')}" if why else ""),
        build_and_publish if why else None,
    )


def _part(library: LibraryInfo) -> dict[str, Any]:
    return {name: getattr(library, name) for name in ("config", "split", "revision", "limit")}


def _space_step(api: "HfApi", wanted: Wanted) -> Step:
    def create() -> None:
        variables = [{"key": name, "value": value} for name, value in space_variables(wanted).items()]
        api.create_repo(
            wanted.space, repo_type="space", space_sdk="gradio", private=wanted.private, space_variables=variables
        )

    visibility = "private" if wanted.private else "public"
    there = api.repo_exists(wanted.space, repo_type="space")
    return Step(f"create the {visibility} Space {wanted.space} with its variables", None if there else create)


def _variables_step(api: "HfApi", wanted: Wanted) -> Step:
    variables = space_variables(wanted)
    there = {}
    if api.repo_exists(wanted.space, repo_type="space"):
        there = {name: variable.value for name, variable in api.get_space_variables(wanted.space).items()}
    changed = {name: value for name, value in variables.items() if there.get(name) != value}
    gone = [name for name in VARIABLES if name in there and name not in variables]

    def set_variables() -> None:
        for name, value in changed.items():
            api.add_space_variable(wanted.space, name, value)
        for name in gone:
            api.delete_space_variable(wanted.space, name)

    values = [f"{name}={value}" for name, value in variables.items()] + [f"no {name}" for name in gone]
    return Step(f"set the variables {', '.join(values)}", set_variables if changed or gone else None)


def _volume_step(api: "HfApi", wanted: Wanted, say: Callable[[str], None]) -> Step:
    from huggingface_hub import Volume
    from huggingface_hub.errors import HfHubHTTPError

    volume = Volume(type="model", source=wanted.index, mount_path=str(MOUNT), read_only=True)
    there = []
    if api.repo_exists(wanted.space, repo_type="space"):
        there = api.get_space_runtime(wanted.space).volumes or []
    others = [other for other in there if other.mount_path != volume.mount_path]

    def mount() -> None:
        try:
            api.set_space_volumes(wanted.space, [*others, volume])
        except HfHubHTTPError as error:
            say(f"without a volume: the Hub offers none here ({error.response.status_code}), so the index is preloaded")

    mounted = [(other.type, other.source) for other in there if other.mount_path == volume.mount_path]
    return Step(
        f"mount {wanted.index} at {MOUNT}, read-only",
        None if mounted == [(volume.type, volume.source)] else mount,
    )


def _files_step(api: "HfApi", wanted: Wanted) -> Step:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    readme = space_readme(wanted, (ROOT / "README.md").read_text(encoding="utf-8"))
    files: dict[str, bytes | Path] = {"README.md": readme.encode()} | {name: ROOT / name for name in FILES}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                files[path.relative_to(ROOT).as_posix()] = path
    there, head = {}, None
    if api.repo_exists(wanted.space, repo_type="space"):
        head = api.space_info(wanted.space).sha
        there = files_of(api, wanted.space, str(head), "space")
    changed = [name for name, content in files.items() if not is_same(there.get(name), content)]
    gone = [name for name in there if name.split("/")[0] in FOLDERS and name not in files]

    def commit() -> None:
        operations: list[Any] = [CommitOperationDelete(name) for name in gone]
        operations += [CommitOperationAdd(name, files[name]) for name in changed]
        api.create_commit(
            wanted.space, operations, commit_message="Serve the library", repo_type="space", parent_commit=head
        )

    return Step(
        f"send the Space {len(changed)} of its {len(files)} files, with {wanted.index} preloaded by README.md"
        + (f", and remove {len(gone)}" if gone else ""),
        commit if changed or gone else None,
    )
