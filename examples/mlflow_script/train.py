"""Fit a polynomial to a noisy wave and log everything with the MLflow client, as if there were no sweep at all."""

import argparse
import json
from pathlib import Path

import mlflow
import numpy as np


def fit(x, y, degree, ridge):
    features = np.vander(x, degree + 1)
    return np.linalg.solve(features.T @ features + ridge * np.eye(degree + 1), features.T @ y)


def rmse(x, y, coefficients):
    return float(np.sqrt(np.mean((np.polyval(coefficients, x) - y) ** 2)))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--degree", type=int, default=3)
    parser.add_argument("--ridge", type=float, default=1e-3)
    args = parser.parse_args()

    rng = np.random.default_rng(0)
    x = rng.uniform(-1, 1, 120)
    y = np.sin(3 * x) + rng.normal(0, 0.1, x.size)
    folds = np.arange(x.size) % 3

    mlflow.set_experiment("waves")
    with mlflow.start_run():
        mlflow.log_params(vars(args))
        mlflow.set_tag("shape", "sine")
        errors = []
        for fold in range(3):
            with mlflow.start_run(run_name=f"fold-{fold}", nested=True):
                held_out = folds == fold
                coefficients = fit(x[~held_out], y[~held_out], args.degree, args.ridge)
                errors.append(rmse(x[held_out], y[held_out], coefficients))
                mlflow.log_metric("fold_rmse", errors[-1])
            mlflow.log_metric("val_rmse", float(np.mean(errors)), step=fold)
        Path("coefficients.json").write_text(json.dumps(fit(x, y, args.degree, args.ridge).tolist()))
        mlflow.log_artifact("coefficients.json")


if __name__ == "__main__":
    main()
