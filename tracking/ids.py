"""Identifiers: how they are made, never what they mean."""

import hashlib
import re
import secrets
import uuid
from typing import Final

RUN_ID: Final = re.compile(r"[a-zA-Z0-9][\w\-]{0,255}\Z")

_ADJECTIVES: Final = (
    "able amber apt bold brave brisk calm clear clever cosy crisp deft eager early fair fast fine fond free fresh gentle "
    "glad gold good grand green happy hardy keen kind large light lively loyal lucky merry mild neat new nice nimble noble "
    "pale plain polite proud pure quick quiet rapid rare ready rich ripe royal safe sharp shiny silent silver sleek smart "
    "smooth snug solid sound spry steady still strong sunny sure sweet swift tame tidy tiny true upbeat vast vivid warm "
    "wild wise witty young zesty"
).split()
_NOUNS: Final = (
    "ant auk badger bat bear beaver bee bison boar bream bug carp cat cod colt cow crab crane crow deer dingo dove drake "
    "duck eagle eel elk emu ewe falcon fawn finch fly fox frog goat goose grouse gull hare hawk hen heron hog horse hound "
    "ibis jay kite kiwi koi lamb lark lemur lion lynx magpie mink mole moose moth mouse mule newt orca otter owl ox panda "
    "perch pig pike pony pug puma quail ram rat raven ray robin rook seal shad shark sheep shrew shrike skink skunk sloth "
    "snail snipe sole squid stag stork swan tern toad trout vole wasp whale wolf wren yak zebra"
).split()


def new_run_id() -> str:
    """32 hex digits, as MLflow's run ids are."""
    return uuid.uuid4().hex


def new_model_id() -> str:
    """`m-` and 32 hex digits, as MLflow's logged models are named; no run's id looks so."""
    return f"m-{uuid.uuid4().hex}"


def new_uuid() -> str:
    """A UUID4 in canonical form, for claims, sessions and workers."""
    return str(uuid.uuid4())


def new_secret() -> str:
    """32 random bytes, URL-safe, for tokens."""
    return secrets.token_urlsafe(32)


def token_hash(token: str) -> str:
    """What is kept of a token: its SHA-256 in hex. Tokens are random, so no salt is needed."""
    return hashlib.sha256(token.encode()).hexdigest()


def random_name(*, suffix_digits: int = 0) -> str:
    """`adjective-noun-123`, as MLflow names runs that nobody named."""
    tail = secrets.randbelow(1000) if not suffix_digits else secrets.token_hex(suffix_digits)[:suffix_digits]
    return f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}-{tail}"


def new_short_id() -> str:
    """A sweep's short readable id, `brave-otter-7f3a`."""
    return random_name(suffix_digits=4)


def attempt_token(run_id: str, attempt: int, secret: str) -> str:
    """The bearer token of one attempt: it names what it may write, and proves it by the secret."""
    return f"sat_{run_id}.{attempt}.{secret}"


def parse_attempt_token(token: str) -> tuple[str, int] | None:
    """(run_id, attempt) that a token claims to be of, or None if it is no attempt's token."""
    if not token.startswith("sat_"):
        return None
    parts = token[4:].split(".", 2)
    if len(parts) != 3 or not (parts[1].isascii() and parts[1].isdecimal()) or len(parts[1]) > 9 or not RUN_ID.match(parts[0]):
        return None
    return parts[0], int(parts[1])
