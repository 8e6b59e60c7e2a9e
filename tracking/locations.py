"""Where an experiment may keep its artifacts outside our own store: object stores that clients open themselves.

Such a location is recorded and told, never opened here: what the server opens, the server assigns.
"""

import re
from typing import Final
from urllib.parse import urlsplit

from tracking.errors import InvalidValue

REMOTE_SCHEMES: Final = frozenset("abfs abfss adl b2 cos cosn dbfs gs hdfs obs oci oss r2 s3 s3a s3n viewfs wasb wasbs".split())
MAX_CHARS: Final = 2048

_UNSAFE: Final = re.compile(r"[\x00-\x20\x7f\\]")


def check_location(location: str) -> str:
    """A location that an experiment may have.

    Raises:
        InvalidValue: it is a local path or of a scheme that is no object store's, is too long, or is written in a way that storage
            libraries read differently.
    """
    if len(location) > MAX_CHARS:
        raise InvalidValue(f"Invalid artifact path length. The length of the artifact path cannot be greater than {MAX_CHARS} characters.")
    try:
        parts = urlsplit(location)
    except ValueError as error:
        raise InvalidValue(f"'artifact_location' is no URI: {error}.") from None
    if parts.scheme not in REMOTE_SCHEMES:
        raise InvalidValue(
            "'artifact_location' can only be a URI of an object store that clients open themselves "
            f"({', '.join(f'{scheme}:' for scheme in sorted(REMOTE_SCHEMES))}), not {location[:200]!r}.",
            hint="Leave it out: this server then keeps the artifacts.",
        )
    if parts.fragment or ";" in location:
        raise InvalidValue("'artifact_location' URL can't include fragments or params.")
    if ".." in parts.query:
        raise InvalidValue("Invalid query string")
    if ".." in parts.path.split("/") or _UNSAFE.search(location):
        raise InvalidValue("'artifact_location' can't have '..', backslashes, blanks or control characters.")
    return location


def below(location: str, *names: str) -> str:
    """The URI of a folder below a location; what follows its `?` stays at the end, as MLflow has it."""
    folder, mark, query = location.partition("?")
    return "/".join([folder.rstrip("/"), *names]) + mark + query
