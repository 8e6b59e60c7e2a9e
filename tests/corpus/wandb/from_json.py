"""One word of JSON, or the path of a file of JSON."""

import json
import os
import sys

import wandb

given = sys.argv[-1]
if os.path.exists(given):
    with open(given, encoding="utf-8") as file:
        config = json.load(file)
else:
    config = json.loads(given)
print("saw", json.dumps(config))
with wandb.init(config=config) as run:
    run.log({"loss": run.config.lr})
