"""The errors of this stand-in, under W&B's names, and what it says on standard error."""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Optional

__all__ = ["AuthenticationError", "CommError", "ConfigError", "Error", "UnsupportedError", "UsageError"]

_MAX_SAID = 200
_said: "set[str]" = set()


class Error(Exception):
    """Whatever this package raises by itself."""

    def __init__(self, message: str, context: "Optional[dict[str, object]]" = None) -> None:
        super().__init__(message)
        self.message = message
        self.context = context


class UsageError(Error):
    """The script asks for something that can't be."""


class UnsupportedError(UsageError):
    """The script asks for something that is not served here."""


class CommError(Error):
    """What is asked for lies elsewhere."""


class AuthenticationError(CommError):
    """Never raised here: a trial brings its own right to write."""


class ConfigError(Error):
    """A value of the config would change."""


def say(text: str, about: str = "") -> None:
    """Tell something on standard error, if there is one; the same thing once."""
    if (about or text) in _said or len(_said) >= _MAX_SAID:
        return
    _said.add(about or text)
    say_again(text)


def say_again(text: str) -> None:
    """Tell something on standard error, however often it was told before."""
    try:
        sys.stderr.write("wandb (stand-in): " + text + "\n")
    except (OSError, ValueError, AttributeError):  # closed or missing: there is nobody to tell
        return
