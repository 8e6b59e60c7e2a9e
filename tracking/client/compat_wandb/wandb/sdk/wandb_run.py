"""`wandb.sdk.wandb_run`."""

from .._run import Run  # noqa: TID252 -- our type checker knows this package by another name than scripts do

__all__ = ["Run"]
