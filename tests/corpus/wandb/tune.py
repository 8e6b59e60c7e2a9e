"""The sweep as a dict in the script, and an agent that calls a function: started as one trial, it is one."""

import json

import wandb

sweep_configuration = {
    "method": "random",
    "metric": {"goal": "minimize", "name": "score"},
    "parameters": {"x": {"max": 0.1, "min": 0.01}, "y": {"values": [1, 3, 7]}},
}


def objective(config):
    return config.x**3 + config.y


def main():
    wandb.init(project="my-first-sweep")
    score = objective(wandb.config)
    print("saw", json.dumps(dict(wandb.config)))
    wandb.log({"score": score})


wandb.login()
sweep_id = wandb.sweep(sweep=sweep_configuration, project="my-first-sweep")
wandb.agent(sweep_id, function=main, count=10)
