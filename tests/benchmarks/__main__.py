"""Runs the benchmarks and prints one table: `python -m tests.benchmarks [NAME ...]`. Also kept as .cache/bench.json."""

import importlib
import os
import platform
import sys
from typing import Final

from tests.benchmarks.figures import Figure, table, write_json
from tests.benchmarks.stage import ROOT, open_stage

BENCHMARKS: Final = {
    "noop": "no-op trials per second and slot idle time",
    "scheduler": "the scheduler's own time per trial",
    "startup": "how soon the command line answers",
    "first": "how soon the first trial runs where nothing runs yet",
    "reading": "how soon a whole sweep is read from Python",
    "search": "how soon runs are found among a million",
    "idle": "what an idle cluster costs",
    "mlflow": "tracking beside mlflow server: points, runs, history, bytes",
    "recovery": "how soon work goes on after something is lost",
}


def main(names: list[str]) -> int:
    """Run the named benchmarks, all without names; the exit status says nothing about goals."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        known = "".join(f"\n  {name:<10} {what}" for name, what in BENCHMARKS.items())
        print(f"There is no benchmark {', '.join(unknown)}. ONLY takes some of:{known}", file=sys.stderr)  # noqa: T201
        return 2
    figures: list[Figure] = []
    with open_stage() as stage:
        for name in names or BENCHMARKS:
            print(f"... {name}: {BENCHMARKS[name]}", file=sys.stderr, flush=True)  # noqa: T201
            for figure in importlib.import_module(f"tests.benchmarks.{name}").measure(stage):
                print(f"    {figure.what}: {figure.ours}", file=sys.stderr, flush=True)  # noqa: T201
                figures.append(figure)
    machine = {"cores": os.cpu_count(), "python": platform.python_version(), "load": os.getloadavg()[0]}
    write_json(ROOT / ".cache" / "bench.json", figures, machine)
    print(table(figures))  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(" ".join(sys.argv[1:]).replace(",", " ").split()))
