"""`wandb.sdk`: where scripts look for the classes that they name in annotations."""

from . import wandb_config, wandb_run

__all__ = ["wandb_config", "wandb_run"]
