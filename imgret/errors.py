"""Sentences that can be translated, and the base of all errors that a user can cause."""

LONGEST = 200


class Sentence(str):
    """A text for a user, made from a `template` with `str.format` fields and the `values` that they stand for.

    The template finds its translation, and a value may be a sentence too. Without values the template is the text as
    it is.
    """

    template: str
    values: dict[str, object]

    def __new__(cls, template: str, /, **values: object) -> "Sentence":
        if isinstance(template, Sentence) and not values:
            return template
        kept = {name: _kept(value) for name, value in values.items()}
        sentence = super().__new__(cls, template.format(**kept) if kept else template)
        sentence.template, sentence.values = template, kept
        return sentence

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, object]]:
        return (self.template,), self.values

    @classmethod
    def joined(cls, *sentences: str | None) -> "Sentence | None":
        """The sentences that are not None or empty, one after the other, or None if there are none."""
        there = {f"part{number}": sentence for number, sentence in enumerate(sentences) if sentence}
        return cls(" ".join(f"{{{name}}}" for name in there), **there) if there else None


def _kept(value: object) -> object:
    """A value that can be kept and sent to another process: an error as its text."""
    if isinstance(value, ImgretError):
        return value.sentence
    return str(value) if isinstance(value, BaseException) else value


class ImgretError(ValueError):
    """An error that a user can cause, as one sentence: what was wrong, with what, and what would work.

    Takes what `Sentence` takes; `str(error)` is the text.
    """

    def __init__(self, template: str, /, **values: object) -> None:
        self.sentence = Sentence(template, **values)
        super().__init__(self.sentence)

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.sentence)


def _restored(kind: type[ImgretError], sentence: Sentence) -> ImgretError:
    """Rebuilds an error that another process raised, whatever the constructor of its class takes."""
    error = kind.__new__(kind)
    ImgretError.__init__(error, sentence)
    return error


def one_line(error: BaseException) -> str:
    """The text of `error` on one line, cut to `LONGEST` characters, or else the name of its class."""
    return " ".join(str(error).split())[:LONGEST] or type(error).__name__


def repr_short(value: object) -> str:
    """The repr of `value` on one line, cut to `LONGEST` characters."""
    try:
        return " ".join(repr(value).split())[:LONGEST]
    except Exception:  # an integer of thousands of digits, or a broken __repr__
        return f"a {type(value).__name__}"
