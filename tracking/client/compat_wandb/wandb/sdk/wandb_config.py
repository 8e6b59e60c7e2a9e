"""`wandb.sdk.wandb_config`."""

from .._config import Config  # noqa: TID252 -- our type checker knows this package by another name than scripts do

__all__ = ["Config"]
