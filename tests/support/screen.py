"""What a terminal shows after this was written to it, by the few sequences that a live table uses."""

import re


def shown_lines(written: str) -> list[str]:
    """The lines that are left on the screen, without the empty ones; the `^C` that a terminal echoes is no part of them."""
    lines: dict[int, str] = {}
    row = 0
    for piece in re.split(r"(\x1b\[[0-9;?]*[A-Za-z]|\r|\n)", written):
        if piece == "\n":
            row += 1
        elif piece == "\x1b[1A":
            row -= 1
        elif piece == "\x1b[2K":
            lines[row] = ""
        elif piece and not piece.startswith("\x1b") and piece != "\r":
            lines[row] = (lines.get(row, "") + piece).replace("^C", "")
    return [lines[row] for row in sorted(lines) if lines[row].strip()]
