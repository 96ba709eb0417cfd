"""Finds out within two seconds whether the Hub answers, because its own clients retry for minutes."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

ANSWER_SECONDS = 2.0
"""How long the Hub may take to answer at all. Past it, only files already in the local cache are used."""

REMEMBERED_SECONDS = 30.0
"""How long it is taken to be away once it did not answer, so that a start that needs it thrice waits for it once."""

_away: dict[str, float] = {}
"""When each Hub that did not answer was asked, by its address."""


def hub_answers() -> bool:
    """Whether the Hub answers, found out within `ANSWER_SECONDS`; a user's own HF_HUB_OFFLINE is a no.

    Without asking, `load_dataset` and `hf_hub_download` retry for 23 s on a closed port, and for minutes on a host that
    never answers.
    """
    from huggingface_hub import constants

    address = constants.ENDPOINT
    if constants.HF_HUB_OFFLINE or time.monotonic() - _away.get(address, -REMEMBERED_SECONDS) < REMEMBERED_SECONDS:
        return False
    answered = _answers(address)
    if answered:
        _away.pop(address, None)
    else:
        _away[address] = time.monotonic()
    return answered


@contextmanager
def offline_unless_reachable(needed: bool) -> Iterator[None]:
    """Keeps the Hub's clients offline, on their local cache, unless the Hub is `needed` and answers."""
    from huggingface_hub import constants

    offline_before = constants.HF_HUB_OFFLINE
    # huggingface_hub and transformers both read this flag at each request, and have no other switch that covers both.
    constants.HF_HUB_OFFLINE = not (needed and hub_answers())
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = offline_before


def _answers(url: str) -> bool:
    from huggingface_hub import get_session

    answered = threading.Event()

    def ask() -> None:
        try:
            response = get_session().head(url, timeout=ANSWER_SECONDS)
        except Exception:  # whatever went wrong, the Hub is not there
            return
        if response.status_code < 500:
            answered.set()

    # In a thread of its own, because name resolution heeds no time-out.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(ANSWER_SECONDS)
    return answered.is_set()
