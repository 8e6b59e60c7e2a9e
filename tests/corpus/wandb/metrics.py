"""Everything that `log`, `define_metric` and `summary` do with numbers."""

import math

import wandb

with wandb.init() as run:
    offset = wandb.config.offset
    wandb.define_metric("epoch")
    wandb.define_metric("val/*", step_metric="epoch")
    wandb.define_metric("val/loss", step_metric="epoch", summary="min")
    wandb.define_metric("val/acc", step_metric="epoch", summary="max,last")
    for epoch, loss in enumerate([0.5, 0.25, 0.75]):
        for batch in range(2):
            run.log({"train": {"loss": loss + batch, "lr": {"now": 0.1}}})
        run.log({"epoch": epoch, "val/loss": loss + offset, "val/acc": 1 - loss}, commit=False)
        run.log({"val/seen": 10 * epoch})
    run.log({"late": 1}, step=20)
    run.log({"late": 2, "other": True}, step=20)
    run.log({"late": 3}, step=15)
    run.log({"late": 4})
    run.log({"strange": float("nan"), "huge": math.inf, "word": "done", "nothing": None, "items": [1, 2]})
    run.summary["final"] = 42
    run.summary["verdict"] = "kept"
    wandb.summary.update({"nested": {"deep": 0.125}})
    assert run.summary["val/loss"]["min"] == 0.25 + offset
