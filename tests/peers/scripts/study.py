"""One of several processes of an Optuna study that MLflow's server keeps: `study.py NAME TRIALS`; with no trials it makes the study.

MLflow's storage takes no notice of a study of the same name, so only one process may make it.
"""

import sys

import mlflow
import optuna
from mlflow.optuna.storage import MlflowStorage

name, n_trials = sys.argv[1], int(sys.argv[2])
experiment = mlflow.set_experiment(name)
storage = MlflowStorage(experiment_id=experiment.experiment_id)
if n_trials == 0:
    optuna.create_study(study_name=name, storage=storage)
study = optuna.load_study(study_name=name, storage=storage, sampler=optuna.samplers.TPESampler(n_startup_trials=3))


def objective(trial):
    x = trial.suggest_float("x", -10, 10)
    kind = trial.suggest_categorical("kind", ["a", "b"])
    trial.report(x, 0)
    trial.set_user_attr("kind", kind)
    return (x - 2) ** 2 + (kind == "b")


study.optimize(objective, n_trials=n_trials)
print("done")
