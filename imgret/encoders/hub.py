"""Is the Hub there? Asked once and quickly, before a client that would retry for minutes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

ANSWER_SECONDS = 5.0
"""How long the Hub may take to answer at all. Past it, only files already in the local cache are used."""


@contextmanager
def quick_hub(needed: bool) -> Iterator[None]:
    """While open, the Hub's clients use only the local cache, unless the Hub is needed and answers in `ANSWER_SECONDS`.

    Without this, `hf_hub_download` retries for 23 s on a closed port and for minutes on a host that never answers.
    A user's own HF_HUB_OFFLINE stands, and then nothing is asked.
    """
    from huggingface_hub import constants

    offline_before = constants.HF_HUB_OFFLINE
    # huggingface_hub and transformers both read this flag at each request, and have no other switch that covers both.
    constants.HF_HUB_OFFLINE = offline_before or not needed or not _answers(constants.ENDPOINT)
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline_before


def _answers(url: str) -> bool:
    from huggingface_hub import get_session

    answered = threading.Event()

    def ask() -> None:
        try:
            get_session().head(url, timeout=ANSWER_SECONDS)
        except Exception:  # whatever went wrong, the Hub is not there
            return
        answered.set()

    # In a thread of its own, because name resolution heeds no time-out.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    return answered.is_set()
