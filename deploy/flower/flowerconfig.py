# ruff: noqa: INP001  # Flower reads this file by its path
"""Flower's settings for whoever starts it without `sweep flower`, as the containers do.

    CELERY_BROKER_URL=redis://... celery flower --conf=deploy/flower/flowerconfig.py

Flower is a window for operators: it changes nothing, keeps nothing, and shows nothing of a run but its id, since
a task's arguments are a run's id and the number of its placement. It has no users of its own: keep it on
loopback or behind a proxy that knows who is asking.
"""

read_only = True
natural_time = True
max_tasks = 20000
purge_offline_workers = 86400
persistent = False
inspect_timeout = 3000.0
task_runtime_metric_buckets = [1.0, 5.0, 15.0, 60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0]
tasks_columns = "uuid,state,received,started,runtime,worker"
