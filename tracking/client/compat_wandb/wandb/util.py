"""`wandb.util`: of W&B's helpers the one that scripts call."""

import random
import string

_RANDOM = random.SystemRandom()  # a script's seed makes no two runs the same


def generate_id(length: int = 8) -> str:
    """A name for a run that no other has."""
    return "".join(_RANDOM.choice(string.ascii_lowercase + string.digits) for _ in range(length))
