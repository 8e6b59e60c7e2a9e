"""Ray Tune's no-op: run by the peers' interpreter, prints trials per second. Arguments: trials, how many at a time."""

import os
import sys
import tempfile
import time

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")

import ray  # type: ignore[import-not-found]  # lives in the peers' environment only
from ray import tune


def noop(config: dict[str, float]) -> None:
    """Report once and end."""
    tune.report({"loss": config["x"]})


def main(n_trials: int, n_at_a_time: int) -> None:
    """Run and count; the start of Ray's own cluster does not count."""
    with tempfile.TemporaryDirectory() as folder:
        ray.init(num_cpus=n_at_a_time, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
        tuner = tune.Tuner(
            noop,
            param_space={"x": tune.uniform(0, 1)},
            tune_config=tune.TuneConfig(num_samples=n_trials, max_concurrent_trials=n_at_a_time, metric="loss", mode="min"),
            run_config=tune.RunConfig(storage_path=folder, verbose=0),
        )
        began = time.monotonic()
        results = tuner.fit()
        took = time.monotonic() - began
        ended = sum(result.error is None for result in results)
        if ended != n_trials:
            raise SystemExit(f"only {ended} of {n_trials} trials succeeded")
        print(n_trials / took)  # noqa: T201  # its answer
        ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
