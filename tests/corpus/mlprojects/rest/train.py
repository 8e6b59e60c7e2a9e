"""Logs over MLflow's REST interface, with the standard library only."""

import json
import os
import sys
import time
import urllib.request

HEADERS = {"Content-Type": "application/json", "Authorization": f"Bearer {os.environ['MLFLOW_TRACKING_TOKEN']}"}


def call(path, **body):
    body["run_id"] = os.environ["MLFLOW_RUN_ID"]
    url = f"{os.environ['MLFLOW_TRACKING_URI']}/api/2.0/mlflow/runs/{path}"
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(body).encode(), HEADERS)) as answer:
        return json.load(answer)


print("saw", json.dumps([*sys.argv[1:], sys.prefix != sys.base_prefix]))
now = int(time.time() * 1000)
metrics = [{"key": "loss", "value": float(sys.argv[1]) / (step + 1), "step": step, "timestamp": now} for step in range(3)]
call("log-batch", metrics=metrics, params=[{"key": "note", "value": "by hand"}], tags=[{"key": "kind", "value": "rest"}])
call("set-tag", key="stage", value="done")
