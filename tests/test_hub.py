"""An index goes to the Hub and comes back whole, or not at all; the real clients ask a Hub on loopback."""

import hashlib
import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import datasets
import numpy as np
import pytest
import yaml
from PIL import Image

from imgret import ImageLibrary, Index, InvalidIndexError, build_index
from imgret.hub.requirements import space_requirements
from imgret.index import Manifest, check_hashes
from imgret.settings import Settings
from imgret.startup import prepare
from tests.conftest import LIBRARY, QUERIES, ROOT
from tests.hub import Hub

INDEX = "org/index"
TIGER = str(QUERIES / "tiger.webp")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A data set in the layout of uoft-cs/cifar10: two shards of 100 embedded pictures, columns `img` and `label`."""
    folder = tmp_path_factory.mktemp("hub") / "pictures"
    paths = sorted(LIBRARY.rglob("*.webp"))[::2][:200]
    names = sorted({path.relative_to(LIBRARY).parts[0] for path in paths})
    features = datasets.Features({"img": datasets.Image(), "label": datasets.ClassLabel(names=names)})
    (folder / "plain_text").mkdir(parents=True)
    for shard in range(2):
        rows = paths[100 * shard : 100 * (shard + 1)]
        labels = [path.relative_to(LIBRARY).parts[0] for path in rows]
        cells = [{"bytes": path.read_bytes(), "path": None} for path in rows]
        table = datasets.Dataset.from_dict({"img": cells, "label": labels}, features=features)
        table.to_parquet(folder / "plain_text" / f"train-0000{shard}-of-00002.parquet")
    write_card(folder, {"plain_text": "plain_text"})
    return folder


def write_card(folder, configs):
    """A data set's card; each config has its splits' patterns, and says how many rows there are."""
    block = [{"config_name": n, "data_files": [{"split": "train", "path": f"{p}/train-*"}]} for n, p in configs.items()]
    splits = [{"name": "train", "num_bytes": 1, "num_examples": 200}]
    infos = [{"config_name": name, "splits": splits, "download_size": 1, "dataset_size": 1} for name in configs]
    told = yaml.safe_dump({"license": "mit", "configs": block, "dataset_info": infos})
    (folder / "README.md").write_text(f"---\n{told}---\n# Pictures\n")


@pytest.fixture
def hub(pictures):
    with Hub() as running:
        running.add("datasets", "org/pictures", pictures)
        yield running


@dataclass(frozen=True)
class Client:
    """Another process with the real client libraries, whose Hub is the one on loopback."""

    hub: Hub
    home: Path
    cache: Path

    def environment(self, token=None, **variables):
        ours = {"IMGRET_CACHE": str(self.cache), "PYTHONPATH": str(ROOT)}
        return os.environ | self.hub.environment(self.home, token) | ours | variables

    def start(self, code, *arguments, **settings):
        command = [sys.executable, "-c", code, *map(str, arguments)]
        environment = self.environment(**settings)
        return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def run(self, code, *arguments, **settings):
        """What the code prints, as JSON."""
        return self.run_and_log(code, *arguments, **settings)[0]

    def run_and_log(self, code, *arguments, **settings):
        process = self.start(code, *arguments, **settings)
        printed, errors = process.communicate(timeout=180)
        assert process.returncode == 0, errors
        return json.loads(printed.splitlines()[-1]), errors

    def imgret(self, *arguments, **settings):
        return subprocess.run(
            [sys.executable, "-m", "imgret.cli", *map(str, arguments)],
            env=self.environment(**settings),
            capture_output=True,
            text=True,
            timeout=180,
        )


@pytest.fixture
def client(hub, tmp_path, cache):
    return Client(hub, tmp_path / "home", cache)


@pytest.fixture(scope="module")
def small_index(tmp_path_factory, small_library, cache):
    folder = tmp_path_factory.mktemp("small-index") / "index"
    build_index(ImageLibrary.load(small_library), folder, "starter", 16, cache=cache).close()
    return folder


LOAD = """
import json, sys
from imgret import ImageLibrary
library = ImageLibrary.load("org/pictures", **json.loads(sys.argv[1]))
rows = [(record.id, record.label, record.width) for record in library]
print(json.dumps([library.revision, library.split, library.count, rows]))
"""


def test_a_data_set_of_the_hub_is_a_library_at_a_commit_and_is_not_kept(hub, client):
    revision, split, count, rows = client.run(LOAD, "{}")
    assert (revision, split, count) == (hub.repo("datasets", "org/pictures").head, "train", 200)
    kept = sum(path.stat().st_size for path in client.home.rglob("*") if path.is_file())
    assert kept < 100_000 < sum(file.size for file in hub.repo("datasets", "org/pictures").files.values())
    first = sorted(LIBRARY.rglob("*.webp"))[0]
    assert rows[0] == ["0", first.relative_to(LIBRARY).parts[0], Image.open(first).width]
    assert len(rows) == 200


def test_with_a_limit_only_the_shards_that_are_needed_are_read(hub, client):
    _, _, count, rows = client.run(LOAD, '{"limit": 60, "revision": "main"}')
    assert (count, len(rows)) == (60, 60)
    assert hub.asked("GET", "/cdn/") > 0
    assert not any("00001-of-00002" in path for _, path in hub.requests if "/cdn/" in path)


def test_a_data_set_of_loose_picture_files_is_streamed_too(hub, client, small_library):
    hub.add("datasets", "org/loose", small_library)
    _, _, _, rows = client.run(LOAD.replace("org/pictures", "org/loose"), '{"limit": 12}')
    assert len(rows) == 12
    assert all(width > 0 for _, _, width in rows)


def test_a_data_set_cannot_have_files_of_this_machine_read(hub, client, tmp_path):
    features = datasets.Features({"img": datasets.Image()})
    cells = [{"bytes": None, "path": place} for place in (TIGER, f"file://{TIGER}")]
    (tmp_path / "spy").mkdir()
    datasets.Dataset.from_dict({"img": cells}, features=features).to_parquet(tmp_path / "spy" / "train.parquet")
    hub.add("datasets", "org/spy", tmp_path / "spy")
    assert client.run(LOAD.replace("org/pictures", "org/spy"), "{}")[3] == []


REFUSED = """
import json, sys, time
import huggingface_hub
from imgret import ImageLibrary, LibraryError
told = []
for source, given in json.loads(sys.argv[1]):
    began = time.monotonic()
    try:
        ImageLibrary.load(source, **given)
        told.append(["loaded", 0])
    except LibraryError as error:
        told.append([str(error), time.monotonic() - began])
print(json.dumps(told))
"""


def test_each_data_set_that_cannot_be_loaded_says_why_and_what_would_work(hub, client, pictures, tmp_path):
    hub.add("datasets", "org/gated", pictures, gated=True)
    hub.add("datasets", "org/private", pictures, private=True)
    two = shutil.copytree(pictures, tmp_path / "two")
    shutil.copytree(two / "plain_text", two / "other")
    write_card(two, {"first": "plain_text", "second": "other"})
    hub.add("datasets", "org/two", two)
    lists = datasets.Features({"shots": datasets.List(datasets.Image())})
    shots = datasets.Dataset.from_dict({"shots": [[{"bytes": Path(TIGER).read_bytes(), "path": None}]]}, features=lists)
    shots.to_parquet(tmp_path / "lists" / "train-00000-of-00001.parquet")
    hub.add("datasets", "org/lists", tmp_path / "lists")
    asked = [
        ("org/gated", {}, "gated: accept its terms"),
        ("org/private", {}, "HF_TOKEN if it is private"),
        ("org/pictured", {}, "check the name"),
        ("org/pictures", {"split": "valid"}, "no split 'valid'; it has train"),
        ("org/pictures", {"config": "plain"}, "no config 'plain'; it has plain_text"),
        ("org/pictures", {"revision": "v9"}, "no revision 'v9'; it has main"),
        ("org/two", {}, "one of them must be named: first, second"),
        ("org/lists", {"limit": 1}, "The pictures of the column shots are in lists or nested"),
        ("org/two", {"config": "second"}, "loaded"),
    ]
    told = client.run(REFUSED, json.dumps([(source, given) for source, given, _ in asked]))
    for (sentence, _), (source, _, says) in zip(told, asked, strict=True):
        assert says in sentence, source
        assert "\n" not in sentence
    told = client.run(REFUSED, json.dumps([("org/gated", {}), ("org/private", {})]), token="can-read")
    assert [sentence for sentence, _ in told] == ["loaded", "loaded"]


def test_no_hub_is_found_out_in_under_three_seconds(client):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (9, silent.getsockname()[1]):
            asked = json.dumps([("org/pictures", {}), ("org/other", {})])
            told = client.run(REFUSED, asked, HF_ENDPOINT=f"http://127.0.0.1:{port}")
            assert all("the Hub cannot be reached" in sentence for sentence, _ in told)
            assert sum(seconds for _, seconds in told) < 3


def test_a_hub_that_goes_away_while_a_data_set_is_read_ends_in_a_sentence(hub, client):
    code = """
import json, sys, time
import datasets
time.sleep = lambda seconds: None  # the clients would wait 23 s for the Hub to come back
datasets.config.STREAMING_READ_MAX_RETRIES = datasets.config.STREAMING_OPEN_MAX_RETRIES = 1
from imgret import ImageLibrary, LibraryError
rows = iter(ImageLibrary.load("org/pictures", limit=200))
next(rows)
print("half-way", flush=True)
sys.stdin.readline()
try:
    list(rows)
except LibraryError as error:
    print(json.dumps(str(error)))
"""
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(
        command, env=client.environment(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "half-way\n"
    hub.stop()
    printed, _ = process.communicate("go on\n", timeout=120)
    assert "breaks off after row" in json.loads(printed)


def published(hub, name=INDEX):
    """The manifest of the index on the Hub; all that it names is there, whole, and nothing of an older one.

    Of one commit: what a killed client had asked for may become another one while this reads.
    """
    files = hub.repo("models", name).files
    manifest = json.loads(files["manifest.json"].path.read_bytes())
    for name, entry in manifest["files"].items():
        data = files[name].path.read_bytes()
        assert (len(data), hashlib.sha256(data).hexdigest()) == (entry["size"], entry["sha256"])
    assert {name for name in files if name.startswith("data-")} == set(manifest["files"])
    return manifest


START = """
import json, logging, sys
logging.basicConfig(level=logging.INFO, stream=sys.stderr)
from imgret.settings import Settings
from imgret.startup import prepare
from pathlib import Path
heard = []
ready = prepare(Settings.read(), lambda *stage: heard.append(stage), mount=Path(sys.argv[2]))
hits = [hit.id for hit in ready.retriever.by_clip(image=sys.argv[1], k=3)]
stages = list(dict.fromkeys(stage for stage, _, _ in heard))
print(json.dumps([ready.origin, ready.notice, len(ready.retriever.index), hits, stages]))
"""


def start(client, mount="/nowhere", **variables):
    return client.run(START, TIGER, mount, IMGRET_INDEX=INDEX, **variables)


def blobs(client):
    folder = client.home / "hub" / "models--org--index" / "blobs"
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns) for path in folder.iterdir()
    }


def test_an_index_is_published_once_fetched_and_then_served_without_a_hub(hub, client, index_folder, retriever):
    done = client.imgret("publish", index_folder, INDEX, "--create", token="can-write")
    assert done.returncode == 0, done.stderr
    assert "org/index: published; commit" in done.stdout
    manifest = published(hub)
    assert manifest["library"]["source"] == "examples/library"  # and not where this machine keeps it

    card = hub.read("models", INDEX, "README.md").decode()
    block = yaml.safe_load(card.split("---\n")[1])
    assert (block["license"], block["library_name"]) == ("gpl-2.0", "imgret")
    for told in ("545 pictures", "starter", "| l1 | 0.", "| clip | 0.", "recall@10", 'fetch("org/index")'):
        assert told in card
    assert Image.open(io.BytesIO(hub.read("models", INDEX, "sample.webp"))).width > 500

    commits, uploaded = len(hub.repo("models", INDEX).commits), hub.uploaded
    again = client.imgret("publish", index_folder, INDEX, token="can-write")
    assert "unchanged, nothing was uploaded" in again.stdout
    assert (len(hub.repo("models", INDEX).commits), hub.uploaded) == (commits, uploaded)

    expected = [hit.id for hit in retriever.by_clip(image=TIGER, k=3)]
    origin, notice, count, hits, stages = start(client)
    assert (origin, notice, count, hits) == ("the Hub (org/index)", None, 545, expected)
    assert "download the index" in stages
    before = blobs(client)
    hub.stop()
    origin, notice, count, hits, stages = start(client)
    assert (origin, notice, count, hits) == ("the Hub's cache (org/index)", None, 545, expected)
    assert blobs(client) == before


def test_a_new_version_takes_the_place_of_the_old_one_in_one_commit(hub, client, small_index, index_folder):
    for number, folder in enumerate((small_index, index_folder), start=2):
        assert client.imgret("publish", folder, INDEX, "--create", token="can-write").returncode == 0
        assert len(hub.repo("models", INDEX).commits) == number  # the first is the Hub's own, of a new repo
    assert published(hub)["count"] == 545


@pytest.mark.parametrize(
    ("token", "repo", "says"),
    [
        (None, INDEX, "There is no token"),
        ("nobody-s", INDEX, "does not know the token"),
        ("can-read", INDEX, "can only read"),
        ("can-write", "elsewhere/index", "not for elsewhere"),
        ("can-write", "index", "form org/name"),
        ("can-write", INDEX, "create it with --create"),
        ("can-write", "org/model", "holds something else"),
    ],
)
def test_what_cannot_be_published_is_told_before_anything_is_sent(
    hub, client, small_index, tmp_path, token, repo, says
):
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_bytes(b"\0" * 100)
    hub.add("models", "org/model", tmp_path / "model")
    refused = client.imgret("publish", small_index, repo, token=token)
    assert refused.returncode == 2
    (line,) = refused.stderr.splitlines()
    assert says in line
    assert not any(method in ("POST", "PUT") for method, _ in hub.requests)


def test_a_damaged_index_is_not_published(hub, client, small_index, tmp_path):
    folder = shutil.copytree(small_index, tmp_path / "index")
    flip(next(folder.rglob("embeddings.npy")))
    refused = client.imgret("publish", folder, INDEX, "--create", token="can-write")
    assert (refused.returncode, "corrupt" in refused.stderr) == (2, True)
    assert not any(method in ("POST", "PUT") for method, _ in hub.requests)


def flip(path):
    """Changes one byte of a file and nothing else that tells of it."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


PUBLISH = """
import sys
from pathlib import Path
from imgret.hub import publish
publish(Path(sys.argv[1]), sys.argv[2], create=True)
"""
FETCH = """
import json, logging, sys
logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
from pathlib import Path
from imgret.hub import HubError, fetch
from imgret.index import InvalidIndexError
try:
    found = fetch("org/index", mount=Path(sys.argv[1]))
    print(json.dumps([found.origin, str(found.folder)]))
except (HubError, InvalidIndexError) as error:
    print(json.dumps([type(error).__name__, str(error)]))
"""


def test_a_download_that_breaks_off_is_resumed_where_it_was(hub, client, index_folder):
    hub.add("models", INDEX, index_folder)
    total = sum(file.size for file in hub.repo("models", INDEX).files.values())
    hub.break_off = {"manifest.json", "text.int4-blocks.onnx"}
    origin, folder = client.run(FETCH, "/nowhere")
    assert origin == "the Hub (org/index)"
    check_hashes(Path(folder), Manifest.read(Path(folder)))
    assert not hub.break_off
    assert [first for first in hub.ranges if first != "bytes=0-"]
    assert hub.sent < 1.1 * total


def test_an_index_on_a_volume_comes_first_and_asks_nothing_of_the_hub(hub, client, index_folder, small_index, tmp_path):
    hub.add("models", INDEX, index_folder)
    asked = len(hub.requests)
    assert client.run(FETCH, small_index) == ["the volume (org/index)", str(small_index)]
    assert len(hub.requests) == asked
    volume = shutil.copytree(small_index, tmp_path / "volume")
    flip(next(volume.rglob("vectors.npy")))
    assert client.run(FETCH, volume)[0] == "the Hub (org/index)"


def test_what_was_damaged_in_the_cache_is_fetched_anew_and_the_rest_is_not(hub, client, index_folder):
    hub.add("models", INDEX, index_folder)
    _, folder = client.run(FETCH, "/nowhere")
    before = blobs(client)
    for name, damage in (("embeddings.npy", flip), ("thumbnails.bin", lambda path: os.truncate(path, 1000))):
        blob = next(Path(folder).rglob(name)).resolve()
        damage(blob)
        downloads = hub.asked("GET", "/cdn/")
        assert client.run(FETCH, "/nowhere") == ["the Hub (org/index)", folder]
        assert hub.asked("GET", "/cdn/") == downloads + 1
        check_hashes(Path(folder), Manifest.read(Path(folder)))
    assert {name: digest for name, (digest, _) in blobs(client).items()} == {n: d for n, (d, _) in before.items()}
    flip(next(Path(folder).rglob("embeddings.npy")).resolve())
    hub.stop()
    kind, sentence = client.run(FETCH, "/nowhere")
    assert (kind, "cannot be reached" in sentence) == ("HubError", True)


def test_an_index_that_is_damaged_or_too_new_on_the_hub_is_refused(hub, client, small_index, tmp_path):
    damaged = shutil.copytree(small_index, tmp_path / "damaged")
    flip(next(damaged.rglob("vectors.npy")))
    hub.add("models", INDEX, damaged)
    assert "is damaged on the Hub" in client.run(FETCH, "/nowhere")[1]
    newer = shutil.copytree(small_index, tmp_path / "newer")
    manifest = json.loads((newer / "manifest.json").read_text())
    (newer / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    hub.add("models", INDEX, newer)
    assert "update imgret" in client.run(FETCH, "/nowhere")[1]
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "README.md").write_text("# Nothing\n")
    hub.add("models", INDEX, tmp_path / "empty")
    shutil.rmtree(client.home)
    assert "holds no index" in client.run(FETCH, "/nowhere")[1]


def kill_at_random_moments(times, longest, begin):
    """Begins, and kills after a while, again and again; yields after each kill."""
    draw = np.random.default_rng()
    for _ in range(times):
        process = begin()
        time.sleep(draw.uniform(0.3, longest))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        yield


def test_a_kill_at_any_moment_of_an_upload_leaves_the_old_index_or_the_new_one(hub, client, small_index, index_folder):
    began = time.monotonic()
    client.run(PUBLISH + "print(0)", small_index, INDEX, token="can-write")
    longest = time.monotonic() - began + 1
    for _ in kill_at_random_moments(6, longest, lambda: client.start(PUBLISH, index_folder, INDEX, token="can-write")):
        assert published(hub)["count"] in (40, 545)
    uploaded = hub.uploaded
    client.run(PUBLISH + "print(0)", index_folder, INDEX, token="can-write")
    assert published(hub)["count"] == 545
    assert hub.uploaded - uploaded < sum(path.stat().st_size for path in index_folder.rglob("*") if path.is_file())


def test_a_kill_at_any_moment_of_a_download_leaves_nothing_that_opens_and_is_wrong(hub, client, index_folder, cache):
    hub.add("models", INDEX, index_folder)
    began = time.monotonic()
    client.run(FETCH, "/nowhere")
    longest = time.monotonic() - began
    shutil.rmtree(client.home)
    for _ in kill_at_random_moments(6, longest, lambda: client.start(FETCH, "/nowhere")):
        for folder in client.home.glob("hub/models--org--index/snapshots/*"):
            try:
                Index.open(folder, cache=cache).close()
            except InvalidIndexError:
                continue
            check_hashes(folder, Manifest.read(folder))
    _, folder = client.run(FETCH, "/nowhere")
    check_hashes(Path(folder), Manifest.read(Path(folder)))


def test_a_start_builds_what_the_hub_has_follows_it_and_does_without_it(hub, client, pictures, small_index, tmp_path):
    hub.add("models", INDEX, small_index)
    asked = {"IMGRET_LIBRARY": "org/pictures", "IMGRET_REVISION": "main", "IMGRET_LIMIT": "41"}
    asked |= {"IMGRET_PIXEL_SIZE": "16", "IMGRET_INDEX": INDEX}
    (origin, notice, count, _, stages), log = client.run_and_log(START, TIGER, "/nowhere", **asked)
    assert (origin, notice, count) == ("built now", None, 41)
    assert "pictures" in stages
    assert "The index org/index is passed over" in log
    assert "not org/pictures" in log
    assert client.run(START, TIGER, "/nowhere", **asked)[:3] == ["built here before", None, 41]

    moved = shutil.copytree(pictures, tmp_path / "moved")
    (moved / "plain_text" / "train-00000-of-00002.parquet").unlink()
    hub.add("datasets", "org/pictures", moved)
    assert client.run(START, TIGER, "/nowhere", **asked)[:3] == ["built now", None, 41]
    hub.stop()
    origin, notice, count, _, _ = client.run(START, TIGER, "/nowhere", **asked)
    assert (origin, count) == ("built here before", 41)
    assert "as it was when its index was built here" in notice


def test_an_index_at_hand_is_taken_for_a_named_revision_that_nobody_can_resolve(hub, client, tmp_path):
    made = {"IMGRET_LIBRARY": "org/pictures", "IMGRET_LIMIT": "42"}
    build = ("build", "org/pictures", "--out", tmp_path / "index", "--limit", 42, "--pixel-size", 16)
    assert client.imgret(*build).returncode == 0
    head = hub.repo("datasets", "org/pictures").head
    for revision, origin in ((head, "the volume (org/index)"), ("main", "the volume (org/index)")):
        assert start(client, tmp_path / "index", **made, IMGRET_REVISION=revision)[0] == origin
    (_, sentence, _, _, _) = start(client, tmp_path / "index", **made, IMGRET_REVISION="v9")
    assert "no revision 'v9'; it has main" in sentence
    hub.stop()
    assert start(client, tmp_path / "index", **made, IMGRET_REVISION="main")[0] == "the volume (org/index)"


def steps_of(done):
    """Whether each step of `imgret deploy` was to do, done, or done already."""
    *steps, last = done.stdout.splitlines()
    assert last.startswith("the Space: http")
    return [line.split(":")[0] for line in steps]


def test_a_space_is_deployed_from_a_library_and_a_second_run_changes_nothing(hub, client):
    command = ("deploy", "org/space", "--library", "org/pictures", "--encoder", "starter", "--pixel-size", 16)
    command = (*command, "--limit", 50)
    dry = client.imgret(*command, "--dry-run", token="can-write")
    assert dry.returncode == 0, dry.stderr
    assert steps_of(dry) == ["to do"] * 6
    assert ("spaces", "org/space") not in hub.repos
    assert ("models", "org/space-index") not in hub.repos

    done = client.imgret(*command, token="can-write")
    assert done.returncode == 0, done.stderr
    space = hub.repo("spaces", "org/space")
    assert (space.sdk, space.private) == ("gradio", False)
    assert space.variables == {
        "IMGRET_LIBRARY": "org/pictures",
        "IMGRET_SPLIT": "train",
        "IMGRET_LIMIT": "50",
        "IMGRET_ENCODER": "starter",
        "IMGRET_INDEX": "org/space-index",
    }
    assert space.volumes == [{"type": "model", "source": "org/space-index", "mountPath": "/index", "readOnly": True}]
    block = yaml.safe_load(hub.read("spaces", "org/space", "README.md").decode().split("---\n")[1])
    ours = yaml.safe_load((ROOT / "README.md").read_text().split("---\n")[1])
    assert block["preload_from_hub"] == ["org/space-index"]
    assert block["datasets"] == ["org/pictures"]
    assert {name: block[name] for name in ("sdk", "sdk_version", "python_version", "app_file")} == {
        name: ours[name] for name in ("sdk", "sdk_version", "python_version", "app_file")
    }
    assert hub.read("spaces", "org/space", "requirements.txt").decode() == space_requirements()
    towers = "imgret/encoders/starter_towers/text.int4-blocks.onnx"
    for name in ("app.py", "imgret/startup.py", towers, "examples/CREDITS.md"):
        if (ROOT / name).exists():
            assert hub.read("spaces", "org/space", name) == (ROOT / name).read_bytes()
    assert not [name for name in space.files if "__pycache__" in name or name.startswith((".", "tests/"))]
    manifest = json.loads(hub.read("models", "org/space-index", "manifest.json"))
    assert (manifest["count"], manifest["library"]["revision"]) == (50, hub.repo("datasets", "org/pictures").head)
    assert "license: mit" in hub.read("models", "org/space-index", "README.md").decode()

    before = {name: list(repo.commits) for name, repo in hub.repos.items()}
    again = client.imgret(*command, token="can-write")
    assert steps_of(again) == ["done already"] * 6
    assert {name: list(repo.commits) for name, repo in hub.repos.items()} == before

    hub.repo("spaces", "org/space").variables["THEIR_OWN"] = "kept"
    changed = client.imgret(*command[:-1], 60, token="can-write")
    assert changed.returncode == 0, changed.stderr
    assert (space.variables["IMGRET_LIMIT"], space.variables["THEIR_OWN"]) == ("60", "kept")
    assert hub.asked("POST", "/restart") == 1
    assert json.loads(hub.read("models", "org/space-index", "manifest.json"))["count"] == 60


DEPLOY = ("deploy", "someone/space", "--library", "org/pictures", "--encoder", "starter", "--limit", 20)


def test_a_free_account_hears_of_its_two_ways_before_anything_is_built(hub, client):
    refused = client.imgret(*DEPLOY, token="free")
    assert refused.returncode == 2
    assert "only for a paid plan: subscribe to one, or add --hardware zero-a10g" in refused.stderr
    assert hub.repos.keys() == {("datasets", "org/pictures")}

    done = client.imgret(*DEPLOY, "--hardware", "zero-a10g", "--pixel-size", 16, token="free")
    assert done.returncode == 0, done.stderr
    assert hub.repo("spaces", "someone/space").hardware == "zero-a10g"
    again = client.imgret(*DEPLOY, "--hardware", "cpu-upgrade", "--pixel-size", 16, token="free")
    assert steps_of(again) == ["done already", "doing", *["done already"] * 5]
    assert hub.repo("spaces", "someone/space").hardware == "cpu-upgrade"


@pytest.mark.parametrize(
    ("token", "options", "sentence"),
    [
        ("can-read", (), "can only read; make one that can write"),
        ("", (), "There is no token to write with"),
        ("can-write", ("--hardware", "abacus"), "There is no hardware 'abacus' for a Space; there are cpu-basic"),
        ("can-write", ("--index", "others/index"), "not for others"),
    ],
)
def test_what_cannot_be_deployed_ends_in_a_sentence_before_anything_was_made(hub, client, token, options, sentence):
    refused = client.imgret(*DEPLOY, *options, token=token)
    assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1)
    assert sentence in refused.stderr
    assert hub.repos.keys() == {("datasets", "org/pictures")}


def test_a_private_index_is_never_preloaded_and_is_read_by_volume_or_token(hub, client):
    command = (*DEPLOY, "--private", "--pixel-size", 16)
    hub.volumes = False
    refused = client.imgret(*command, token="can-write")
    assert refused.returncode == 2
    assert "add --store-token" in refused.stderr
    assert not hub.repo("models", "someone/space-index").files  # nothing was built
    stored = client.imgret(*command, "--store-token", token="can-write")
    assert stored.returncode == 0, stored.stderr
    space, index = hub.repo("spaces", "someone/space"), hub.repo("models", "someone/space-index")
    assert (space.private, index.private, space.secrets) == (True, True, {"HF_TOKEN": "can-write"})
    block = yaml.safe_load(hub.read("spaces", "someone/space", "README.md").decode().split("---\n")[1])
    assert "preload_from_hub" not in block
    hub.volumes = True
    mounted = client.imgret(*command, token="can-write")
    assert mounted.returncode == 0, mounted.stderr
    assert [volume["source"] for volume in space.volumes] == ["someone/space-index"]


ON_SPACE = """
import json, sys
from imgret.settings import Settings
from imgret.startup import prepare_in_steps, publish_built

settings = Settings.read()
for ready in prepare_in_steps(settings):
    hits = ready.retriever.by_clip(text="a dog", k=1) + ready.retriever.by_pixels(sys.argv[1], k=1)
    seen = [ready.origin, ready.notice, ready.retriever.index.manifest.library.name, len(ready.retriever.index)]
    print(json.dumps([*seen, len(hits)]))
ready = publish_built(ready, settings)
print(json.dumps([ready.origin]))
"""


@pytest.fixture(scope="module")
def disk(tmp_path_factory, cache):
    """Makes caches as a Space has at its start, but for the encoder and the index of the embedded library."""
    made = tmp_path_factory.mktemp("disk")
    shutil.copytree(cache, made, copy_function=os.link, ignore=shutil.ignore_patterns("indexes"), dirs_exist_ok=True)
    prepare(Settings(pixel_size=16, cache=made).with_embedded_library).retriever.index.close()

    def new(folder):
        return shutil.copytree(made, folder, copy_function=os.link)

    return new


def space_process(client, token, **variables):
    asked = {
        "SPACE_ID": "org/space", "IMGRET_LIBRARY": "org/pictures", "IMGRET_ENCODER": "starter",
        "IMGRET_PIXEL_SIZE": "16", "IMGRET_LIMIT": "60",
    }  # fmt: skip
    return client.start(ON_SPACE, TIGER, token=token, **asked | variables)


def on_space(client, token="can-write", **variables):
    """What a Space shows, step by step, as (origin, notice, library, pictures, hits), and how it ends."""
    process = space_process(client, token, **variables)
    printed, errors = process.communicate(timeout=600)
    assert process.returncode == 0, errors
    *steps, (end,) = map(json.loads, printed.splitlines())
    return steps, end


def test_a_space_without_an_index_shows_the_embedded_library_makes_one_and_publishes_it(hub, disk, tmp_path):
    hub.add("spaces", "org/space", tmp_path)
    steps, end = on_space(Client(hub, tmp_path / "home", disk(tmp_path / "cache")))
    waiting = "This is the embedded library, until org/pictures has been indexed."
    assert [step[1:] for step in steps] == [[waiting, "examples/library", 545, 2], [None, "org/pictures", 60, 2]]
    assert end == "built now, and published as org/space-index"
    manifest = json.loads(hub.read("models", "org/space-index", "manifest.json"))
    assert (manifest["library"]["source"], manifest["count"]) == ("org/pictures", 60)
    # After a sleep the disk is empty.
    steps, end = on_space(Client(hub, tmp_path / "home-2", disk(tmp_path / "cache-2")))
    assert [step[1:] for step in steps] == [[None, "org/pictures", 60, 2]]
    assert end == "the Hub (org/space-index)"
    assert len(hub.repo("models", "org/space-index").commits) == 2  # the empty one of a new repo, and the index


def test_an_index_that_may_not_be_published_serves_all_the_same_and_the_origin_says_why(hub, disk, tmp_path):
    hub.add("spaces", "org/space", tmp_path)
    steps, end = on_space(Client(hub, tmp_path / "home", disk(tmp_path / "cache")), token="can-read")
    assert steps[-1][1:] == [None, "org/pictures", 60, 2]
    assert end.startswith("built now, and not published. The token")
    assert ("models", "org/space-index") not in hub.repos


def test_two_starts_at_once_end_with_one_whole_index(hub, disk, tmp_path):
    hub.add("spaces", "org/space", tmp_path)
    hub.repo("spaces", "org/space").private = True
    starts = [Client(hub, tmp_path / f"home-{n}", disk(tmp_path / f"cache-{n}")) for n in range(2)]
    with ThreadPoolExecutor(2) as pool:
        ends = [end for _, end in pool.map(on_space, starts)]
    assert all(end.startswith("built now, and ") for end in ends)
    assert hub.repo("models", "org/space-index").private
    steps, end = on_space(Client(hub, tmp_path / "home-3", disk(tmp_path / "cache-3")))
    assert (steps[-1][1:], end) == ([None, "org/pictures", 60, 2], "the Hub (org/space-index)")


def test_a_kill_at_any_moment_of_a_start_that_builds_and_publishes_leaves_no_half_index(hub, disk, tmp_path):
    hub.add("spaces", "org/space", tmp_path)
    began, whole = time.monotonic(), ("models", "org/space-index")
    on_space(Client(hub, tmp_path / "home", disk(tmp_path / "cache")))
    longest = time.monotonic() - began
    del hub.repos[whole]
    clients = iter([Client(hub, tmp_path / f"home-{n}", disk(tmp_path / f"cache-{n}")) for n in range(3)])
    for _ in kill_at_random_moments(3, longest, lambda: space_process(next(clients), "can-write")):
        if whole in hub.repos and "manifest.json" in hub.repo(*whole).files:
            assert published(hub, "org/space-index")["count"] == 60
    for number in range(3):  # a restart with the disk of a killed one
        steps, end = on_space(Client(hub, tmp_path / f"home-{number}", tmp_path / f"cache-{number}"))
        assert steps[-1][1:] == [None, "org/pictures", 60, 2]
        # A start that was killed while it used the index that one before it had published leaves it in the Hub's cache.
        origins = "and published as org/space-index", "the Hub (org/space-index)", "the Hub's cache (org/space-index)"
        assert end.endswith(origins)
    assert published(hub, "org/space-index")["count"] == 60


def test_a_library_that_cannot_be_had_leaves_the_embedded_one_which_is_never_published(hub, disk, tmp_path):
    hub.add("spaces", "org/space", tmp_path)
    steps, end = on_space(Client(hub, tmp_path / "home", disk(tmp_path / "cache")), IMGRET_LIBRARY="org/nothing")
    assert [step[2] for step in steps] == ["examples/library"] * 2
    assert "because the configured one is not available. " in steps[-1][1]
    assert "published" not in end
    assert ("models", "org/space-index") not in hub.repos
