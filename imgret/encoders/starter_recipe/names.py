"""Which texts are said to mean which ImageNet classes: synonyms, broader and narrower words, and Vietnamese names.

Sources: timm's ImageNetInfo for the classes, WordNet 3.0 for words above and below them, and two lists of Vietnamese
names beside this file, a line a class (names divided by ";") or a line a broader word (English, tab, Vietnamese).
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

PROMPTS = ("{}", "a photo of a {}", "A {}.")
MAX_CLASSES_BELOW = 250
"""A broader word that stands for more of the 1,000 classes says next to nothing of a picture."""
NARROWER_WEIGHT, VIETNAMESE_WEIGHT = 0.3, 2.0

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """A text, the classes that it stands for, and how much it weighs."""

    text: str
    classes: tuple[int, ...]
    weight: float


@dataclass(frozen=True)
class WordNet:
    """The nouns: words by synset, and the synsets directly above and below each."""

    words: dict[int, list[str]]
    above: dict[int, list[int]]
    below: dict[int, list[int]]

    @classmethod
    def read(cls, path: Path) -> "WordNet":
        """From WordNet's `data.noun`."""
        words: dict[int, list[str]] = {}
        above: dict[int, list[int]] = defaultdict(list)
        below: dict[int, list[int]] = defaultdict(list)
        for line in path.read_text(encoding="utf-8").splitlines():
            if line.startswith(" "):  # the licence
                continue
            fields = line.split(" | ")[0].split()
            synset, count = int(fields[0]), int(fields[3], 16)
            words[synset] = [word.replace("_", " ") for word in fields[4 : 4 + 2 * count : 2]]
            pointers = fields[4 + 2 * count :]
            for kind, target, part in zip(pointers[1::4], pointers[2::4], pointers[3::4], strict=False):
                if part == "n" and kind in ("@", "@i"):
                    above[synset].append(int(target))
                    below[int(target)].append(synset)
        return cls(words, above, below)

    def all_above(self, synset: int) -> set[int]:
        """Every synset above, however far."""
        return _closure(synset, self.above)

    def all_below(self, synset: int) -> set[int]:
        """Every synset below, however far."""
        return _closure(synset, self.below)


def rows(wordnet: WordNet) -> list[Row]:
    """All texts of the map, in an order that is always the same."""
    from timm.data.imagenet_info import ImageNetInfo

    info = ImageNetInfo()
    synsets = [int(info.index_to_label_name(c)[1:]) for c in range(1000)]
    found: list[Row] = []
    for c in range(1000):
        for name in info.index_to_description(c).split(","):
            found += [Row(prompt.format(name.strip()), (c,), 1.0) for prompt in PROMPTS]
    beneath: dict[int, set[int]] = defaultdict(set)
    for c, synset in enumerate(synsets):
        for itself_or_broader in {synset} | wordnet.all_above(synset):
            beneath[itself_or_broader].add(c)
    for broader, classes in sorted(beneath.items()):
        if len(classes) <= MAX_CLASSES_BELOW and broader not in synsets:
            for word in wordnet.words[broader]:
                found += [Row(text, tuple(sorted(classes)), 1.0) for text in (word, f"A {word}.")]
    for c, synset in enumerate(synsets):
        for narrower in sorted(wordnet.all_below(synset)):
            found += [Row(word, (c,), NARROWER_WEIGHT) for word in wordnet.words[narrower]]
    found += [
        Row(text, classes, VIETNAMESE_WEIGHT)
        for name, classes in [*_vietnamese_classes(), *_vietnamese_broader_words(wordnet, beneath)]
        for text in plain_and_sentence(name)
    ]
    return found


def plain_and_sentence(name: str) -> tuple[str, str]:
    """A name as it is, and as a sentence."""
    return name, f"{name[:1].upper()}{name[1:]}."


def _vietnamese_classes() -> Iterator[tuple[str, tuple[int, ...]]]:
    for line in (_HERE / "class-names.vi.txt").read_text(encoding="utf-8").splitlines():
        number, names = line.split(" ", 1)
        for name in names.split(";"):
            yield name.strip(), (int(number),)


def _vietnamese_broader_words(wordnet: WordNet, beneath: dict[int, set[int]]) -> Iterator[tuple[str, tuple[int, ...]]]:
    """A broader word may be more than one synset: of those with classes below, the one with the most is meant."""
    synsets_of: dict[str, list[int]] = defaultdict(list)
    for synset, words in wordnet.words.items():
        for word in words:
            synsets_of[word.lower()].append(synset)
    for line in (_HERE / "hypernyms.vi.txt").read_text(encoding="utf-8").splitlines():
        english, names = line.split("\t")
        meant = max(synsets_of[english], key=lambda synset: len(beneath[synset]))
        classes = tuple(sorted(beneath[meant]))
        if not classes:
            raise ValueError(f'"{english}" stands above no class.')
        for name in names.split(";"):
            yield name.strip(), classes


def _closure(start: int, edges: dict[int, list[int]]) -> set[int]:
    found: set[int] = set()
    waiting = [start]
    while waiting:
        for other in edges.get(waiting.pop(), ()):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found


def targets(rows: list[Row], directions: np.ndarray) -> np.ndarray:
    """Where each text shall lie: the unit mean of its classes' unit `directions` (1000, d). (n, d)."""
    means = np.stack([directions[list(row.classes)].mean(axis=0) for row in rows])
    return means / np.linalg.norm(means, axis=1, keepdims=True)
