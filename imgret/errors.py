"""Puts foreign error texts and given values on one line, for the sentences of this package's errors."""

LONGEST = 200


def one_line(error: BaseException) -> str:
    """Its text on one line, cut to `LONGEST` characters; the name of its kind where it has none."""
    return " ".join(str(error).split())[:LONGEST] or type(error).__name__


def repr_short(value: object) -> str:
    """What was given, as Python writes it, on one line cut to `LONGEST` characters."""
    try:
        return " ".join(repr(value).split())[:LONGEST]
    except Exception:  # a number of thousands of digits, or an object that does not say
        return f"a {type(value).__name__}"
