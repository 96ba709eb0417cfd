"""How does a library's error fit into a sentence of ours?"""

LONGEST = 200


def in_short(error: BaseException) -> str:
    """Its text on one line, cut to `LONGEST` characters; the name of its kind where it has none."""
    return " ".join(str(error).split())[:LONGEST] or type(error).__name__
