"""Calls that lead to W&B's service or screen: taken, told once, and of no effect."""

import json

import wandb

wandb.login(key="0" * 40)
run = wandb.init(
    project="corpus",
    entity="team",
    name="a name",
    id="abc123",
    resume="allow",
    dir=".",
    settings=wandb.Settings(console="off", x_disable_stats=True, quiet=True, init_timeout=120),
)
wandb.watch(object(), log="all", log_freq=10)
wandb.unwatch()
run.alert(title="Low accuracy", text="below the threshold", level=wandb.AlertLevel.WARN, wait_duration=300)
wandb.run.log_code(".")
wandb.mark_preempting()
print(
    "saw",
    json.dumps(
        {"name": run.name, "id": len(run.id), "dir": run.dir.endswith("files"), "url": run.url, "sweep": bool(run.sweep_id), "project": run.project},
    ),
)
wandb.run.name = "renamed"
wandb.run.tags += ("late",)
wandb.termlog("a word")
run.log({"loss": wandb.config.lr})
run.finish()
wandb.finish()
run.finish(exit_code=0, quiet=True)
assert wandb.run is None
