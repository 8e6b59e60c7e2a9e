"""Where files are kept, and what may be wrong there: it is full, lets nobody in, or can't be reached. Halves of files that nobody ended."""

import errno
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tracking.errors import ArtifactsAway, ArtifactsRefused, NoRoom

# Since its last piece came; clients give up within minutes.
ARRIVES_WITHIN_S: Final = 6 * 3600

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# What a store says when it was asked wrongly, or by the wrong one: asking again does not help.
_REFUSED: Final = frozenset({errno.EACCES, errno.EPERM, errno.EROFS, errno.EINVAL, errno.ENOSYS, getattr(errno, "EREMCHG", errno.ENOENT)})
# These tell of the path that was asked for; whoever asked knows what they mean.
_OF_THE_PATH: Final = (FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)


@dataclass(frozen=True, slots=True)
class Place:
    """A kind of place for files.

    Attributes:
        is_remote: what goes wrong there goes by, unless it says otherwise.
        refusals: exceptions of its library that mean that it refuses us.
        absences: those that mean that it can't be reached.
    """

    is_remote: bool = False
    refusals: tuple[type[Exception], ...] = ()
    absences: tuple[type[Exception], ...] = ()

    @contextmanager
    def used(self) -> Iterator[None]:
        """Tell what is wrong with the place from faults of the program.

        Raises:
            NoRoom: it is full, or its owner's quota.
            ArtifactsRefused: it does not let us.
            ArtifactsAway: it can't be reached just now.
        """
        try:
            yield
        except _OF_THE_PATH:
            raise
        except OSError as error:
            if error.errno in _FULL:
                raise NoRoom("There is no room left where artifacts and snapshots are kept.") from error
            if isinstance(error, PermissionError) or (error.errno in _REFUSED and (self.is_remote or error.errno == errno.EROFS)):
                raise ArtifactsRefused(f"The place of artifacts and snapshots refuses this server: {error}.") from error
            if self.is_remote:
                raise ArtifactsAway(f"The place of artifacts and snapshots can't be reached: {error}.") from error
            raise
        except self.refusals as error:
            raise ArtifactsRefused(f"The place of artifacts and snapshots refuses this server: {error}.") from error
        except self.absences as error:
            raise ArtifactsAway(f"The place of artifacts and snapshots can't be reached: {error}.") from error


def remove_halves(files: Iterable[Path]) -> None:
    """Remove those that nobody has written to for hours."""
    for file in files:
        # Another server may share the folder, and tidy it at the same time.
        with suppress(FileNotFoundError):
            if time.time() - file.stat().st_mtime > ARRIVES_WITHIN_S:
                file.unlink()
