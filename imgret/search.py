"""Searches an index by the four pixel metrics and by CLIP: `Retriever` answers queries with hits."""

import threading
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from difflib import get_close_matches
from functools import cached_property, partial, wraps
from inspect import signature
from numbers import Integral
from pathlib import Path
from typing import Any, ParamSpec

import numpy as np
import numpy.typing as npt
from PIL import Image

from imgret.calibration import TEXT
from imgret.duplicates import DuplicateGroup, duplicates_of
from imgret.encoders import Encoder, load_encoder
from imgret.encoders.shared import SharedEncoder
from imgret.errors import ImgretError, Sentence, repr_short
from imgret.hits import Ask, PValues, Rows, Scores
from imgret.hits import Hit as Hit
from imgret.hits import SearchResult as SearchResult
from imgret.images import ImageSource, PixelVector, load_image, pixel_vector
from imgret.index import Index
from imgret.library import composed
from imgret.metrics import METRICS, best_first, checked_metric
from imgret.vectors import nearest_among

METHODS = (*METRICS, "clip")
"""The five methods by name, in the order they are shown."""

EMBEDDING_METHODS = {f"clip-{metric}": metric for metric in METRICS if metric != "cosine"}
"""The other metrics on embeddings, by the names of the methods. On unit vectors `clip-l2` ranks as `clip` does, as
|a - b|^2 = 2 - 2 a.b.
"""

MAX_TEXT, MAX_IMAGES = 2000, 32


class _Default(int):
    """A number that nobody asked for. It equals the same number that somebody gives, but is another object."""


DEFAULT_K = _Default(10)

_SPARE, _TIE = 8, 1e-6
"""How many more neighbours than asked for are fetched, and how far apart scores are that Chroma can tell apart."""
_P = ParamSpec("_P")


class SearchError(ImgretError):
    """A query that cannot be answered; the text says why and what would work."""


class SearchWarning(UserWarning):
    """A query was answered in part, or in another way than it may be meant; the text says how."""


class _Row(int):
    """A row of the index as a query picture. A class of its own: a number that a caller gives is no picture."""


def _warned(found: SearchResult) -> list[Hit]:
    """The hits. What else there is to say becomes a warning, which names the line that called the search."""
    if found.notice is not None:
        warnings.warn(found.notice, SearchWarning, stacklevel=3)
    return found.hits


def _only_hits(find: Callable[_P, SearchResult]) -> Callable[_P, list[Hit]]:
    """The search `find_by_...` as `by_...`: it returns the hits alone, and warns where the other has a notice."""

    @wraps(find)
    def by(*arguments: _P.args, **options: _P.kwargs) -> list[Hit]:
        return _warned(find(*arguments, **options))

    by.__name__ = find.__name__.removeprefix("find_")
    vars(by)["__signature__"] = signature(find).replace(return_annotation=list[Hit])
    return by


class Retriever:
    """Searches one index by all five methods.

    `by_pixels` and `by_clip` return hits; `find_by_pixels` and `find_by_clip` take the same and return a SearchResult.
    Safe to use from several threads; the encoder is loaded by the first query that needs it.
    """

    def __init__(
        self, index: Index, encoder: Encoder | Callable[[], Encoder] | None = None, *, cache: Path | None = None
    ) -> None:
        """`encoder` replaces the one that the manifest names; it must be the same model, or SearchError is raised.

        `cache` has no use any more: the starter's files once were kept there.
        """
        self.index = index
        self._load = encoder if callable(encoder) else self._load_own
        self._encoder = None if encoder is None or callable(encoder) else self._checked(encoder)
        self._shared: SharedEncoder | None = None
        self._p_values = PValues(index)
        self._lock = threading.RLock()
        self._duplicates: tuple[DuplicateGroup, ...] | None = None
        self._finding = threading.Lock()

    @property
    def encoder(self) -> Encoder:
        """The encoder of the index, loaded when first asked for. Raises EncoderError."""
        with self._lock:
            if self._encoder is None:
                self._encoder = self._checked(self._load())
            return self._encoder

    def _load_own(self) -> Encoder:
        """The exported encoder in the index, which needs no torch, or else the original."""
        return load_encoder(self.index.manifest.encoder.uri, exported=self.index.encoder_folder)

    @property
    def _queries(self) -> SharedEncoder:
        with self._lock:
            if self._shared is None:
                self._shared = SharedEncoder(self.encoder)
            return self._shared

    def warm_pixels(self) -> None:
        """Loads what the first pixel query of a process needs, so that it does not wait."""
        self.index.pixels.warm()

    def warm_clip(self) -> None:
        """Loads what the first CLIP query of a process needs, so that it does not wait. Raises EncoderError,
        VectorError.
        """
        self._queries.image(Image.new("RGB", (8, 8)))
        self.index.vectors.query(self._queries.text("a picture"), 1)

    def find_by_pixels(
        self,
        image: ImageSource | None = None,
        metric: str = "l2",
        k: int = DEFAULT_K,
        *,
        like: str | None = None,
        fold: bool = False,
        images: Sequence[ImageSource] | None = None,
        offset: int = 0,
        likes: Sequence[str] | None = None,
    ) -> SearchResult:
        """The `k` pictures nearest to `image` by one of the four metrics on pixel vectors, best first; exact.

        `like` is the id of a picture of the library: it is left out of the hits, and is the query if there is no
        `image`. With `images` the query is the mean of all the pictures' pixel vectors, rounded; `likes` are such
        pictures by their ids, which are left out of the hits. `fold` gives one hit for (nearly) equal pictures, the
        best of them, which says how many others there are. `offset` leaves out that many of the best hits; the ranks
        go on from there. Raises SearchError for an unknown metric, a bad k or an unknown id, ImageError for a bad
        picture.
        """
        notice = self._k_notice(k)
        metric, k, itself = checked_metric(metric, SearchError), self.checked_k(k), self._row_of(like)
        offset, rows = _checked_offset(offset), self._rows_of(likes)
        liked = [*checked_images(images), *rows]
        query = self._pixel_query(image, itself, liked)
        scanned = 0

        def ask(k: int) -> tuple[Rows, Scores]:
            nonlocal scanned
            nearest = self.index.pixels.nearest(query, metric, k)
            scanned = nearest.rows_scanned
            return nearest.rows, nearest.scores

        several = (image is not None or itself is not None) + len(liked) > 1
        method = None if several else metric  # queries of several pictures are not calibrated
        return SearchResult(self._best(ask, k, {itself, *rows}, fold, offset, method), scanned, notice)

    by_pixels = _only_hits(find_by_pixels)

    def pixel_query(
        self, image: ImageSource | None, like: str | None = None, likes: Sequence[str] | None = None
    ) -> PixelVector:
        """The pixel vector (D,) of the query that `by_pixels` searches for."""
        return self._pixel_query(image, self._row_of(like), self._rows_of(likes))

    def find_by_clip(
        self,
        image: ImageSource | None = None,
        text: str | None = None,
        negative: str | None = None,
        text_weight: float = 0.5,
        labels: Sequence[str] | None = None,
        k: int = DEFAULT_K,
        *,
        like: str | None = None,
        fold: bool = False,
        images: Sequence[ImageSource] | None = None,
        negative_images: Sequence[ImageSource] | None = None,
        offset: int = 0,
        likes: Sequence[str] | None = None,
        dislikes: Sequence[str] | None = None,
        metric: str | None = None,
        among: Rows | None = None,
    ) -> SearchResult:
        """The `k` pictures whose embeddings are nearest to that of the query, best first; equal scores by row.

        The query vector is made in three steps:
        1. The unit vector of the picture or of the text; for both (1 - text_weight) * picture + text_weight * text,
           normalised.
        2. With `images`, further pictures that hits should be like: the mean of that vector and their unit vectors,
           normalised.
        3. With `negative` or `negative_images`, what hits should not be like: less the mean of their unit vectors,
           normalised again (Rocchio 1971, with equal weights).

        `like` is the id of a picture of the library: it is the query picture if there is no `image`. `likes` and
        `dislikes` are further such pictures, as `images` and `negative_images`. All of these are left out of the hits.
        `labels` keeps only pictures with one of these labels, `among` only those in these rows of the index. `fold` and
        `offset` are as for `by_pixels`. With a `metric`, one of the four, all embeddings are compared by it, and the
        score is the metric's. Raises SearchError, ImageError, EncoderError, VectorError.
        """
        text, negative = _checked_texts(text, negative)
        notices = [self._k_notice(k), self._language_notice(text, negative), self._release_notice]
        k, itself = self.checked_k(k), self._row_of(like)
        kept = self._kept_rows(labels, among)
        offset, rows, others = _checked_offset(offset), self._rows_of(likes), self._rows_of(dislikes)
        liked, disliked = [*checked_images(images), *rows], [*checked_images(negative_images), *others]
        left_out = {itself, *rows, *others}
        vector = self._clip_query(image, text, negative, text_weight, itself, liked, disliked)
        notices += [self._cut_notice(text), self._cut_notice(negative)]
        if metric is not None:
            ask, scanned = self._ranked_by(checked_metric(metric, SearchError), vector, kept)
            hits = self._best(ask, k, left_out, fold, offset)
            return SearchResult(hits, scanned, Sentence.joined(*notices))
        # The build calibrates queries of one picture or one text; the p-values of others are not known.
        one_picture, one_text = image is not None or itself is not None, text is not None
        plain = not (kept is not None or liked or disliked or negative is not None or (one_picture and one_text))
        method = (TEXT if one_text else "clip") if plain else None
        hits = self._best(partial(self._nearest, vector, kept), k, left_out, fold, offset, method)
        return SearchResult(hits, None, Sentence.joined(*notices))

    by_clip = _only_hits(find_by_clip)

    def by_embedding(
        self,
        image: ImageSource | None = None,
        metric: str = "cosine",
        k: int = DEFAULT_K,
        *,
        like: str | None = None,
        fold: bool = False,
    ) -> list[Hit]:
        """The `k` pictures nearest to `image` by one of the four metrics on embeddings, best first; exact.

        All embeddings are compared, by the formulas of `imgret.metrics`. On unit vectors L2 and cosine rank alike.
        `like` and `fold` are as for `by_pixels`. Raises SearchError, ImageError, EncoderError.
        """
        metric = checked_metric(metric, SearchError)
        return _warned(self.find_by_clip(image, k=k, like=like, fold=fold, metric=metric))

    def _ranked_by(self, metric: str, vector: npt.NDArray[np.float32], kept: Rows | None) -> tuple[Ask, int]:
        """The ranking of all embeddings by a metric, and how many they are; of those `kept` only, if not of all."""
        rows = np.arange(len(self.index)) if kept is None else kept
        scores = METRICS[metric](vector, self.index.embeddings if kept is None else self.index.embeddings[kept])
        order = best_first(scores, metric)
        return lambda k: (rows[order[:k]], scores[order[:k]]), len(rows)

    def _nearest(self, vector: npt.NDArray[np.float32], kept: Rows | None, k: int) -> tuple[Rows, Scores]:
        """The rows of the `k` nearest, of those `kept` if not of all, best first, and their exact cosines; equal ones
        by row.

        Chroma's own distances are float32, and of equal ones it returns any. So more are fetched, until all that may
        equal the k-th best are among them: then the first hits are the same for each k.
        """
        if kept is not None:
            # However many: to compare a half, 10 %, 1 % and 0.1 % of 50,000 rows takes 43, 7, 2.6 and 2.2 ms. Chroma's
            # filter takes 153, 91, 142 and 135 ms and finds 0.991 to 1 of the ten nearest (benchmarks.filters).
            rows, scores = self._ranked(vector, nearest_among(self.index.embeddings, kept, vector, k))
            return rows[:k], scores[:k]
        count, fetched = len(self.index), k
        while True:
            fetched = min(fetched + _SPARE, count)
            rows, scores = self._ranked(vector, np.sort(self.index.vectors.query(vector, fetched)))
            if fetched == count or scores[k - 1] - scores[-1] > _TIE:
                return rows[:k], scores[:k]
            fetched *= 2

    def _ranked(self, vector: npt.NDArray[np.float32], rows: Rows) -> tuple[Rows, Scores]:
        """The `rows`, given in order, best first, and their exact cosines. Raises SearchError for rows that are no unit
        vectors.
        """
        found = self.index.embeddings[rows].astype(np.float64)
        if not (np.abs(np.linalg.norm(found, axis=1) - 1) < 1e-3).all():  # NaN, too
            raise SearchError("The embeddings of the index are corrupt (no unit vectors); build it anew.")
        # Not a matrix product: there, equal rows may get unlike scores, by where they stand among the others.
        scores = np.clip((found * vector.astype(np.float64)).sum(axis=1), -1, 1)
        order = best_first(scores, "cosine")
        return rows[order], scores[order]

    def _best(
        self, ask: Ask, k: int, left_out: Set[int | None], fold: bool, offset: int = 0, method: str | None = None
    ) -> list[Hit]:
        """The `k` best hits after the first `offset`, without the rows `left_out`; `ask` gives rows and scores.

        With `fold` one hit for each group of equal pictures. With p-values if the `method` is calibrated.
        """
        k = min(k + offset, len(self.index))
        excluded = [row for row in left_out if row is not None]
        fetched = k + len(excluded)
        while True:
            rows, scores = ask(fetched)
            kept = ~np.isin(rows, excluded)
            rows, scores = rows[kept], scores[kept]
            if fold:
                groups = [self._groups.get(int(row), (int(row), 1))[0] for row in rows]
                first = np.sort(np.unique(groups, return_index=True)[1])
                if len(first) < k and len(rows) + len(excluded) >= fetched and fetched < len(self.index):
                    fetched *= 2
                    continue
                rows, scores = rows[first], scores[first]
            hits = self.hits(rows[:k], scores[:k])
            if hits and method is not None and method in self.index.calibration:
                hits = self._p_values.given_to(hits, method, ask, excluded)
            hits = hits[offset:]
            return [replace(hit, duplicates=self._groups.get(hit.row, (0, 1))[1] - 1) for hit in hits] if fold else hits

    @property
    def duplicates(self) -> tuple[DuplicateGroup, ...]:
        """The groups of (nearly) equal pictures, found when first asked for where the build did not."""
        with self._finding:
            if self._duplicates is None:
                self._duplicates = duplicates_of(self.index)
            return self._duplicates

    @cached_property
    def _groups(self) -> dict[int, tuple[int, int]]:
        """The first row and the size of the group of equal pictures that a row is in, where it is in one."""
        return {row: (group.rows[0], len(group.rows)) for group in self.duplicates for row in group.rows}

    def embed_query(
        self,
        image: ImageSource | None = None,
        text: str | None = None,
        negative: str | None = None,
        text_weight: Any = 0.5,
        *,
        like: str | None = None,
        likes: Sequence[str] | None = None,
        dislikes: Sequence[str] | None = None,
    ) -> npt.NDArray[np.float32]:
        """The unit vector (d,) that `by_clip` searches for."""
        text, negative = _checked_texts(text, negative)
        liked, disliked = self._rows_of(likes), self._rows_of(dislikes)
        return self._clip_query(image, text, negative, text_weight, self._row_of(like), liked, disliked)

    def _clip_query(
        self,
        image: ImageSource | None,
        text: str | None,
        negative: str | None,
        text_weight: Any,
        itself: _Row | None,
        liked: Sequence[ImageSource | _Row] = (),
        disliked: Sequence[ImageSource | _Row] = (),
    ) -> npt.NDArray[np.float32]:
        if not isinstance(text_weight, int | float | np.number) or not 0 <= text_weight <= 1:
            raise SearchError(
                "The weight of the text is {weight}; it must be a number from 0 to 1.", weight=repr_short(text_weight)
            )
        weight = float(text_weight)
        picture = itself if image is None else image
        if picture is None and text is None and not liked:
            raise SearchError("There is nothing to search for; give a picture, a text, or both.")
        query = np.zeros(self.index.manifest.encoder.dim)
        if picture is not None:
            query += (1 - weight if text is not None else 1) * self._embedding(picture)
        if text is not None:
            query += (weight if picture is not None else 1) * self._queries.text(text)
        wanted: list[npt.NDArray[Any]] = [] if picture is None and text is None else [_unit(query)]
        wanted += map(self._embedding, liked)
        query = _unit(np.mean(wanted, axis=0))
        unwanted: list[npt.NDArray[Any]] = [] if negative is None else [self._queries.text(negative)]
        unwanted += map(self._embedding, disliked)
        if unwanted:
            query = _unit(query - np.mean(unwanted, axis=0))
        return query.astype(np.float32)

    def _embedding(self, picture: ImageSource | _Row) -> npt.NDArray[np.float32]:
        """The embedding of a picture, which may be a row of the index."""
        if isinstance(picture, _Row):
            return self.index.embeddings[picture]
        return self._queries.image(load_image(picture))

    def thumbnail(self, id: str) -> bytes:
        """The thumbnail of the picture called `id`: WebP, at most 256 px a side.

        Raises SearchError for an unknown id.
        """
        return self.index.thumbnail(self.row_of(id))

    def row_of(self, id: str) -> int:
        """The row of the picture called `id`. Raises SearchError for an unknown id."""
        try:
            return self.index.row_of(id)
        except KeyError:
            with suppress(KeyError):
                return self.index.row_of(composed(id) if isinstance(id, str) else id)  # a Mac decomposes letters
            raise SearchError("There is no picture {id} in the library.", id=repr_short(id)) from None

    def checked_k(self, k: Any) -> int:
        """`k` as an int, at most the number of pictures in the index. Raises SearchError."""
        whole = isinstance(k, Integral) or (isinstance(k, float | np.floating) and float(k).is_integer())
        if isinstance(k, bool) or not whole or k < 1:
            raise SearchError("k is {k}; it must be a whole number of at least 1.", k=repr_short(k))
        return min(int(k), len(self.index))

    def _k_notice(self, k: Any) -> Sentence | None:
        if self.checked_k(k) >= k or k is DEFAULT_K:  # nobody asked for it
            return None
        return Sentence("The library has {count} pictures, so k is {count}.", count=len(self.index))

    def _language_notice(self, *texts: str | None) -> Sentence | None:
        """The notice for letters that no language of the encoder has, if its languages are declared."""
        languages = self.index.manifest.encoder.languages
        letters = {letter for text in texts if isinstance(text, str) for letter in text if letter.isalpha()}
        if languages == ("en",) and not all(map(str.isascii, letters)):
            return Sentence(
                "The encoder of this library reads English only, so this text may find little; try it in English."
            )
        if set(languages) == {"en", "vi"} and not all("LATIN" in unicodedata.name(letter, "") for letter in letters):
            return Sentence(
                "The encoder of this library reads English and Vietnamese only, so this text may find little."
            )
        return None

    @cached_property
    def _release_notice(self) -> Sentence | None:
        """The notice for an index by an encoder of which this release has another version; its own towers search it."""
        if not self.index.manifest.is_outdated:
            return None
        return Sentence(
            "This index was built by another release of the encoder {uri}; build it again to search with this one.",
            uri=self.index.manifest.encoder.uri,
        )

    def _cut_notice(self, text: str | None) -> Sentence | None:
        tokens = None if text is None else self.encoder.cut_after(text)
        if tokens is None:
            return None
        return Sentence("The text is longer than the encoder reads; it was cut after {tokens} tokens.", tokens=tokens)

    def hits(self, rows: Iterable[int], scores: Iterable[float]) -> list[Hit]:
        """The hits for rows and their scores, best first."""
        return [
            Hit.of(rank, int(row), self.index.record(int(row)), float(score))
            for rank, (row, score) in enumerate(zip(rows, scores, strict=True), start=1)
        ]

    def _pixel_query(
        self, image: ImageSource | None, itself: _Row | None, liked: Sequence[ImageSource | _Row] = ()
    ) -> PixelVector:
        first = itself if image is None else image
        pictures = [*liked] if first is None else [first, *liked]
        if not pictures:
            raise SearchError("There is no picture to search with; upload one or choose an example.")
        vectors = [
            self.index.pixels.vectors[each]
            if isinstance(each, _Row)
            else pixel_vector(load_image(each), self.index.manifest.pixel_size)
            for each in pictures
        ]
        return vectors[0] if len(vectors) == 1 else np.rint(np.mean(vectors, axis=0)).astype(np.uint8)

    def _row_of(self, id: str | None) -> _Row | None:
        return None if id is None else _Row(self.row_of(id))

    def _rows_of(self, ids: Sequence[str] | None) -> list[_Row]:
        return [_Row(self.row_of(each)) for each in checked_images(ids)]

    def _checked(self, encoder: Encoder) -> Encoder:
        made_with = self.index.manifest.encoder
        known = made_with.fingerprint is not None and encoder.fingerprint is not None
        differs = known and encoder.fingerprint != made_with.fingerprint
        if encoder.uri != made_with.uri or encoder.dim != made_with.dim or differs:
            raise SearchError(
                "The index was built with the encoder {uri} ({dim} dimensions), not {other} ({its_dim}); "
                "use that one or build the index anew.",
                uri=made_with.uri,
                dim=made_with.dim,
                other=encoder.uri,
                its_dim=encoder.dim,
            )
        return encoder

    def _kept_rows(self, labels: Sequence[str] | None, among: Rows | None) -> Rows | None:
        """The rows `among` that have one of the labels, in order; None where neither leaves a picture out."""
        wanted = self._checked_labels(labels)
        if among is not None:
            among = np.unique(np.asarray(among, np.int64))
            if not len(among) or not 0 <= among[0] <= among[-1] < len(self.index):
                raise SearchError("The rows to search among must be some of 0 to {last}.", last=len(self.index) - 1)
        if not wanted:
            return among
        rows = self.index.rows_of(*wanted)
        if among is not None:
            rows = np.intersect1d(rows, among)
        if not len(rows):
            raise SearchError("None of the marked pictures has one of these labels; mark others, or choose no label.")
        return rows

    def _checked_labels(self, labels: Sequence[str] | None) -> list[str] | None:
        if labels is None:
            return None
        given = [labels] if isinstance(labels, str) else labels
        if not isinstance(given, Sequence) or not all(isinstance(label, str) for label in given):
            raise SearchError("The labels must be a list of names.")
        known, wanted = self.index.manifest.labels, list(dict.fromkeys(map(composed, given)))
        for label in list(wanted):
            if label not in known and (inside := [name for name in known if name.startswith(f"{label}/")]):
                wanted = [name for name in wanted if name != label] + inside  # a folder of several labels
            elif label not in known:
                close = get_close_matches(label[:100], known, n=3)
                hint = (
                    Sentence("did you mean {names}?", names=" / ".join(close))
                    if close
                    else Sentence("the labels are listed in the index's manifest.")
                    if known
                    else Sentence("the library has no labels.")
                )
                raise SearchError("There is no label {label!r}; {hint}", label=label[:100], hint=hint)
        return list(dict.fromkeys(wanted)) or None


def _checked_texts(text: str | None, negative: str | None) -> tuple[str | None, str | None]:
    return _checked_text(text, Sentence("The text")), _checked_text(negative, Sentence("The negative text"))


def _checked_text(text: str | None, what: Sentence) -> str | None:
    if text is None:
        return None
    if not isinstance(text, str):
        raise SearchError("{what} is not a text but {kind}.", what=what, kind=type(text).__name__)
    # A lone surrogate is no valid text, and tokenizers reject it.
    text = text.replace("\0", " ").encode("utf-8", "ignore").decode().strip()
    if not text:
        raise SearchError("{what} is empty; write a few words or leave it out.", what=what)
    if len(text) > MAX_TEXT:
        raise SearchError(
            "{what} has {count} characters; at most {most} are taken.", what=what, count=len(text), most=MAX_TEXT
        )
    return text


def checked_images(images: Any) -> list[Any]:
    """The pictures of a list. Raises SearchError for what is none, and for too many."""
    if images is None:
        return []
    if not isinstance(images, list | tuple):
        raise SearchError("The pictures must be a list, not {kind}.", kind=type(images).__name__)
    if len(images) > MAX_IMAGES:
        raise SearchError("There are {count} pictures; at most {most} are taken.", count=len(images), most=MAX_IMAGES)
    return list(images)


def _checked_offset(offset: Any) -> int:
    if isinstance(offset, bool) or not isinstance(offset, Integral) or offset < 0:
        raise SearchError("The offset is {offset}; it must be a whole number of at least 0.", offset=repr_short(offset))
    return int(offset)


def _unit(vector: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    norm = np.linalg.norm(vector)
    if norm < 1e-6:
        raise SearchError(
            "The parts of the query cancel each other out; change the text, the negative text or the weight."
        )
    return vector / norm
