"""Forty searches, each compared with the same question asked of plain Python."""

import mlflow
from mlflow import MlflowClient

client = MlflowClient()
experiment_id = client.create_experiment(f"searches with {mlflow.__version__}")
runs = {}
for number in range(30):
    created = client.create_run(experiment_id, start_time=1_600_000_000_000 + number, run_name=f"run {number:02d}", tags={"team": "abc"[number % 3]})
    run_id = created.info.run_id
    metrics, params = {"loss": ((number * 7) % 30) / 10, "half": number / 2}, {"lr": str(number % 5), "kind": ("adam", "SGD")[number % 2]}
    if number % 4 == 0:
        del metrics["half"]
    for key, value in metrics.items():
        client.log_metric(run_id, key, value)
    for key, value in params.items():
        client.log_param(run_id, key, value)
    if number % 3:
        client.set_terminated(run_id, ("FINISHED", "FAILED")[number % 3 - 1], 1_600_000_100_000 + number)
    runs[number] = {"id": run_id, "metrics": metrics, "params": params, "team": "abc"[number % 3], "status": ("RUNNING", "FINISHED", "FAILED")[number % 3]}


def metric(key, holds):
    return lambda number: key in runs[number]["metrics"] and holds(runs[number]["metrics"][key])


def param(key, holds):
    return lambda number: holds(runs[number]["params"][key])


def both(one, other):
    return lambda number: one(number) and other(number)


QUESTIONS = [
    ("", lambda n: True),
    ("metrics.loss < 1", metric("loss", lambda v: v < 1)),
    ("metrics.loss <= 1", metric("loss", lambda v: v <= 1)),
    ("metrics.loss > 1.5", metric("loss", lambda v: v > 1.5)),
    ("metrics.loss >= 1.5", metric("loss", lambda v: v >= 1.5)),
    ("metrics.loss = 0.7", metric("loss", lambda v: v == 0.7)),
    ("metrics.loss != 0.7", metric("loss", lambda v: v != 0.7)),
    ("metrics.half > 3", metric("half", lambda v: v > 3)),
    ("metrics.`half` > 3", metric("half", lambda v: v > 3)),
    ("metrics.half > 3 AND metrics.loss < 1", both(metric("half", lambda v: v > 3), metric("loss", lambda v: v < 1))),
    ("metrics.half > 3 and metrics.half < 9", metric("half", lambda v: 3 < v < 9)),
    ("metrics.nobody > 0", lambda n: False),
    ("params.lr = '3'", param("lr", lambda v: v == "3")),
    ("params.lr != '3'", param("lr", lambda v: v != "3")),
    ('params.lr = "3"', param("lr", lambda v: v == "3")),
    ("params.kind LIKE 'ad%'", param("kind", lambda v: v == "adam")),
    ("params.kind LIKE 'sgd'", lambda n: False),
    ("params.kind ILIKE 'sgd'", param("kind", lambda v: v == "SGD")),
    ("params.kind LIKE '_da_'", param("kind", lambda v: v == "adam")),
    ("params.kind = 'adam' AND metrics.loss < 2", both(param("kind", lambda v: v == "adam"), metric("loss", lambda v: v < 2))),
    ("tags.team = 'a'", lambda n: runs[n]["team"] == "a"),
    ("tags.team != 'a'", lambda n: runs[n]["team"] != "a"),
    ("tags.`team` ILIKE 'B'", lambda n: runs[n]["team"] == "b"),
    ("tags.nobody = 'a'", lambda n: False),
    ("tags.`mlflow.runName` LIKE 'run 1%'", lambda n: 10 <= n < 20),
    ("tags.mlflow.runName = 'run 11'", lambda n: n == 11),
    ("attributes.status = 'FINISHED'", lambda n: runs[n]["status"] == "FINISHED"),
    ("attributes.status != 'RUNNING'", lambda n: runs[n]["status"] != "RUNNING"),
    ("status = 'FAILED'", lambda n: runs[n]["status"] == "FAILED"),
    ("attributes.run_name = 'run 07'", lambda n: n == 7),
    ("run_name LIKE 'run 2%'", lambda n: n >= 20),
    ("attributes.run_name ILIKE 'RUN 0%'", lambda n: n < 10),
    ("attributes.start_time > 1600000000020", lambda n: n > 20),
    ("start_time <= 1600000000020", lambda n: n <= 20),
    ("end_time >= 1600000100010", lambda n: n % 3 and n >= 10),
    ("attributes.run_id = '%s'" % runs[5]["id"], lambda n: n == 5),
    ("attributes.run_id IN ('%s', '%s')" % (runs[5]["id"], runs[6]["id"]), lambda n: n in (5, 6)),
    ("attributes.user_id = 'nobody'", lambda n: False),
    ("attributes.artifact_uri LIKE '%artifacts'", lambda n: True),
    ("params.lr = '2' AND tags.team = 'c' AND metrics.loss >= 0 AND attributes.status = 'FAILED'", lambda n: n % 5 == 2 and n % 3 == 2),
]
assert len(QUESTIONS) == 40
numbers = {run["id"]: number for number, run in runs.items()}
for text, holds in QUESTIONS:
    found = [numbers[run.info.run_id] for run in client.search_runs([experiment_id], text)]
    assert found == [number for number in range(29, -1, -1) if holds(number)], (text, found)

for order, key in (
    ("metrics.loss ASC", lambda n: (runs[n]["metrics"]["loss"], -n)),
    ("metrics.loss DESC", lambda n: (-runs[n]["metrics"]["loss"], -n)),
    ("metrics.half", lambda n: (runs[n]["metrics"].get("half", 1e9), -n)),
    ("metrics.half DESC", lambda n: (-runs[n]["metrics"].get("half", -1e9), -n)),
    ("params.lr", lambda n: (runs[n]["params"]["lr"], -n)),
    ("tags.team DESC", lambda n: (-ord(runs[n]["team"]), -n)),
    ("attributes.start_time ASC", lambda n: n),
):
    everything, token, pages = [], None, 0
    while True:
        page = client.search_runs([experiment_id], order_by=[order], max_results=7, page_token=token)
        everything += [numbers[run.info.run_id] for run in page]
        token, pages = page.token, pages + 1
        if not token:
            break
    assert everything == sorted(runs, key=key), (order, everything)
    assert pages == 5, (order, pages)
print("done")
