"""Boolean flags that are there or not, for a parser that is not argparse."""

import json
import sys

import wandb


class Flags:
    """As absl has them: a value for each name, asked for as a whole."""

    def __init__(self):
        self._values = {"augment": False, "fp16": False, "lr": 0.5}

    def parse(self, words):
        for word in words:
            name, equals, value = word.removeprefix("--").partition("=")
            if name not in self._values:
                sys.exit(f"Unknown command line flag '{name}'")
            self._values[name] = float(value) if equals else True

    def flag_values_dict(self):
        return dict(self._values)


FLAGS = Flags()
FLAGS.parse(sys.argv[1:])
print("saw", json.dumps(sys.argv[1:]))
run = wandb.init()
run.config.update(FLAGS.flag_values_dict())
run.log({"loss": run.config.lr + run.config.augment - 2 * run.config.fp16})
