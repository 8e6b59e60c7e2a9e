"""A model logged in a run, found by its run, loaded and used."""

import mlflow
import mlflow.sklearn
import numpy as np
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression

mlflow.set_experiment(f"models with {mlflow.__version__}")
x = np.arange(20.0).reshape(10, 2)
y = x @ [1.0, 2.0] + 3


class Doubled(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return model_input * 2


with mlflow.start_run() as run:
    fitted = LinearRegression().fit(x, y)
    named = {"name" if mlflow.__version__ >= "3" else "artifact_path": "linear"}
    logged = mlflow.sklearn.log_model(fitted, signature=infer_signature(x, y), **named)
    named = dict.fromkeys(named, "doubled")
    mlflow.pyfunc.log_model(python_model=Doubled(), **named)
    mlflow.log_metric("r2", fitted.score(x, y))

for uri in (f"runs:/{run.info.run_id}/linear", logged.model_uri):
    assert np.allclose(mlflow.sklearn.load_model(uri).predict(x), y), uri
    assert np.allclose(mlflow.pyfunc.load_model(uri).predict(x), y), uri
assert (mlflow.pyfunc.load_model(f"runs:/{run.info.run_id}/doubled").predict(x) == x * 2).all()
assert mlflow.models.get_model_info(f"runs:/{run.info.run_id}/linear").signature is not None
if mlflow.__version__ >= "3":
    found = mlflow.search_logged_models(
        filter_string=f"name = 'linear' AND source_run_id = '{run.info.run_id}'", output_format="list", experiment_ids=[run.info.experiment_id]
    )
    assert [model.model_id for model in found] == [logged.model_id], found
    model = mlflow.get_logged_model(logged.model_id)
    assert (model.source_run_id, str(model.status), model.name) == (run.info.run_id, "READY", "linear"), model
    mlflow.set_logged_model_tags(logged.model_id, {"checked": "yes"})
    assert mlflow.get_logged_model(logged.model_id).tags["checked"] == "yes"
    outputs = mlflow.get_run(run.info.run_id).outputs.model_outputs
    assert logged.model_id in {output.model_id for output in outputs}, outputs
print("done")
