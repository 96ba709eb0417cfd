"""A query needs no torch, and many visitors at once get what each would have got alone."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from gradio_client import Client, handle_file

from imgret import load_encoder, load_image
from imgret.encoders.onnx import MIN_COSINE
from imgret.encoders.shared import SharedEncoder
from tests.conftest import QUERIES, ROOT

SEARCH = """
import sys
from imgret import Index, Retriever
retriever = Retriever(Index.open(sys.argv[1]))
assert retriever.by_pixels(sys.argv[2]) and retriever.by_clip(image=sys.argv[2], text="a cat", negative="a dog")
print(*({"torch", "open_clip", "transformers", "torchvision", "datasets"} & set(sys.modules)))
"""


def test_a_search_by_every_method_imports_no_torch(index_folder):
    command = [sys.executable, "-c", SEARCH, str(index_folder), str(QUERIES / "tiger.webp")]
    assert subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split() == []


def test_the_encoder_in_the_index_gives_the_vectors_of_the_one_that_comes_along(retriever, cache):
    original = load_encoder("starter", cache=cache)
    pictures = [load_image(path) for path in sorted(QUERIES.glob("*.webp"))]
    texts = ["a red flower", "A toucan.", "sails on the sea"]
    assert retriever.encoder.embed_images(pictures) == pytest.approx(original.embed_images(pictures), abs=1e-5)
    assert retriever.encoder.embed_texts(texts) == pytest.approx(original.embed_texts(texts), abs=1e-5)
    encoder = retriever.index.manifest.encoder
    assert (encoder.fingerprint, encoder.languages) == (original.fingerprint, ("en", "vi"))
    assert encoder.export["pictures"] >= 64
    assert encoder.export["texts"] >= 64
    for tower in ("image", "text"):
        assert encoder.export[tower]["cosine"] >= MIN_COSINE[encoder.export[tower]["precision"]]
        assert encoder.export[tower]["top10"] >= 0.95


class Watched:
    """An encoder that answers only when it is let, and remembers the size of each batch."""

    def __init__(self, encoder, exact=True):
        self._encoder, self.exact_in_batches = encoder, exact
        self.let, self.batches = threading.Event(), []

    def preprocess(self, image):
        return self._encoder.preprocess(image)

    def embed_preprocessed(self, pixels):
        self.let.wait()
        self.batches.append(len(pixels))
        return self._encoder.embed_preprocessed(pixels)

    def embed_texts(self, texts):
        self.let.wait()
        self.batches.append(len(texts))
        return self._encoder.embed_texts(texts)


def ask_together(shared, watched, texts):
    with ThreadPoolExecutor(len(texts)) as pool:
        answers = [pool.submit(shared.text, text) for text in texts]
        while shared._texts._thread._work_queue.qsize() < len(texts) - 1:
            pass
        watched.let.set()
        return [answer.result() for answer in answers]


def test_what_waits_goes_through_a_tower_together_and_each_gets_its_own(retriever):
    watched = Watched(retriever.encoder)
    texts = [f"{number} birds" for number in range(12)]
    vectors = ask_together(SharedEncoder(watched), watched, texts)
    np.testing.assert_allclose(vectors, retriever.encoder.embed_texts(texts), atol=1e-5)
    assert len(watched.batches) <= 2  # those who came first, and all who came while these were running
    assert sum(watched.batches) == 12


def test_a_tower_whose_answer_depends_on_its_batch_is_asked_one_at_a_time(retriever):
    watched = Watched(retriever.encoder, exact=False)
    ask_together(SharedEncoder(watched), watched, ["a", "b", "c", "d"])
    assert watched.batches == [1, 1, 1, 1]


def test_what_was_asked_before_is_not_embedded_again(retriever):
    watched = Watched(retriever.encoder)
    watched.let.set()
    shared = SharedEncoder(watched)
    picture = load_image(QUERIES / "dog.webp")
    first = shared.image(picture)
    assert (shared.image(load_image(QUERIES / "dog.webp")) == first).all()
    assert (shared.text("a dog") == shared.text("a dog")).all()
    assert watched.batches == [1, 1]


def test_an_error_reaches_all_who_wait_and_the_next_is_answered(retriever):
    class Failing(Watched):
        def embed_texts(self, texts):
            self.let.wait()
            if "bad" in texts:
                raise ValueError("no such word")
            return self._encoder.embed_texts(texts)

    watched = Failing(retriever.encoder)
    watched.let.set()
    shared = SharedEncoder(watched)
    with pytest.raises(ValueError, match="no such word"):
        shared.text("bad")
    assert shared.text("good").shape == (512,)


def test_32_visitors_at_once_get_the_scores_of_each_alone(server, retriever):
    client = Client(server, verbose=False)
    pictures = [handle_file(str(path)) for path in sorted(QUERIES.glob("*.webp"))]
    asked = [{"image": picture, "k": 5} for picture in pictures] + [{"text": f"{n} birds", "k": 5} for n in range(16)]
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda query: client.predict(**query, api_name="/search_clip"), asked))
    for query, answer in zip(asked, answers, strict=True):
        alone = retriever.by_clip(**query | ({"image": query["image"]["path"]} if "image" in query else {}))
        assert [hit["id"] for hit in answer["hits"]] == [hit.id for hit in alone]
        assert [hit["score"] for hit in answer["hits"]] == pytest.approx([hit.score for hit in alone], abs=1e-5)
