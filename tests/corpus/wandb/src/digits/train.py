"""A script in a folder of its own, which imports its neighbour and reads a file of the project."""

import json
import os
import sys

import wandb

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from model import loss_of

with wandb.init() as run:
    with open("data/train.csv", encoding="utf-8") as file:
        rows = file.read().splitlines()
    print("saw", json.dumps({"argv": sys.argv[1:], "rows": len(rows), "file": os.path.relpath(__file__)}))
    run.log({"loss": loss_of(wandb.config.lr)})
