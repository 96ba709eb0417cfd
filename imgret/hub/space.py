"""Makes a Hugging Face Space that serves a library, in steps that say what they will do and do only what is due."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imgret.build import build_index
from imgret.hub.index_repo import MOUNT, HubError, check_writer, files_of, hub_errors, is_same, publish, read_manifest
from imgret.hub.model_card import render_card
from imgret.hub.requirements import space_requirements
from imgret.library import ImageLibrary
from imgret.manifest import LibraryInfo
from imgret.progress import Progress, no_progress
from imgret.settings import EXAMPLES

if TYPE_CHECKING:
    from huggingface_hub import HfApi, SpaceHardware

ROOT = EXAMPLES.parent
FILES = ("app.py", "LICENSE", "README.vi.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
FOLDERS = ("imgret", "examples", "docs")
"""What a Space gets besides README.md and requirements.txt: what the app needs, and what the README links to."""
NEW_SPACE = "cpu-basic"
"""The hardware that the Hub gives a new Space if none is asked for."""
FREE = "zero-a10g"
"""The hardware of which a free account may have two Gradio Spaces."""
VARIABLES = tuple(f"IMGRET_{name}" for name in ("LIBRARY", "CONFIG", "SPLIT", "REVISION", "LIMIT", "ENCODER", "INDEX"))
"""The variables of a Space that deploying sets or deletes. It leaves all others alone."""


@dataclass(frozen=True)
class SpaceSpec:
    """What to deploy: the Space, the repo of its index, and the library and encoder of that index.

    `revision` pins the library; None follows it. `folder` is where the index is built if it must be. `hardware` is what
    the Space runs on; None leaves it as it is. `private` applies to repos that have to be created. With `store_token`
    the Space gets the token that deploys it as its secret HF_TOKEN.
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
    """One step of deploying: a sentence, and the function that does it, None if it is done already."""

    says: str
    run: Callable[[], Any] | None


def deploy(spec: SpaceSpec, *, dry_run: bool = False, progress: Progress = no_progress) -> None:
    """Creates or updates a Space and its index on the Hub.

    The steps that the Hub may refuse come first, then the index is built, and the step that starts the Space is last.
    Each step is printed before it is done; with `dry_run` nothing else happens. What is current stays as it is. Raises
    HubError, and what building an index raises; a second run goes on where a first one ended.
    """
    from huggingface_hub import HfApi

    if not (ROOT / "app.py").is_file():
        raise HubError("A Space gets the project's own files, so deploy runs from a checkout of it.")
    if spec.hardware is not None:
        _hardware(spec.hardware)
    api = HfApi()
    for repo in (spec.space, spec.index):
        check_writer(api, repo)
    with hub_errors(spec.space):
        for step in _steps(api, spec, progress):
            print(f"{'done already' if step.run is None else 'to do' if dry_run else 'doing'}: {step.says}")
            if step.run is not None and not dry_run:
                step.run()
    print(f"the Space: {api.endpoint}/spaces/{spec.space}")


def _steps(api: "HfApi", spec: SpaceSpec, progress: Progress) -> Iterator[Step]:
    """The steps in their order. Each looks at the Hub when its turn comes, so it sees what the earlier steps did."""
    yield _space_step(api, spec)
    if spec.hardware is not None:
        yield _hardware_step(api, spec, spec.hardware)
    if spec.store_token:
        yield _secret_step(api, spec)
    yield _index_repo_step(api, spec)
    yield _volume_step(api, spec)
    index = _index_step(spec, progress)
    yield index
    yield _variables_step(api, spec)
    files = _files_step(api, spec)
    yield files
    if index.run is not None and files.run is None:  # new files restart the Space, a new index does not
        yield Step(
            f"build {spec.space} anew, so that it starts with the new index",
            lambda: api.restart_space(spec.space, factory_reboot=True),
        )


def space_variables(spec: SpaceSpec) -> dict[str, str]:
    """The variables of the Space, by name."""
    library = LibraryInfo.of(spec.library)
    values = {
        "IMGRET_LIBRARY": library.name,
        "IMGRET_CONFIG": library.config,
        "IMGRET_SPLIT": library.split,
        "IMGRET_REVISION": spec.revision,
        "IMGRET_LIMIT": library.limit,
        "IMGRET_ENCODER": spec.encoder,
        "IMGRET_INDEX": spec.index,
    }
    return {name: str(value) for name, value in values.items() if value is not None}


def space_readme(spec: SpaceSpec, text: str, *, preloads: bool) -> str:
    """The project's README `text` with the YAML block of the Space: its model and data set named, and its index
    preloaded, if it may be. A preload that is private or not there fails the build of a Space.
    """
    from huggingface_hub import RepoCard

    library = LibraryInfo.of(spec.library)
    card = RepoCard(text)
    card.data["preload_from_hub"] = [spec.index] if preloads else None
    card.data["models"] = [spec.index] if preloads else []
    if spec.encoder.startswith("hf-hub:"):
        card.data["models"].append(spec.encoder.removeprefix("hf-hub:"))
    card.data["datasets"] = [library.source] if library.on_hub else None
    return str(card)


def _index_step(spec: SpaceSpec, progress: Progress) -> Step:
    library = LibraryInfo.of(spec.library)

    def build_and_publish() -> None:
        index = build_index(
            spec.library, spec.folder, spec.encoder, spec.pixel_size, progress=progress, cache=spec.cache
        )
        index.close()

        def companions() -> Mapping[str, bytes]:
            return render_card(spec.folder, spec.index, spec.license, cache=spec.cache)

        publish(spec.folder, spec.index, companions)

    manifest = read_manifest(spec.index)
    why = "there is none yet" if manifest is None else manifest.mismatch(library.name, spec.encoder, **library.part)
    return Step(
        f"build the index of {library.name} with {spec.encoder} and publish it as {spec.index}"
        + (f", as {why.rstrip('.')}" if why else ""),
        build_and_publish if why else None,
    )


def _space_step(api: "HfApi", spec: SpaceSpec) -> Step:
    from huggingface_hub.errors import HfHubHTTPError

    hardware = spec.hardware or NEW_SPACE

    def create() -> None:
        variables = [{"key": name, "value": value} for name, value in space_variables(spec).items()]
        try:
            api.create_repo(
                spec.space,
                repo_type="space",
                space_sdk="gradio",
                space_hardware=_hardware(hardware),
                private=spec.private,
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
                "The Hub creates a Gradio Space on {hardware} only for a paid plan: subscribe to one, or {other}.",
                hardware=hardware,
                other=other,
            ) from None

    visibility = "private" if spec.private else "public"
    there = api.repo_exists(spec.space, repo_type="space")
    return Step(
        f"create the {visibility} Space {spec.space} on {hardware} with its variables", None if there else create
    )


def _hardware(name: str) -> "SpaceHardware":
    from huggingface_hub import SpaceHardware

    try:
        return SpaceHardware(name)
    except ValueError:
        known = ", ".join(one.value for one in SpaceHardware)
        raise HubError(
            "There is no hardware {name!r} for a Space; there are {known}.", name=name, known=known
        ) from None


def _hardware_step(api: "HfApi", spec: SpaceSpec, hardware: str) -> Step:
    there = hardware  # of a Space that is still to be created
    if api.repo_exists(spec.space, repo_type="space"):
        there = api.get_space_runtime(spec.space).requested_hardware or NEW_SPACE
    return Step(
        f"run {spec.space} on {hardware}",
        None if there == hardware else lambda: api.request_space_hardware(spec.space, _hardware(hardware)),
    )


def _secret_step(api: "HfApi", spec: SpaceSpec) -> Step:
    from huggingface_hub import get_token

    there = api.repo_exists(spec.space, repo_type="space") and "HF_TOKEN" in api.get_space_secrets(spec.space)
    return Step(
        f"store your token as the secret HF_TOKEN of {spec.space}, which reads a private index with it",
        None if there else lambda: api.add_space_secret(spec.space, "HF_TOKEN", str(get_token())),
    )


def _index_repo_step(api: "HfApi", spec: SpaceSpec) -> Step:
    visibility = "private" if spec.private else "public"
    there = api.repo_exists(spec.index)
    return Step(
        f"create the {visibility} model repo {spec.index} for its index",
        None if there else lambda: api.create_repo(spec.index, private=spec.private, exist_ok=True),
    )


def _variables_step(api: "HfApi", spec: SpaceSpec) -> Step:
    variables = space_variables(spec)
    there = {}
    if api.repo_exists(spec.space, repo_type="space"):
        there = {name: variable.value for name, variable in api.get_space_variables(spec.space).items()}
    changed = {name: value for name, value in variables.items() if there.get(name) != value}
    gone = [name for name in VARIABLES if name in there and name not in variables]

    def set_variables() -> None:
        for name, value in changed.items():
            api.add_space_variable(spec.space, name, value)
        for name in gone:
            api.delete_space_variable(spec.space, name)

    values = [f"{name}={value}" for name, value in variables.items()] + [f"no {name}" for name in gone]
    return Step(f"set the variables {', '.join(values)}", set_variables if changed or gone else None)


def _volume_step(api: "HfApi", spec: SpaceSpec) -> Step:
    from huggingface_hub import Volume
    from huggingface_hub.errors import HfHubHTTPError

    volume = Volume(type="model", source=spec.index, mount_path=str(MOUNT), read_only=True)
    there = []
    if api.repo_exists(spec.space, repo_type="space"):
        there = api.get_space_runtime(spec.space).volumes or []
    others = [other for other in there if other.mount_path != volume.mount_path]

    def mount() -> None:
        try:
            api.set_space_volumes(spec.space, [*others, volume])
            return
        except HfHubHTTPError as error:
            refusal = f"The Hub offers no volume here ({error.response.status_code})"
        if not _is_private(api, spec):
            print(f"without a volume: {refusal}, so the index is preloaded")
        elif spec.store_token or "HF_TOKEN" in api.get_space_secrets(spec.space):
            print(f"without a volume: {refusal}, so the Space downloads its private index with its secret HF_TOKEN")
        else:
            raise HubError(
                "{refusal}, and {space} cannot read the private {index} without a token: add --store-token, "
                "which gives it yours as its secret HF_TOKEN.",
                refusal=refusal,
                space=spec.space,
                index=spec.index,
            )

    mounted = [(other.type, other.source) for other in there if other.mount_path == volume.mount_path]
    return Step(
        f"mount {spec.index} at {MOUNT}, read-only", None if mounted == [(volume.type, volume.source)] else mount
    )


def _is_private(api: "HfApi", spec: SpaceSpec) -> bool:
    return bool(api.model_info(spec.index).private) if api.repo_exists(spec.index) else spec.private


def _files_step(api: "HfApi", spec: SpaceSpec) -> Step:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    preloads = not _is_private(api, spec)
    readme = space_readme(spec, (ROOT / "README.md").read_text(encoding="utf-8"), preloads=preloads)
    files: dict[str, bytes | Path] = {name: ROOT / name for name in FILES}
    files |= {"README.md": readme.encode(), "requirements.txt": space_requirements().encode()}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                files[path.relative_to(ROOT).as_posix()] = path
    there, head = {}, None
    if api.repo_exists(spec.space, repo_type="space"):
        head = api.space_info(spec.space).sha
        there = files_of(api, spec.space, str(head), "space")
    changed = [name for name, content in files.items() if not is_same(there.get(name), content)]
    gone = [name for name in there if name.split("/")[0] in FOLDERS and name not in files]

    def commit() -> None:
        operations: list[Any] = [CommitOperationDelete(name) for name in gone]
        operations += [CommitOperationAdd(name, files[name]) for name in changed]
        api.create_commit(
            spec.space, operations, commit_message="Serve the library", repo_type="space", parent_commit=head
        )

    return Step(
        f"send the Space {len(changed)} of its {len(files)} files, without torch in its requirements.txt"
        + (f", with {spec.index} preloaded by README.md" if preloads else "")
        + (f", and remove {len(gone)}" if gone else ""),
        commit if changed or gone else None,
    )
