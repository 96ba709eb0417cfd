"""Makes a Hugging Face Space that serves a library, in steps that say what they will do and do only what is due."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgret.build import Progress, build_index
from imgret.hub.index_repo import MOUNT, HubError, check_writer, files_of, is_same, publish, read_manifest, told
from imgret.hub.model_card import describe
from imgret.hub.requirements import space_requirements
from imgret.index import LibraryInfo
from imgret.library import ImageLibrary
from imgret.settings import EXAMPLES

if TYPE_CHECKING:
    from huggingface_hub import HfApi, SpaceHardware

ROOT = EXAMPLES.parent
FILES = ("app.py", "LICENSE")
FOLDERS = ("imgret", "examples")
NEW_SPACE = "cpu-basic"
"""The hardware that the Hub gives a new Space if none is asked for."""
FREE = "zero-a10g"
"""The hardware of which a free account may have two Gradio Spaces."""
VARIABLES = tuple(f"IMGRET_{name}" for name in ("LIBRARY", "CONFIG", "SPLIT", "REVISION", "LIMIT", "ENCODER", "INDEX"))
"""The variables of a Space that are set, or taken away, so that it serves what was asked for; others are left alone."""


@dataclass(frozen=True)
class Wanted:
    """What a Space is to serve: a library, as it is named and as it was found, its encoder, and where its index is.

    `revision` is the one to stay at, None to follow the library; `folder` is where the index is built if it must be.
    `hardware` is what the Space runs on, None to leave that as it is; `private` is of what has to be created. With
    `store_token` the Space gets the token that deploys it as its secret HF_TOKEN.
    """

    space: str
    index: str
    library: ImageLibrary
    revision: str | None
    encoder: str
    pixel_size: int
    folder: Path
    hardware: str | None = None
    private: bool = False
    store_token: bool = False
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
    """Brings the Space and its index on the Hub to what is wanted. What may be refused comes first, building the index
    after it, and what makes the Space start with that index last.

    `say` hears each step before it is done; with `dry_run` nothing else happens. What is current stays as it is. Raises
    HubError, and what building an index raises; a second run goes on where a first one ended.
    """
    from huggingface_hub import HfApi

    if not (ROOT / "app.py").is_file():
        raise HubError("A Space gets the project's own files, so deploy runs from a checkout of it.")
    if wanted.hardware is not None:
        _hardware(wanted.hardware)
    api = HfApi()
    for repo in (wanted.space, wanted.index):
        check_writer(api, repo)
    with told(wanted.space):
        for step in _steps(api, wanted, say, progress):
            say(f"{'done already' if step.run is None else 'to do' if dry_run else 'doing'}: {step.says}")
            if step.run is not None and not dry_run:
                step.run()
    say(f"the Space: {api.endpoint}/spaces/{wanted.space}")


def _steps(api: "HfApi", wanted: Wanted, say: Callable[[str], None], progress: Progress) -> Iterator[Step]:
    """The steps in their order: each looks at the Hub when its turn comes, so it sees what those before it did."""
    yield _space_step(api, wanted)
    if wanted.hardware is not None:
        yield _hardware_step(api, wanted, wanted.hardware)
    if wanted.store_token:
        yield _secret_step(api, wanted)
    yield _index_repo_step(api, wanted)
    yield _volume_step(api, wanted, say)
    index = _index_step(wanted, progress)
    yield index
    yield _variables_step(api, wanted)
    files = _files_step(api, wanted)
    yield files
    if index.run is not None and files.run is None:  # new files would have the Space built anew, a new index does not
        yield Step(
            f"build {wanted.space} anew, so that it starts with the new index",
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


def space_readme(wanted: Wanted, text: str, *, preloads: bool) -> str:
    """The project's README `text` with the YAML block of the Space: its model and data set named, and its index
    preloaded, if it may be. A preload that is private or not there fails the build of a Space.
    """
    from huggingface_hub import RepoCard

    library = LibraryInfo.of(wanted.library)
    card = RepoCard(text)
    card.data["preload_from_hub"] = [wanted.index] if preloads else None
    card.data["models"] = [wanted.index] if preloads else []
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

        publish(wanted.folder, wanted.index, companions)

    manifest = read_manifest(wanted.index)
    why = "there is none yet" if manifest is None else manifest.misfit(library.name, wanted.encoder, **_part(library))
    return Step(
        f"build the index of {library.name} with {wanted.encoder} and publish it as {wanted.index}"
        + (f", as {why.rstrip('.')}" if why else ""),
        build_and_publish if why else None,
    )


def _part(library: LibraryInfo) -> dict[str, Any]:
    return {name: getattr(library, name) for name in ("config", "split", "revision", "limit")}


def _space_step(api: "HfApi", wanted: Wanted) -> Step:
    from huggingface_hub.errors import HfHubHTTPError

    hardware = wanted.hardware or NEW_SPACE

    def create() -> None:
        variables = [{"key": name, "value": value} for name, value in space_variables(wanted).items()]
        try:
            api.create_repo(
                wanted.space,
                repo_type="space",
                space_sdk="gradio",
                space_hardware=_hardware(hardware),
                private=wanted.private,
                space_variables=variables,
            )
        except HfHubHTTPError as error:
            if error.response.status_code != HTTPStatus.PAYMENT_REQUIRED:
                raise
            other = (
                f"delete one of the two {FREE} Spaces that a free account may have"
                if hardware == FREE
                else f"add --hardware {FREE}, of which a free account may have two"
            )
            raise HubError(
                f"The Hub creates a Gradio Space on {hardware} only for a paid plan: subscribe to one, or {other}."
            ) from None

    visibility = "private" if wanted.private else "public"
    there = api.repo_exists(wanted.space, repo_type="space")
    return Step(
        f"create the {visibility} Space {wanted.space} on {hardware} with its variables", None if there else create
    )


def _hardware(name: str) -> "SpaceHardware":
    from huggingface_hub import SpaceHardware

    try:
        return SpaceHardware(name)
    except ValueError:
        known = ", ".join(one.value for one in SpaceHardware)
        raise HubError(f"There is no hardware {name!r} for a Space; there are {known}.") from None


def _hardware_step(api: "HfApi", wanted: Wanted, hardware: str) -> Step:
    there = hardware  # of a Space that is still to be created
    if api.repo_exists(wanted.space, repo_type="space"):
        there = api.get_space_runtime(wanted.space).requested_hardware or NEW_SPACE
    return Step(
        f"run {wanted.space} on {hardware}",
        None if there == hardware else lambda: api.request_space_hardware(wanted.space, _hardware(hardware)),
    )


def _secret_step(api: "HfApi", wanted: Wanted) -> Step:
    from huggingface_hub import get_token

    there = api.repo_exists(wanted.space, repo_type="space") and "HF_TOKEN" in api.get_space_secrets(wanted.space)
    return Step(
        f"store your token as the secret HF_TOKEN of {wanted.space}, which reads a private index with it",
        None if there else lambda: api.add_space_secret(wanted.space, "HF_TOKEN", str(get_token())),
    )


def _index_repo_step(api: "HfApi", wanted: Wanted) -> Step:
    visibility = "private" if wanted.private else "public"
    there = api.repo_exists(wanted.index)
    return Step(
        f"create the {visibility} model repo {wanted.index} for its index",
        None if there else lambda: api.create_repo(wanted.index, private=wanted.private, exist_ok=True),
    )


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
            return
        except HfHubHTTPError as error:
            refusal = f"The Hub offers no volume here ({error.response.status_code})"
        if not _is_private(api, wanted):
            say(f"without a volume: {refusal}, so the index is preloaded")
        elif wanted.store_token or "HF_TOKEN" in api.get_space_secrets(wanted.space):
            say(f"without a volume: {refusal}, so the Space downloads its private index with its secret HF_TOKEN")
        else:
            raise HubError(
                f"{refusal}, and {wanted.space} cannot read the private {wanted.index} without a token: "
                "add --store-token, which gives it yours as its secret HF_TOKEN."
            )

    mounted = [(other.type, other.source) for other in there if other.mount_path == volume.mount_path]
    return Step(
        f"mount {wanted.index} at {MOUNT}, read-only",
        None if mounted == [(volume.type, volume.source)] else mount,
    )


def _is_private(api: "HfApi", wanted: Wanted) -> bool:
    return bool(api.model_info(wanted.index).private) if api.repo_exists(wanted.index) else wanted.private


def _files_step(api: "HfApi", wanted: Wanted) -> Step:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    preloads = not _is_private(api, wanted)
    readme = space_readme(wanted, (ROOT / "README.md").read_text(encoding="utf-8"), preloads=preloads)
    files: dict[str, bytes | Path] = {name: ROOT / name for name in FILES}
    files |= {"README.md": readme.encode(), "requirements.txt": space_requirements().encode()}
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
        f"send the Space {len(changed)} of its {len(files)} files, without torch in its requirements.txt"
        + (f", with {wanted.index} preloaded by README.md" if preloads else "")
        + (f", and remove {len(gone)}" if gone else ""),
        commit if changed or gone else None,
    )
