"""Arguments first, then `wandb.init(config=args)`: the way most scripts begin."""

import argparse
import json
import sys

import wandb

parser = argparse.ArgumentParser()
parser.add_argument("--lr", "--learning-rate", dest="lr", type=float, default=0.1)
parser.add_argument("--batch_size", type=int, default=32)
parser.add_argument("--optimizer", default="sgd", choices=["sgd", "adam"])
parser.add_argument("--dropout", type=float, default=0.0)
parser.add_argument("--epochs", type=int, default=2)


def train(config):
    for epoch in range(config.epochs):
        loss = config.lr + config.dropout + 1 / (epoch + 1)
        yield {"epoch": epoch, "train_loss": loss / 2, "val_loss": loss, "val_acc": 1 - loss / 10}


if __name__ == "__main__":
    args = parser.parse_args()
    print("saw", json.dumps(sys.argv[1:]))
    wandb.init(project="corpus", config=args)
    for row in train(wandb.config):
        wandb.log(row)
    wandb.finish()
