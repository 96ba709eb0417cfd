"""Puts foreign error texts and given values on one line, for the sentences of this package's errors."""

LONGEST = 200


def one_line(error: BaseException) -> str:
    """The text of `error` on one line, cut to `LONGEST` characters, or else the name of its class."""
    return " ".join(str(error).split())[:LONGEST] or type(error).__name__


def repr_short(value: object) -> str:
    """The repr of `value` on one line, cut to `LONGEST` characters."""
    try:
        return " ".join(repr(value).split())[:LONGEST]
    except Exception:  # an integer of thousands of digits, or a broken __repr__
        return f"a {type(value).__name__}"
