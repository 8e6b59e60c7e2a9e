"""What several processes have made of an Optuna study: `study_result.py NAME TRIALS`."""

import sys

import mlflow
import optuna
from mlflow.optuna.storage import MlflowStorage

name, n_trials = sys.argv[1], int(sys.argv[2])
experiment = mlflow.set_experiment(name)
study = optuna.load_study(study_name=name, storage=MlflowStorage(experiment_id=experiment.experiment_id))
trials = study.get_trials()
assert len(trials) == n_trials, len(trials)
assert {trial.state for trial in trials} == {optuna.trial.TrialState.COMPLETE}, [trial.state for trial in trials]
assert len({trial._trial_id for trial in trials}) == n_trials, trials
# The storage takes a trial's place in a history for its number: of two made in one moment, both may find the same.
assert {trial.number for trial in trials} <= set(range(n_trials)), [trial.number for trial in trials]
for trial in trials:
    assert trial.value == (trial.params["x"] - 2) ** 2 + (trial.params["kind"] == "b"), trial
    assert trial.user_attrs["kind"] == trial.params["kind"], trial
    assert trial.intermediate_values == {0: trial.params["x"]}, trial
assert study.best_value == min(trial.value for trial in trials)
print("done")
