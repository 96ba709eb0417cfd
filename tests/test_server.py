"""The same index with its vectors on a Chroma server: the same hits, and a sentence for all that a server can do."""

import http.server
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from gradio_client import Client, handle_file

from imgret import ImageLibrary, Index, Retriever, build_index
from imgret.hub import HubError, publish
from imgret.images import load_image
from imgret.index import Manifest
from imgret.metrics import METRICS
from imgret.settings import Settings
from imgret.startup import ReadyIndex, Startup, prepare
from imgret.ui.endpoints import Endpoints, Query
from imgret.ui.thumbnails import Thumbnails
from imgret.vectors import ChromaServer, VectorError, VectorStore
from imgret.vietnamese import translated
from tests.chroma import Chroma
from tests.conftest import QUERIES, ROOT, free_port, serving
from tests.test_vectors import unit_rows

TIGER = QUERIES / "tiger.webp"
TOKEN = "s3cret-token"


@pytest.fixture
def chroma(tmp_path):
    """A server of the test's own."""
    chroma = Chroma(tmp_path / "chroma").start()
    yield chroma
    chroma.kill()


@pytest.fixture
def library(small_library, tmp_path):
    """Twelve pictures, as most of these tests are about where their vectors go."""
    folder = tmp_path / "library"
    for label in sorted(small_library.iterdir()):
        shutil.copytree(label, folder / label.name, ignore=lambda _, names: sorted(names)[3:])
    return folder


@pytest.fixture
def build(library, tmp_path, cache):
    def build(chroma=None, folder="index", **options):
        index = build_index(
            ImageLibrary.load(library), tmp_path / folder, "starter", 16, cache=cache, chroma=chroma, **options
        )
        index.close()
        return tmp_path / folder

    return build


@pytest.fixture
def brief(monkeypatch):
    """Less patience with a server that is away, so that a test need not wait for it to end."""
    monkeypatch.setattr("imgret.vectors.server_collection.PATIENCE_SECONDS", 0.5)


def fill(chroma, index_folder, cache):
    """The embedded library's index, with its vectors on a server."""
    with_own = Index.open(index_folder, cache=cache)
    with_own.write_vectors(ChromaServer(chroma.url), "a test")
    with_own.close()
    return Retriever(Index.open(index_folder, chroma.url, cache=cache), cache=cache)


def found(retriever, **query):
    return [(hit.id, round(hit.score, 6)) for hit in retriever.by_clip(**query)]


def said(call):
    with pytest.raises(VectorError) as error:
        call()
    sentence = error.value.sentence
    assert sentence.count("\n") == 0
    assert TOKEN not in sentence
    assert translated(sentence, "vi") != sentence
    return sentence


def test_a_server_finds_what_the_embedded_store_finds(chroma_server, index_folder, retriever, cache):
    served = fill(chroma_server, index_folder, cache)
    for query in ({"image": TIGER}, {"text": "a red flower"}, {"text": "a cat", "negative": "a dog", "k": 40}):
        assert found(served, **query) == found(retriever, **query)
    label = max(served.index.manifest.labels, key=served.index.manifest.labels.get)
    assert found(served, text="an animal", labels=[label]) == found(retriever, text="an animal", labels=[label])
    served.index.close()


def test_a_build_leaves_the_vectors_on_the_server_and_says_where(chroma_server, build, tmp_path, cache):
    embedded, folder = build(folder="embedded"), build(ChromaServer(chroma_server.url, TOKEN))
    text = (folder / "manifest.json").read_text()
    manifest = json.loads(text)
    assert manifest["vectors"] == {"url": chroma_server.url, "collection": "imgret-" + Manifest.read(embedded).content}
    assert TOKEN not in text
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert len(files) <= 20
    assert not any("chroma" in name for name in files)
    assert files - set(manifest["files"]) == {"manifest.json", ".owner"}
    assert (
        chroma_server.client().get_collection(manifest["vectors"]["collection"], embedding_function=None).count() == 12
    )
    assert not any(name.endswith("-draft") for name in chroma_server.names())
    assert manifest["recall"]["recall"] >= 0.99

    one = Retriever(Index.open(folder, chroma_server.url, cache=cache), cache=cache)
    two = Retriever(Index.open(embedded, chroma_server.url, cache=cache), cache=cache)
    own = Retriever(Index.open(embedded, cache=cache), cache=cache)
    assert found(one, text="a bird") == found(two, text="a bird") == found(own, text="a bird")
    without = Retriever(Index.open(folder, cache=cache), cache=cache)
    assert "are on the Chroma server at " + chroma_server.url in said(lambda: without.by_clip(text="a bird"))
    assert without.by_pixels(TIGER)
    with pytest.raises(HubError, match="build it again with IMGRET_CHROMA_URL unset"):
        publish(folder, "someone/index")
    build(folder="index")  # back to the embedded store
    assert found(Retriever(Index.open(folder, cache=cache), cache=cache), text="a bird") == found(own, text="a bird")


def test_the_search_on_a_server_is_widened_until_the_neighbours_are_found(chroma_server, monkeypatch):
    monkeypatch.setattr("imgret.vectors.base.HNSW", {"space": "cosine", "ef_construction": 8, "max_neighbors": 3})
    monkeypatch.setattr("imgret.vectors.base.FIRST_EF_SEARCH", 64)
    rows = unit_rows(1200)
    audit = VectorStore.write(ChromaServer(chroma_server.url), "imgret-narrow", "a test", rows, [None] * 1200)
    assert audit.ef_search > 64
    assert audit.recall >= 0.99 or audit.ef_search == 1200
    store = VectorStore.connect(ChromaServer(chroma_server.url), "imgret-narrow", 1200)
    assert store.audit(rows, audit.ef_search) == audit
    assert len(store.query(rows[0], 7)) == 7
    assert len(store._source.nearest([rows[0]], 7, None)[0]) > 7


def test_a_search_that_is_wide_enough_from_the_start_asks_for_no_more_than_it_needs(chroma_server, monkeypatch):
    monkeypatch.setattr("imgret.vectors.base.FIRST_EF_SEARCH", 10)
    rows = unit_rows(1500)
    audit = VectorStore.write(ChromaServer(chroma_server.url), "imgret-wide", "a test", rows, [None] * 1500)
    made = chroma_server.client().get_collection("imgret-wide", embedding_function=None).configuration_json["hnsw"]
    assert audit.ef_search == made["ef_search"] == 50
    store = VectorStore.connect(ChromaServer(chroma_server.url), "imgret-wide", 1500)
    assert len(store._source.nearest([rows[0]], 7, None)[0]) == 7


class Guard(http.server.BaseHTTPRequestHandler):
    """A proxy that asks for the token, as stands before servers that cannot."""

    def pass_on(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.seen.append(self.headers.get("Authorization"))
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self.answer(401, b"who are you?")
            return
        headers = {"Content-Type": "application/json"}
        asked = urllib.request.Request(
            self.server.behind + self.path.removeprefix("/base"), body or None, headers, method=self.command
        )
        try:
            with urllib.request.urlopen(asked) as response:
                self.answer(response.status, response.read())
        except urllib.error.HTTPError as error:
            self.answer(error.code, error.read())

    def answer(self, status, body):
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = pass_on

    def log_message(self, *_):
        pass


def test_a_token_opens_the_server_and_a_wrong_one_is_a_sentence(chroma_server, caplog):
    rows = unit_rows(20)
    proxy = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Guard)
    proxy.behind, proxy.seen = chroma_server.url, []
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{proxy.server_port}/base/"
    server = ChromaServer(url, TOKEN)
    caplog.set_level("DEBUG")
    VectorStore.write(server, "imgret-guarded", "a test", rows, [None] * 20)
    store = VectorStore.connect(server, "imgret-guarded", 20)
    assert store.query(rows[3], 1).tolist() == [3]
    for wrong in (None, "another"):
        store = VectorStore.connect(ChromaServer(url, wrong), "imgret-guarded", 20)
        assert "does not take the token; set IMGRET_CHROMA_TOKEN" in said(lambda store=store: store.query(rows[3], 1))
    proxy.shutdown()
    assert "Bearer another" in proxy.seen
    assert TOKEN not in caplog.text
    assert TOKEN not in repr(server)


@pytest.mark.parametrize(
    "url",
    ["", "127.0.0.1:8000", "ftp://a", "http://", "http://a:0", "http://a:b", "http://u:s3cret-token@a", "http://a?x"],
)
def test_an_address_that_is_none_is_refused(url, build):
    assert "ddress" in said(lambda: build(url))


def test_a_token_that_no_header_can_carry_is_refused():
    assert "IMGRET_CHROMA_TOKEN" in said(lambda: ChromaServer("http://a", TOKEN + "\n"))


def test_a_server_that_is_away_or_silent_leaves_the_pixel_metrics(index_folder, cache, tmp_path, brief, monkeypatch):
    monkeypatch.setattr("imgret.vectors.server.PROBE_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        nobody = ChromaServer(f"http://127.0.0.1:{free_port()}")
        mute = ChromaServer(f"http://127.0.0.1:{silent.getsockname()[1]}")
        for server, says in ((nobody, "cannot be reached"), (mute, "does not answer")):
            retriever = Retriever(Index.open(index_folder, server, cache=cache), cache=cache)
            started = time.monotonic()
            assert says in said(lambda retriever=retriever: retriever.by_clip(text="a bird"))
            assert time.monotonic() - started < 30
            assert len(retriever.by_pixels(TIGER)) == 10
            endpoints = Endpoints(None, Thumbnails(tmp_path), (), 10**6)
            *pixels, clip = endpoints.by_all(ReadyIndex(retriever, "here"), Query(load_image(TIGER)), 5)
            assert [(answer.method, len(answer.hits)) for answer in pixels] == [(metric, 5) for metric in METRICS]
            assert (clip.method, clip.hits, clip.as_dict()["hits"]) == ("clip", (), [])
            assert says in clip.notice


class Drops(http.server.BaseHTTPRequestHandler):
    """A server that says a byte at a time."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        for _ in range(100):
            self.wfile.write(b" ")
            time.sleep(0.1)

    def log_message(self, *_):
        pass


def test_an_answer_that_comes_in_drops_is_not_waited_for_without_end(monkeypatch):
    monkeypatch.setattr("imgret.vectors.server_collection.ANSWER_SECONDS", 1)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Drops)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    store = VectorStore.connect(ChromaServer(f"http://127.0.0.1:{server.server_port}"), "imgret-drops", 5)
    assert "does not answer" in said(lambda: store.query(unit_rows(1)[0], 1))
    server.shutdown()


def test_a_server_that_falls_silent_is_waited_for_and_asked_again(chroma, index_folder, cache, monkeypatch):
    monkeypatch.setattr("imgret.vectors.server_collection.ANSWER_SECONDS", 4)
    retriever = fill(chroma, index_folder, cache)
    before = found(retriever, text="a bird")
    chroma.process.send_signal(signal.SIGSTOP)
    with ThreadPoolExecutor(8) as pool:
        started = time.monotonic()
        sentences = list(pool.map(lambda _: said(lambda: retriever.by_clip(text="a bird")), range(8)))
        assert time.monotonic() - started < 30
    assert all("does not answer" in sentence for sentence in sentences)
    chroma.process.send_signal(signal.SIGCONT)
    assert found(retriever, text="a bird") == before


def test_queries_go_on_over_a_restart_and_say_so_when_it_takes_too_long(chroma, index_folder, cache, monkeypatch):
    retriever = fill(chroma, index_folder, cache)
    queries = [{"text": text, "k": 5} for text in ("a bird", "a red flower", "sails on the sea")]
    before = [found(retriever, **query) for query in queries]
    monkeypatch.setattr("imgret.vectors.server_collection.PATIENCE_SECONDS", 60)
    # A retriever each: texts that are asked together share a batch, which moves the last digits of their vectors.
    patient = [Retriever(Index.open(index_folder, chroma.url, cache=cache), retriever.encoder) for _ in queries]
    with ThreadPoolExecutor(3) as pool:
        stop = time.monotonic() + 3
        asking = [pool.submit(ask_until, one, query, stop) for one, query in zip(patient, queries, strict=True)]
        time.sleep(0.5)
        chroma.kill()
        chroma.start()
        for answers, expected in zip(asking, before, strict=True):
            every = answers.result()
            assert all(answer == expected for answer in every)
    chroma.kill()
    monkeypatch.setattr("imgret.vectors.server_collection.PATIENCE_SECONDS", 0.5)
    brief = Retriever(Index.open(index_folder, chroma.url, cache=cache), retriever.encoder)
    for _ in range(2):
        assert "cannot be reached" in said(lambda: brief.by_clip(text="a bird", k=5))
    chroma.start()
    assert found(brief, **queries[0]) == before[0]


def ask_until(retriever, query, stop):
    answers = []
    while time.monotonic() < stop:
        answers.append(found(retriever, **query))
    return answers


def test_a_build_outlives_two_restarts_of_the_server(chroma):
    rows, moments = unit_rows(3000), []

    def restart(done):
        if done in (1000, 2000):
            chroma.kill()
            threading.Timer(0.3, chroma.start).start()
            moments.append(done)

    VectorStore.write(ChromaServer(chroma.url), "imgret-restarted", "a test", rows, ["a"] * 3000, restart)
    assert moments == [1000, 2000]
    collection = chroma.client().get_collection("imgret-restarted", embedding_function=None)
    written = collection.get(include=["embeddings"])
    order = np.argsort([int(name) for name in written["ids"]])
    np.testing.assert_allclose(np.asarray(written["embeddings"])[order], rows, atol=1e-6)
    assert chroma.names() == ["imgret-restarted"]


def test_a_build_that_is_killed_shows_no_half_and_is_finished_by_the_next(chroma, monkeypatch):
    rows, server = unit_rows(3000), ChromaServer(chroma.url)
    code = """
import os, signal, sys
import numpy as np
from imgret.vectors import ChromaServer, VectorStore
from tests.test_vectors import unit_rows
def die(done):
    if done == 2000:
        os.kill(os.getpid(), signal.SIGKILL)
rows, server = unit_rows(3000), ChromaServer(sys.argv[1])
VectorStore.write(server, "imgret-killed", "a test", rows, [None] * 3000, die)
"""
    killed = subprocess.run([sys.executable, "-c", code, chroma.url], cwd=ROOT)
    assert killed.returncode == -signal.SIGKILL
    assert chroma.names() == ["imgret-killed-draft"]
    reader = VectorStore.connect(server, "imgret-killed", 3000)
    assert "has no collection imgret-killed" in said(lambda: reader.query(rows[0], 3))
    heard = []
    audit = VectorStore.write(server, "imgret-killed", "a test", rows, [None] * 3000, heard.append)
    assert heard == [3000]
    assert audit.recall >= 0.99
    assert chroma.names() == ["imgret-killed"]
    assert reader.query(rows[2345], 1).tolist() == [2345]


def test_two_builds_of_the_same_content_at_once_write_it_once(chroma, monkeypatch):
    rows, server = unit_rows(1500), ChromaServer(chroma.url)
    with ThreadPoolExecutor(3) as pool:
        writing = [pool.submit(VectorStore.write, server, "imgret-both", name, rows, [None] * 1500) for name in "abc"]
        assert all(done.result().recall >= 0.99 for done in writing)
    assert chroma.names() == ["imgret-both"]
    noted = json.loads(chroma.client().get_collection("imgret-both", embedding_function=None).metadata["imgret"])
    assert sorted(noted["owners"]) == ["a", "b", "c"]
    looked_too_early = "imgret.vectors.server_collection.ServerCollection.is_there"
    monkeypatch.setattr(looked_too_early, lambda *_: False)
    VectorStore.write(server, "imgret-both", "d", rows, [None] * 1500)
    assert chroma.names() == ["imgret-both"]


def test_an_owner_whose_note_another_build_overwrites_is_noted_again(chroma, monkeypatch):
    rows, server = unit_rows(20), ChromaServer(chroma.url)
    VectorStore.write(server, "imgret-noted", "a", rows, [None] * 20)
    collection = chroma.client().get_collection("imgret-noted", embedding_function=None)
    note, overwritten = collection.metadata, []

    def overwrite(_):
        if not overwritten:
            overwritten.append(collection.modify(metadata=note))

    monkeypatch.setattr("imgret.vectors.server_collection.time.sleep", overwrite)
    VectorStore.write(server, "imgret-noted", "b", rows, [None] * 20)
    noted = json.loads(chroma.client().get_collection("imgret-noted", embedding_function=None).metadata["imgret"])
    assert (overwritten, noted["owners"]) == ([None], ["a", "b"])


def test_a_collection_that_is_not_the_index_s_is_a_sentence_and_is_left_alone(chroma, index_folder, cache, brief):
    retriever = fill(chroma, index_folder, cache)
    (name,) = chroma.names()
    assert retriever.by_clip(text="a bird")
    chroma.client().delete_collection(name)
    assert f"has no collection {name}" in said(lambda: retriever.by_clip(text="a bird"))

    other = chroma.client().create_collection(name, embedding_function=None)
    other.add(ids=["x"], embeddings=[[1.0, 2.0]])
    assert "did not write it" in said(lambda: retriever.by_clip(text="a bird"))
    index = Index.open(index_folder, cache=cache)
    assert "leaves it alone" in said(lambda: index.write_vectors(ChromaServer(chroma.url), "a test"))
    assert chroma.client().get_collection(name, embedding_function=None).count() == 1
    chroma.client().delete_collection(name)

    # What imgret wrote and somebody took away is written again.
    index.write_vectors(ChromaServer(chroma.url), "a test")
    assert retriever.by_clip(text="a bird")
    chroma.client().get_collection(name, embedding_function=None).delete(ids=["7"])
    late = Retriever(Index.open(index_folder, chroma.url, cache=cache), retriever.encoder)
    assert "it holds 544 vectors instead of 545" in said(lambda: late.by_clip(text="a bird"))
    index.write_vectors(ChromaServer(chroma.url), "a test")
    assert found(late, text="a bird") == found(retriever, text="a bird")
    assert "dimension" in said(lambda: late.index.vectors.query(np.ones(3, np.float32), 2))
    assert late.by_pixels(TIGER)


def test_a_reader_keeps_its_collection_over_one_build_and_others_keep_theirs(chroma, build, library, tmp_path, cache):
    folder = build(chroma.url)
    (first,) = chroma.names()
    reader = Retriever(Index.open(folder, chroma.url, cache=cache), cache=cache)
    before = found(reader, text="a bird")
    chroma.client().create_collection("imgret-somebodys", embedding_function=None)

    shutil.copytree(folder, tmp_path / "copy")
    next(library.rglob("*.webp")).unlink()
    build(chroma.url, "copy")  # which is another index from now on
    build(chroma.url)
    assert found(reader, text="a bird") == before
    second = Manifest.read(folder).vectors.collection
    assert chroma.names() == sorted([first, second, "imgret-somebodys"])
    build(chroma.url)  # nothing changed
    assert second in chroma.names()

    next(library.rglob("*.webp")).unlink()
    build(chroma.url)
    third = Manifest.read(folder).vectors.collection
    assert chroma.names() == sorted([second, third, "imgret-somebodys"])
    assert "has no collection" in said(lambda: reader.by_clip(text="a bird"))
    assert reader.by_pixels(TIGER)
    assert Retriever(Index.open(tmp_path / "copy", chroma.url, cache=cache), reader.encoder).by_clip(text="a bird")


def test_what_was_left_half_or_by_an_earlier_release_is_written_anew(chroma):
    server, rows = ChromaServer(chroma.url), unit_rows(1300)

    def cut(done):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        VectorStore.write(server, "imgret-a", "one", rows[:1200], [None] * 1200, cut)
    assert chroma.names() == ["imgret-a-draft"]
    VectorStore.write(server, "imgret-a", "one", rows, [None] * 1300)
    store = VectorStore.connect(server, "imgret-a", 1300)
    assert [store.query(rows[row], 1).tolist() for row in (100, 1299)] == [[100], [1299]]

    metadata = {"imgret": json.dumps({"dim": 32, "owners": ["one"], "indexes": ["a"], "written": 3})}
    early = chroma.client().create_collection("imgret-b", embedding_function=None, metadata=metadata)
    early.add(ids=["10", "11", "12"], embeddings=rows[:3])
    store = VectorStore.connect(server, "imgret-b", 3)
    assert "it holds the vectors of another one" in said(lambda: store.query(rows[0], 1))
    VectorStore.write(server, "imgret-b", "one", rows[:3], [None] * 3)
    assert store.query(rows[2], 1).tolist() == [2]
    assert chroma.client().get_collection("imgret-b", embedding_function=None).count() == 3


def test_what_a_killed_build_of_a_folder_left_is_dropped_by_the_next(chroma, build, library, tmp_path, monkeypatch):
    class Cut(Exception):
        pass

    def cut(stage, done, total):
        if stage == "vectors":
            raise Cut

    with pytest.raises(Cut):
        build(chroma.url, progress=cut)
    assert [name.endswith("-draft") for name in chroma.names()] == [True]
    next(library.rglob("*.webp")).unlink()
    folder = build(chroma.url)
    assert chroma.names() == [Manifest.read(folder).vectors.collection]


def test_a_build_without_its_server_ends_before_it_embeds_and_leaves_the_index(chroma, build, library, cache, brief):
    folder = build(chroma.url)
    before = (folder / "manifest.json").read_text()
    chroma.kill()
    next(library.rglob("*.webp")).unlink()
    stages = []
    assert "cannot be reached" in said(lambda: build(chroma.url, progress=lambda *stage: stages.append(stage)))
    assert stages == []
    assert (folder / "manifest.json").read_text() == before
    chroma.start()


def until(health, status):
    """The health, as soon as it has a status."""
    for _ in range(200):
        if (found := health()).status == status:
            return found
        time.sleep(0.1)
    raise AssertionError(found)


def test_a_start_without_the_server_has_the_pixels_and_the_rest_when_it_is_back(
    chroma, build, cache, brief, library, monkeypatch
):
    folder = build(chroma.url)
    settings = Settings(library=str(library), index=str(folder), pixel_size=16, cache=cache, chroma_url=chroma.url)
    chroma.kill()
    retriever = prepare(settings).retriever
    assert retriever.by_pixels(TIGER)
    assert "cannot be reached" in said(lambda: retriever.by_clip(text="a bird"))
    chroma.start()
    assert retriever.by_clip(text="a bird")

    chroma.kill()
    monkeypatch.setattr("imgret.startup.SECONDS_BETWEEN_TRIES", 0.2)
    start = Startup(lambda progress: prepare(settings, progress))
    start.wait()
    health = until(start.health, "degraded")
    assert "cannot be reached" in health.reason
    assert health.searchable
    chroma.start()
    assert until(start.health, "ready").reason is None

    chroma.kill()
    ready = prepare(settings.model_copy(update={"index": None}))  # nothing was built there yet
    assert ready.notice.startswith("The vectors are kept here, because the Chroma server is not available. ")
    assert ready.retriever.by_clip(text="a bird")
    chroma.start()
    ready = prepare(settings.model_copy(update={"index": None}))
    assert (ready.origin, ready.notice) == ("built now", None)
    assert ready.retriever.index.manifest.vectors.url == chroma.url
    assert ready.retriever.by_clip(text="a bird")


def test_an_index_from_the_hub_is_written_to_the_server(chroma, build, cache, library):
    settings = Settings(library=str(library), index="someone/index", pixel_size=16, cache=cache, chroma_url=chroma.url)
    ready = prepare(settings, mount=build())
    assert "volume" in ready.origin
    assert chroma.names() == ["imgret-" + ready.retriever.index.manifest.content]
    assert ready.retriever.by_clip(text="a bird")


def test_the_commands_take_the_server_from_the_environment(chroma, small_library, tmp_path, cache):
    environment = os.environ | {
        "IMGRET_CACHE": str(cache),
        "IMGRET_CHROMA_URL": chroma.url,
        "IMGRET_CHROMA_TOKEN": TOKEN,
    }

    def imgret(*arguments, **variables):
        command = [sys.executable, "-m", "imgret.cli", *map(str, arguments)]
        return subprocess.run(
            command, env=environment | variables, cwd=ROOT, capture_output=True, text=True, timeout=120
        )

    folder = tmp_path / "index"
    built = imgret("build", small_library, "--out", folder)
    assert built.returncode == 0, built.stderr
    answer = imgret("search", folder, "--text", "a bird", "-k", 3, "--json")
    assert len(json.loads(answer.stdout)["hits"]) == 3
    refused = imgret("search", folder, "--text", "a bird", IMGRET_CHROMA_URL="")
    assert (refused.returncode, "set IMGRET_CHROMA_URL" in refused.stderr) == (2, True)


def test_two_pages_over_one_server_and_one_index_answer_alike(chroma_server, index_folder, retriever, cache, tmp_path):
    fill(chroma_server, index_folder, cache).index.close()
    expected = retriever.by_clip(image=TIGER, k=5)
    with (
        serving(index_folder, cache, tmp_path / "one", IMGRET_CHROMA_URL=chroma_server.url) as one,
        serving(index_folder, cache, tmp_path / "two", IMGRET_CHROMA_URL=chroma_server.url) as two,
    ):
        answers = []
        for page in (one, two):
            client = Client(page.address, verbose=False, download_files=False)
            hits = client.predict(image=handle_file(str(TIGER)), k=5, api_name="/search_clip")["hits"]
            assert [(hit["id"], hit["score"]) for hit in hits] == [(hit.id, hit.score) for hit in expected]
            answers.append([hit["image"]["path"] for hit in hits])
        assert answers[0] == answers[1]
        # A thumbnail that one page named comes from the other, also where there is no such file, as on another machine.
        for page, path, hit in zip((one, two, one, two), answers[0], expected, strict=False):
            os.unlink(path)
            found = httpx.get(f"{page.address}/gradio_api/file={path}", timeout=30)
            assert found.content == retriever.thumbnail(hit.id)
        for wrong in (f"{answers[0][0]}x", answers[0][0].replace(".webp", "9999.webp"), f"{cache}/shown/../secret"):
            assert httpx.get(f"{two.address}/gradio_api/file={wrong}", timeout=30).status_code in (403, 404)
