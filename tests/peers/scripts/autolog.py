"""A grid search that scikit-learn autologging records: a parent, a child for each candidate, the best model, the data set."""

import mlflow
import mlflow.sklearn
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV

mlflow.set_experiment(f"autolog with {mlflow.__version__}")
mlflow.sklearn.autolog(max_tuning_runs=None)
rng = np.random.default_rng(0)
x = rng.normal(size=(60, 4))
y = (x[:, 0] + x[:, 1] > 0).astype(int)
with mlflow.start_run() as parent:
    GridSearchCV(LogisticRegression(), {"C": [0.01, 0.1, 1.0], "fit_intercept": [True, False]}, cv=3).fit(x, y)

run = mlflow.get_run(parent.info.run_id)
assert run.info.status == "FINISHED", run.info
assert run.data.params["best_C"] in {"0.01", "0.1", "1.0"}, run.data.params
assert "best_cv_score" in run.data.metrics, run.data.metrics
assert run.inputs.dataset_inputs, run.inputs
children = mlflow.search_runs(filter_string=f"tags.mlflow.parentRunId = '{run.info.run_id}'", order_by=["metrics.mean_test_score DESC"], output_format="list")
assert len(children) == 6, len(children)
assert {child.data.params["C"] for child in children} == {"0.01", "0.1", "1.0"}
assert children[0].data.metrics["mean_test_score"] == run.data.metrics["best_cv_score"]
best = mlflow.sklearn.load_model(f"runs:/{run.info.run_id}/best_estimator")
assert best.predict(x).shape == (60,)
files = {file.path for file in mlflow.MlflowClient().list_artifacts(run.info.run_id)}
assert "cv_results.csv" in files, files
print("done")
