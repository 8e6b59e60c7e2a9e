"""A notebook's cells in a file: everything at the top, defaults for whatever the sweep does not set."""

import json

import wandb

defaults = {"lr": 1e-3, "layers": 2, "optimizer": {"name": "sgd", "momentum": 0.9}, "seed": 1}
run = wandb.init(config=defaults, tags=["baseline", "corpus"], notes="by hand", group="cells", job_type="train", save_code=True)
wandb.config["device"] = "cpu"
wandb.config.update({"seed": 3}, allow_val_change=True)
wandb.config.setdefaults({"layers": 9, "warmup": 5})

assert "lr" in wandb.config
assert wandb.config.get("nothing", 7) == 7
try:
    wandb.config.device = "gpu"
except Exception as error:
    refusal = type(error).__name__
print("saw", json.dumps({**wandb.config.as_dict(), "refusal": refusal}))

for step in range(3):
    wandb.log({"loss": wandb.config["lr"] * (3 - step)})
wandb.run.summary["best_loss"] = wandb.run.summary["loss"]
wandb.summary.update({"verdict": "good", "time": {"train": 1.5}})
