"""`wandb.Settings`: taken, and of effect where `init` knows the same word."""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INIT_KEYS = ("project", "entity", "mode")
_RUN_KEYS = {"run_name": "name", "run_notes": "notes", "run_tags": "tags", "run_group": "group", "run_job_type": "job_type", "root_dir": "dir"}


class Settings:
    """Whatever names and values a script gives."""

    dir: "Any" = None

    def __init__(self, **values: "Any") -> None:
        self.__dict__.update(values)

    def for_init(self) -> "dict[str, Any]":
        """Those that are arguments of `init` under its own names."""
        told = {name: value for name, value in vars(self).items() if name in INIT_KEYS}
        told.update((_RUN_KEYS[name], value) for name, value in vars(self).items() if name in _RUN_KEYS)
        return told

    def __getattr__(self, name: str) -> "Any":
        if name.startswith("__"):
            raise AttributeError(name)
        raise AttributeError(f"wandb.Settings.{name} was not set, and has no default in this stand-in (docs: coming from W&B)")
