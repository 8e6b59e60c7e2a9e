"""Fails in the middle, in one way or another."""

import sys

import wandb


def main():
    with wandb.init() as run:
        run.log({"loss": 3.0})
        how = wandb.config.how
        if how == "raise":
            raise RuntimeError("diverged")
        if how == "exit":
            sys.exit(3)
        if how == "nan":
            run.log({"loss": float("nan")})
            return
        if how == "silent":
            wandb.finish(exit_code=1)
            return
        run.log({"loss": wandb.config.x})


main()
