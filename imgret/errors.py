"""The base of all errors that a user can cause, and ways to put foreign texts and given values into their sentences."""

LONGEST = 200


class ImgretError(ValueError):
    """An error that a user can cause, as one sentence: what was wrong, with what, and what would work.

    `template` holds the sentence with `str.format` fields, `values` what they stand for. A translation is found by the
    template. Without values, the template is the sentence as it is. `str(error)` is the sentence.
    """

    def __init__(self, template: str, /, **values: object) -> None:
        super().__init__(template.format(**values) if values else template)
        self.template = template
        self.values = values

    def __reduce__(self) -> tuple[object, ...]:
        return _restored, (type(self), self.template, self.values)


def _restored(kind: type[ImgretError], template: str, values: dict[str, object]) -> ImgretError:
    """Rebuilds an error that another process raised, whatever the constructor of its class takes."""
    error = kind.__new__(kind)
    ImgretError.__init__(error, template, **values)
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
