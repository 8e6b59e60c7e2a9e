"""`key=value` words, as hydra and OmegaConf scripts take them, with dots for groups."""

import json
import sys

import wandb

config = {"lr": "0.1", "model": {"hidden": "8", "act": "relu"}}
for word in sys.argv[1:]:
    key, _, value = word.lstrip("+").partition("=")
    *groups, last = key.split(".")
    target = config
    for group in groups:
        target = target.setdefault(group, {})
    target[last] = value

print("saw", json.dumps(sys.argv[1:]))
wandb.init(config=config)
wandb.log({"loss": float(config["lr"]) * int(config["model"]["hidden"])})
