"""Files that a verb writes: whole or not at all, where the place allows it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def written(out: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """A file to write to, which takes the place of `out` once it is whole.

    Links are followed, and stay. What is there and no regular file, such as a device or a pipe, is written as it is: nothing may take its place.

    Raises:
        OSError: naming `out`, for nobody knows the file beside it.
    """
    how = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    is_special = out.exists() and not out.is_file()
    target = out if is_special else Path(os.path.realpath(out))  # `resolve` fails on links that lead in a circle
    scratch = target if is_special else target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        file = scratch.open(mode, **how)  # type: ignore[call-overload]  # the mode is the caller's
        try:
            with file:
                yield file
            if not is_special:
                scratch.replace(target)
        finally:
            if not is_special:
                scratch.unlink(missing_ok=True)
    except OSError as error:
        error.filename, error.filename2 = str(out), None
        raise
