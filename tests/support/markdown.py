"""What the generated pages are made of."""

from collections.abc import Sequence

Row = tuple[str, ...]


def table(head: Row, rows: Sequence[Row]) -> str:
    """A table; bars within cells are escaped."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join(" ".join(cell.replace("|", "\\|").split()) for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def listed(words: Sequence[str], last: str = "or") -> str:
    """`grid`, `random` or `bayes`."""
    quoted = [f"`{word}`" for word in words]
    return f"{', '.join(quoted[:-1])} {last} {quoted[-1]}" if len(quoted) > 1 else "".join(quoted)
