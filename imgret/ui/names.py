"""Names as a person reads them, and lists of names as one parameter of the address."""

from collections.abc import Iterable
from urllib.parse import unquote

from imgret.search import Hit

BETWEEN = "|"


def label_name(label: str) -> str:
    """A label with its last folder first: "animals/sea_birds" is "sea birds (animals)"."""
    *folders, last = label.replace("_", " ").split("/")
    return f"{last} ({', '.join(reversed(folders))})" if folders else last


def hit_name(hit: Hit, language: str) -> str:
    """The caption of a hit in the language, with the last folders of its labels; its id where it has neither."""
    caption = hit.captions.get(language) or hit.caption
    labels = ", ".join(label_name(label).partition(" (")[0] for label in hit.labels)
    return " · ".join(part for part in (caption, labels) if part) or hit.id


def joined(names: Iterable[str]) -> str:
    """The names as one text, which `separated` reads."""
    return BETWEEN.join(name.replace("%", "%25").replace(BETWEEN, "%7C") for name in names)


def separated(text: str) -> list[str]:
    """The names in a text that `joined` made; none in an empty one."""
    return [unquote(name) for name in text.split(BETWEEN)] if text else []
