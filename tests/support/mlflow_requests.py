"""The requests that are sent to MLflow's server and to ours: every route of tracking, good and bad, in an order in which each finds what it needs."""

import functools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from tests.support.mlflow_replay import Ask

T: Final = 1_600_000_000_000
"""A time long past, in milliseconds, which is compared as it stands."""

_NO_ID: Final = "0123456789abcdef0123456789abcdef"
_RUN: Final = "run.info.run_id"


def post(route: str, special: str, body: Any, *, only: str = "", method: str = "POST", name: str = "", **keep: str) -> Ask:
    """A request with a body of JSON; `keep` are names and where their values are in the answer."""
    return Ask(f"{name or route}: {special}", method, route, body, keep=keep, only=only)


def get(route: str, special: str, *query: tuple[str, str], only: str = "", name: str = "", **keep: str) -> Ask:
    """A request with a query."""
    return Ask(f"{name or route}: {special}", "GET", route, query=query, keep=keep, only=only)


def bad_bodies(route: str, good: Mapping[str, Any], *, method: str = "POST", name: str = "") -> Iterator[Ask]:
    """A good body made bad: no JSON, no object, each field left out, null, and of other types."""
    name = name or route
    for special, content in (
        ("no body", b""),
        ("no JSON", b"{"),
        ("a list", b"[]"),
        ("a number", b"1"),
        ("null", b"null"),
        ("JSON within a text", json.dumps(json.dumps({})).encode()),
    ):
        yield Ask(f"{name}: {special}", method, route, content)
    yield Ask(f"{name}: a form", method, route, b"a=1", headers={"Content-Type": "application/x-www-form-urlencoded"})
    yield post(route, "an unknown field", {**good, "no_such_field": {"a": [1]}}, method=method, name=name)
    for field in good:
        yield post(route, f"without {field}", {key: value for key, value in good.items() if key != field}, method=method, name=name)
        for value in (None, 7, "x", True, 1.5, ["x"], {"a": "b"}):
            if type(value) is not type(good[field]):
                yield post(route, f"{field} is {json.dumps(value)}", {**good, field: value}, method=method, name=name)


def experiments() -> Iterator[Ask]:
    """`experiments/...`."""
    yield get("experiments/get", "the first one", ("experiment_id", "0"))
    yield get("experiments/get-by-name", "the first one", ("experiment_name", "Default"))
    yield post("experiments/create", "a name", {"name": "one"}, one="experiment_id")
    yield post("experiments/create", "tags", {"name": "two", "tags": [{"key": "team", "value": "a"}, {"key": "note", "value": ""}]}, two="experiment_id")
    yield post("experiments/create", "the same name", {"name": "one"})
    yield post("experiments/create", "a name of blanks", {"name": "  "})
    yield post("experiments/create", "an empty name", {"name": ""})
    yield post("experiments/create", "a name of 501", {"name": "n" * 501})
    yield post("experiments/create", "a name of 256", {"name": "m" * 256}, long="experiment_id")
    yield post("experiments/create", "a name with a slash", {"name": "/Users/me/größe"}, umlaut="experiment_id")
    yield post("experiments/create", "one to be deleted", {"name": "twice", "tags": [{"key": "k", "value": "1"}]}, twice="experiment_id")
    yield post("experiments/create", "a tag without a key", {"name": "keyless", "tags": [{"value": "1"}]})
    yield post("experiments/create", "a tag with a bad key", {"name": "bad key", "tags": [{"key": "a\tb", "value": "1"}]})
    yield post("experiments/create", "a location of a store", {"name": "bucket", "artifact_location": "s3://bucket/root"}, bucket="experiment_id")
    yield post("experiments/create", "an http URI as location", {"name": "http", "artifact_location": "http://127.0.0.1/x"})
    yield post("experiments/create", "a fragment in the location", {"name": "fragment", "artifact_location": "s3://bucket/a#b"})
    yield post("experiments/create", "a location of 2049", {"name": "far", "artifact_location": "s3://bucket/" + "a" * 2037})
    yield from bad_bodies("experiments/create", {"name": "good", "artifact_location": "s3://a/b", "tags": []})
    for which in ("one", "two", "twice", "bucket", "umlaut"):
        yield get("experiments/get", f"{which}", ("experiment_id", f"${which}"))
    for special, query in (
        ("an unknown id", [("experiment_id", "799999")]),
        ("no number as id", [("experiment_id", "abc")]),
        ("an id beyond 64 bits", [("experiment_id", "9" * 30)]),
        ("a negative id", [("experiment_id", "-1")]),
        ("an empty id", [("experiment_id", "")]),
        ("no id", []),
        ("two ids", [("experiment_id", "0"), ("experiment_id", "$one")]),
    ):
        yield get("experiments/get", special, *query)
    for special, name in (("one", "one"), ("letters beyond ASCII", "/Users/me/größe"), ("an unknown name", "nobody"), ("an empty name", "")):
        yield get("experiments/get-by-name", special, ("experiment_name", name))
    yield get("experiments/get-by-name", "no name")
    yield from experiment_changes()
    yield from experiment_searches()
    yield from experiment_disputes()


def experiment_disputes() -> Iterator[Ask]:
    """Experiments that one of the servers makes and the other does not; last, so that the lists before stay the same."""
    yield post("experiments/create", "a name of 500", {"name": "n" * 500})
    yield post("experiments/create", "the same tag twice", {"name": "tags", "tags": [{"key": "k", "value": "1"}, {"key": "k", "value": "2"}]})
    yield post("experiments/create", "a local path as location", {"name": "local", "artifact_location": "/etc"})
    yield post("experiments/create", "a file URI as location", {"name": "file", "artifact_location": "file:///etc"})
    yield post("experiments/create", "steps up in the location", {"name": "steps", "artifact_location": "s3://bucket/../b"})


def experiment_changes() -> Iterator[Ask]:
    """`experiments/update`, `delete`, `restore`, tags."""
    yield post("experiments/set-experiment-tag", "a tag", {"experiment_id": "$one", "key": "colour", "value": "red"})
    yield post("experiments/set-experiment-tag", "the same again", {"experiment_id": "$one", "key": "colour", "value": "blue"})
    yield post("experiments/set-experiment-tag", "a key of 251", {"experiment_id": "$one", "key": "k" * 251, "value": "v"})
    yield post("experiments/set-experiment-tag", "a value of 5000", {"experiment_id": "$one", "key": "long", "value": "v" * 5000})
    yield post("experiments/set-experiment-tag", "a value of 20001", {"experiment_id": "$one", "key": "longer", "value": "v" * 20001})
    yield post("experiments/set-experiment-tag", "an unknown experiment", {"experiment_id": "799999", "key": "a", "value": "b"})
    yield post("experiments/set-experiment-tag", "an empty key", {"experiment_id": "$one", "key": "", "value": "b"})
    yield post("experiments/set-experiment-tag", "steps up in the key", {"experiment_id": "$one", "key": "../x", "value": "b"})
    yield from bad_bodies("experiments/set-experiment-tag", {"experiment_id": "$one", "key": "good", "value": "v"})
    yield post("experiments/delete-experiment-tag", "a tag", {"experiment_id": "$one", "key": "colour"})
    yield post("experiments/delete-experiment-tag", "the same again", {"experiment_id": "$one", "key": "colour"})
    yield post("experiments/delete-experiment-tag", "an unknown experiment", {"experiment_id": "799999", "key": "colour"})
    yield post("experiments/update", "a new name", {"experiment_id": "$two", "new_name": "two anew"})
    yield get("experiments/get", "renamed", ("experiment_id", "$two"))
    yield post("experiments/update", "a name that is taken", {"experiment_id": "$two", "new_name": "one"})
    yield post("experiments/update", "an unknown experiment", {"experiment_id": "799999", "new_name": "x"})
    yield post("experiments/update", "an empty name", {"experiment_id": "$two", "new_name": ""})
    yield from bad_bodies("experiments/update", {"experiment_id": "$twice", "new_name": "twice anew"})
    yield post("experiments/delete", "one", {"experiment_id": "$twice"})
    yield get("experiments/get", "deleted", ("experiment_id", "$twice"))
    yield get("experiments/get-by-name", "deleted", ("experiment_name", "twice anew"))
    yield post("experiments/delete", "the same again", {"experiment_id": "$twice"})
    yield post("experiments/delete", "an unknown one", {"experiment_id": "799999"})
    yield post("experiments/create", "the name of a deleted one", {"name": "twice anew"})
    yield post("experiments/update", "a deleted one", {"experiment_id": "$twice", "new_name": "y"})
    yield post("experiments/set-experiment-tag", "a deleted one", {"experiment_id": "$twice", "key": "a", "value": "b"})
    yield post("runs/create", "in a deleted experiment", {"experiment_id": "$twice", "start_time": T})
    for view in ("ACTIVE_ONLY", "DELETED_ONLY", "ALL", "SOME", 1):
        yield post("experiments/search", f"view {view}", {"view_type": view, "max_results": 100, "order_by": ["name"]}, only="experiments.*.name")
    yield post("experiments/restore", "one", {"experiment_id": "$twice"})
    yield post("experiments/restore", "the same again", {"experiment_id": "$twice"})
    yield post("experiments/restore", "an unknown one", {"experiment_id": "799999"})


def experiment_searches() -> Iterator[Ask]:
    """`experiments/search`."""
    yield post("experiments/search", "everything of each", {"max_results": 100})
    yield get("experiments/search", "by GET", ("max_results", "100"), only="experiments.*.name")
    filters = [
        *("name = 'one'", "name != 'one'", "name LIKE 'tw%'", "name ILIKE 'TW%'", "name LIKE '%e'", "name LIKE 'o_e'", "attribute.name = 'one'"),
        *('attributes.name = "one"', "tags.team = 'a'", "tags.`team` = 'a'", "tag.team != 'a'", "tags.team LIKE 'A%'", "tags.team ILIKE 'A%'"),
        *("name = 'one' AND tags.long LIKE 'v%'", "tags.team = 'a' and name LIKE '%'", "creation_time > 0", "last_update_time > 0", "creation_time < 5"),
        *("attributes.creation_time >= 0 AND name = 'one'", "name > 'one'", "name IN ('one')", "creation_time = 'x'", "colour = 'red'", "params.a = 'b'"),
        *("metrics.a > 1", "name = one", "name = 'one' OR name = 'two'", "name", "name =", "= 'one'", "tags.team > 'a'", "tags.team IS NULL"),
        *("name IS NOT NULL", "tags.nobody IS NULL AND name = 'one'", "name = 'one' AND", "((name = 'one'))", "  ", "name == 'one'", "experiment_id = '0'"),
        *("name LIKE 'one", "tags.'team' = 'a'", "name='one'AND name='one'", "NAME = 'one'", "name = 'one';", "tags.a.b.c = 'x'"),
    ]
    for text in filters:
        yield post("experiments/search", f"filter {text}", {"max_results": 100, "filter": text, "order_by": ["name"]}, only="experiments.*.name")
    for order in ("name", "name DESC", "name asc", "experiment_id DESC", "creation_time", "last_update_time DESC", "attributes.name", "attribute.name DESC"):
        yield post("experiments/search", f"order {order}", {"max_results": 100, "order_by": [order]}, only="experiments.*.name")
    for order in ("tags.team", "nothing", "", "name ASCENDING", "name DESC NULLS LAST", "name name"):
        yield post("experiments/search", f"order {order or 'of nothing'}", {"max_results": 100, "order_by": [order]}, only="experiments.*.name")
    yield post("experiments/search", "two orders", {"max_results": 100, "order_by": ["last_update_time", "name DESC"]})
    yield post("experiments/search", "a page", {"max_results": 2, "order_by": ["name"]}, page="next_page_token")
    yield post("experiments/search", "the next page", {"max_results": 2, "order_by": ["name"], "page_token": "$page"}, only="experiments.*.name")
    yield post("experiments/search", "a bad page", {"max_results": 2, "page_token": "garbage"})
    for most in (0, -1, 50000, 50001, "3", "x", None, 1.5):
        yield post("experiments/search", f"max_results {most!r}", {"max_results": most, "order_by": ["name"]}, only="experiments.*.name")
    yield post("experiments/search", "nothing asked", {}, only="experiments.*.name")
    yield Ask("experiments/search: no body", "POST", "experiments/search", b"", only="experiments.*.name")


def runs() -> Iterator[Ask]:
    """`runs/create`, `get`, `update`, `delete`, `restore`, tags and parameters."""
    create = functools.partial(post, "runs/create")
    # As clients send it: the user under both its names.
    tags = [{"key": "a", "value": "1"}, {"key": "mlflow.user", "value": "me"}]
    yield create("everything", {"experiment_id": "$one", "user_id": "me", "run_name": "first", "start_time": T, "tags": tags}, run=_RUN)
    yield create("a user without the tag", {"experiment_id": "$one", "start_time": T, "run_name": "i", "user_id": "me"})
    for user_id in (7, True, 1.5, ["x"], {"a": "b"}, None):
        yield create(f"user_id is {json.dumps(user_id)}", {"experiment_id": "$one", "start_time": T, "run_name": "w", "user_id": user_id})
    yield create("only an experiment", {"experiment_id": "$one"}, plain=_RUN)
    yield create("a name in the tag", {"experiment_id": "$one", "start_time": T, "tags": [{"key": "mlflow.runName", "value": "by tag"}]}, by_tag=_RUN)
    yield create("the same name twice", {"experiment_id": "$one", "start_time": T, "run_name": "n", "tags": [{"key": "mlflow.runName", "value": "n"}]})
    yield create("two names", {"experiment_id": "$one", "start_time": T, "run_name": "n", "tags": [{"key": "mlflow.runName", "value": "other"}]})
    yield create("an empty name", {"experiment_id": "$one", "start_time": T, "run_name": ""})
    yield create("a user in the tag", {"experiment_id": "$one", "start_time": T, "run_name": "u", "tags": [{"key": "mlflow.user", "value": "you"}]})
    yield create("a parent", {"experiment_id": "$one", "start_time": T, "run_name": "child", "tags": [{"key": "mlflow.parentRunId", "value": "$run"}]})
    yield create("an unknown parent", {"experiment_id": "$one", "start_time": T, "run_name": "c", "tags": [{"key": "mlflow.parentRunId", "value": _NO_ID}]})
    yield create("an unknown experiment", {"experiment_id": "799999", "start_time": T})
    yield create("no number as experiment", {"experiment_id": "abc", "start_time": T})
    yield create("an empty experiment", {"experiment_id": "", "start_time": T})
    yield create(
        "the same tag twice", {"experiment_id": "$one", "run_name": "t", "start_time": T, "tags": [{"key": "k", "value": "1"}, {"key": "k", "value": "2"}]}
    )
    yield create("a bad tag", {"experiment_id": "$one", "start_time": T, "tags": [{"key": "a?b", "value": "1"}]})
    yield create("a tag of 8001", {"experiment_id": "$one", "run_name": "l", "start_time": T, "tags": [{"key": "k", "value": "v" * 8001}]})
    yield create("a tag without a value", {"experiment_id": "$one", "run_name": "v", "start_time": T, "tags": [{"key": "k"}]})
    yield create("a name of 250", {"experiment_id": "$one", "start_time": T, "run_name": "n" * 250})
    yield create("a name of 8001", {"experiment_id": "$one", "start_time": T, "run_name": "n" * 8001})
    yield create("start_time 0", {"experiment_id": "$one", "run_name": "zero", "start_time": 0})
    yield create("start_time -1", {"experiment_id": "$one", "run_name": "before", "start_time": -1})
    yield create("start_time as text", {"experiment_id": "$one", "run_name": "text", "start_time": str(T)})
    yield create("the first experiment", {"experiment_id": "0", "run_name": "default", "start_time": T}, default=_RUN)
    yield create("a location of a store", {"experiment_id": "$bucket", "run_name": "stored", "start_time": T})
    yield create("fields in camel case", {"experimentId": "$one", "runName": "camel", "startTime": T})
    yield from bad_bodies("runs/create", {"experiment_id": "$two", "run_name": "good", "start_time": T, "tags": []})
    yield get("runs/get", "a run", ("run_id", "$run"))
    yield get("runs/get", "by its other name", ("run_uuid", "$run"))
    yield get("runs/get", "by both names", ("run_id", "$run"), ("run_uuid", "$run"))
    yield get("runs/get", "by two names that differ", ("run_id", "$run"), ("run_uuid", "$plain"))
    yield get("runs/get", "a run without a name", ("run_id", "$plain"))
    yield get("runs/get", "a run named by its tag", ("run_id", "$by_tag"))
    for special, run_id in (("an unknown run", _NO_ID), ("an id of other letters", "no such run"), ("steps up in the id", "../../x"), ("an empty id", "")):
        yield get("runs/get", special, ("run_id", run_id))
    yield get("runs/get", "no id")
    yield get("runs/get", "an id in capitals", ("run_id", _NO_ID.upper()))
    yield from run_updates()
    yield from run_texts()


def run_updates() -> Iterator[Ask]:
    """`runs/update`, `delete`, `restore`."""
    for status in ("RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED", "running", "DONE", "", 3, 9):
        yield post("runs/update", f"status {status!r}", {"run_id": "$plain", "status": status, "end_time": T + 5})
    yield post("runs/update", "an end", {"run_id": "$run", "status": "FINISHED", "end_time": T + 9})
    yield post("runs/update", "going on", {"run_id": "$run", "status": "RUNNING"})
    yield get("runs/get", "going on", ("run_id", "$run"))
    yield post("runs/update", "a name", {"run_id": "$run", "run_name": "renamed"})
    yield get("runs/get", "renamed", ("run_id", "$run"))
    yield post("runs/update", "an empty name", {"run_id": "$run", "run_name": ""})
    yield post("runs/update", "nothing", {"run_id": "$run"})
    yield post("runs/update", "end_time 0", {"run_id": "$run", "end_time": 0})
    yield post("runs/update", "an end before the start", {"run_id": "$run", "status": "FAILED", "end_time": 5})
    yield post("runs/update", "end_time -1", {"run_id": "$run", "end_time": -1})
    yield post("runs/update", "a name of 251", {"run_id": "$run", "run_name": "r" * 251})
    yield post("runs/update", "an unknown run", {"run_id": _NO_ID, "status": "FINISHED"})
    yield from bad_bodies("runs/update", {"run_id": "$run", "status": "FINISHED", "end_time": T + 7, "run_name": "good"})
    yield post("runs/delete", "a run", {"run_id": "$by_tag"})
    yield get("runs/get", "deleted", ("run_id", "$by_tag"))
    yield post("runs/delete", "the same again", {"run_id": "$by_tag"})
    yield post("runs/delete", "an unknown run", {"run_id": _NO_ID})
    yield post("runs/log-metric", "to a deleted run", {"run_id": "$by_tag", "key": "m", "value": 1, "timestamp": T})
    yield post("runs/log-parameter", "to a deleted run", {"run_id": "$by_tag", "key": "m", "value": "1"})
    yield post("runs/log-batch", "to a deleted run", {"run_id": "$by_tag", "tags": [{"key": "m", "value": "1"}]})
    yield post("runs/set-tag", "of a deleted run", {"run_id": "$by_tag", "key": "m", "value": "1"})
    yield post("runs/delete-tag", "of a deleted run", {"run_id": "$by_tag", "key": "m"})
    yield post("runs/update", "a deleted run", {"run_id": "$by_tag", "status": "FINISHED"})
    yield post("runs/restore", "a run", {"run_id": "$by_tag"})
    yield post("runs/restore", "the same again", {"run_id": "$by_tag"})
    yield post("runs/restore", "an unknown run", {"run_id": _NO_ID})
    for route in ("runs/delete", "runs/restore"):
        yield from bad_bodies(route, {"run_id": "$by_tag"})


def run_texts() -> Iterator[Ask]:
    """`runs/log-parameter`, `set-tag`, `delete-tag`."""
    yield post("runs/log-parameter", "one", {"run_id": "$run", "key": "lr", "value": "0.1"})
    yield post("runs/log-parameter", "the same again", {"run_id": "$run", "key": "lr", "value": "0.1"})
    yield post("runs/log-parameter", "another value", {"run_id": "$run", "key": "lr", "value": "0.2"})
    yield post("runs/log-parameter", "an empty value", {"run_id": "$run", "key": "empty", "value": ""})
    yield post("runs/log-parameter", "a value of 6000", {"run_id": "$run", "key": "v6000", "value": "v" * 6000})
    yield post("runs/log-parameter", "a value of 6001", {"run_id": "$run", "key": "v6001", "value": "v" * 6001})
    yield post("runs/log-parameter", "a value of 8001", {"run_id": "$run", "key": "v8001", "value": "v" * 8001})
    yield post("runs/log-parameter", "a cut value again", {"run_id": "$run", "key": "v6001", "value": "v" * 6001})
    yield post("runs/log-parameter", "by its other name", {"run_uuid": "$run", "key": "other", "value": "1"})
    yield post("runs/log-parameter", "two names that differ", {"run_id": "$run", "run_uuid": "$plain", "key": "other", "value": "1"})
    yield post("runs/log-parameter", "NUL in the value", {"run_id": "$run", "key": "nul", "value": "a\0b"})
    yield post("runs/log-parameter", "half a pair of surrogates", {"run_id": "$by_tag", "key": "half", "value": "\ud800"})
    yield post("runs/set-tag", "one", {"run_id": "$run", "key": "colour", "value": "red"})
    yield post("runs/set-tag", "another value", {"run_id": "$run", "key": "colour", "value": "blue"})
    yield post("runs/set-tag", "a value of 8001", {"run_id": "$run", "key": "long", "value": "v" * 8001})
    yield post("runs/set-tag", "an empty value", {"run_id": "$run", "key": "empty", "value": ""})
    yield post("runs/set-tag", "the name", {"run_id": "$run", "key": "mlflow.runName", "value": "named by tag"})
    yield post("runs/set-tag", "the user", {"run_id": "$run", "key": "mlflow.user", "value": "somebody"})
    for special, key in _KEYS:
        yield post("runs/log-parameter", f"key {special}", {"run_id": "$plain", "key": key, "value": "1"})
        yield post("runs/set-tag", f"key {special}", {"run_id": "$plain", "key": key, "value": "1"})
        yield post("runs/log-metric", f"key {special}", {"run_id": "$plain", "key": key, "value": 1, "timestamp": T})
        yield post("runs/log-batch", f"metric key {special}", {"run_id": "$plain", "metrics": [{"key": key, "value": 1, "timestamp": T}]})
        yield post("runs/log-batch", f"param key {special}", {"run_id": "$plain", "params": [{"key": key, "value": "1"}]})
        yield post("runs/log-batch", f"tag key {special}", {"run_id": "$plain", "tags": [{"key": key, "value": "1"}]})
    for route in ("runs/log-parameter", "runs/set-tag"):
        yield post(route, "an unknown run", {"run_id": _NO_ID, "key": "k", "value": "v"})
        yield from bad_bodies(route, {"run_id": "$plain", "key": "good", "value": "v"})
    yield post("runs/delete-tag", "one", {"run_id": "$run", "key": "colour"})
    yield post("runs/delete-tag", "the same again", {"run_id": "$run", "key": "colour"})
    yield post("runs/delete-tag", "an unknown run", {"run_id": _NO_ID, "key": "k"})
    yield from bad_bodies("runs/delete-tag", {"run_id": "$run", "key": "no such tag"})
    yield get("runs/get", "after parameters and tags", ("run_id", "$run"))
    yield get("runs/get", "after odd keys", ("run_id", "$plain"))


_KEYS: Final = (
    ("of every sign", "a/b_c.d-e f:g"),
    ("of 250", "k" * 250),
    ("of 251", "k" * 251),
    ("beyond ASCII", "größe"),
    ("with a comma", "a,b"),
    ("with a question mark", "a?b"),
    ("with a slash first", "/a"),
    ("with steps up", "a/../b"),
    ("of steps up", ".."),
    ("of a point", "."),
    ("with two slashes", "a//b"),
    ("with a slash last", "a/"),
    ("empty", ""),
    ("of a blank", " "),
)


def metrics() -> Iterator[Ask]:
    """`runs/log-metric`, `log-batch`, and what of them is read back."""
    yield post("runs/create", "for metrics", {"experiment_id": "$two", "run_name": "metrics", "start_time": T}, points=_RUN)
    # What MLflow takes and records as 0 goes to a run that is not looked at.
    yield post("runs/create", "for what is wrong", {"experiment_id": "$two", "run_name": "wrong", "start_time": T}, wrong=_RUN)
    values: Sequence[Any] = (1, 0.1, -0.0, 1e308, 1e-320, "0.5", "NaN", "Infinity", "-Infinity", 2**60, "1e5")
    no_values: Sequence[Any] = ("nan", "inf", "x", "", None, True, [], {}, " 1")
    for which, some in (("points", values), ("wrong", no_values)):
        for step, value in enumerate(some):
            yield post("runs/log-metric", f"value {value!r}", {"run_id": f"${which}", "key": "v", "value": value, "timestamp": T + step, "step": step})
    steps: Sequence[Any] = (0, -5, 2**62, 2**63 - 1, "7", 2.0, None)
    for which, some in (("points", steps), ("wrong", (2**63, "x", 1.5, True))):
        for at in some:
            yield post("runs/log-metric", f"step {at!r}", {"run_id": f"${which}", "key": "s", "value": 1, "timestamp": T, "step": at})
    times: Sequence[Any] = (0, 2**53 + 1, 2**63 - 1, "1600000000000")
    for which, some in (("points", times), ("wrong", (-1, 2**63, "x", 1.5, None))):
        for at in some:
            yield post("runs/log-metric", f"timestamp {at!r}", {"run_id": f"${which}", "key": "t", "value": 1, "timestamp": at, "step": 0})
    for special, number in (("NaN", b"NaN"), ("Infinity", b"Infinity"), ("-Infinity", b"-Infinity"), ("1e999", b"1e999")):
        yield Ask(f"runs/log-metric: bare {special}", "POST", "runs/log-metric", b'{"run_id": "$wrong", "key": "bare", "value": %s, "timestamp": 1}' % number)
    yield post("runs/log-metric", "the same again", {"run_id": "$points", "key": "v", "value": 1, "timestamp": T, "step": 0})
    yield post("runs/log-metric", "another value there", {"run_id": "$points", "key": "v", "value": 2, "timestamp": T, "step": 0})
    yield post("runs/log-metric", "of a model and a dataset", _OF_MODEL)
    yield post("runs/log-metric", "an unknown run", {"run_id": _NO_ID, "key": "k", "value": 1, "timestamp": T})
    yield from bad_bodies("runs/log-metric", {"run_id": "$wrong", "key": "good", "value": 1.5, "timestamp": T, "step": 1})
    yield from batches()
    yield get("runs/get", "after metrics", ("run_id", "$points"))
    yield from histories()


_OF_MODEL: Final[dict[str, Any]] = {
    "run_id": "$wrong",
    "key": "of model",
    "value": 1,
    "timestamp": T,
    "model_id": "m-" + "0" * 32,
    "dataset_name": "d",
    "dataset_digest": "x",
}


def batches() -> Iterator[Ask]:
    """`runs/log-batch`."""
    point: dict[str, Any] = {"key": "b", "value": 1.5, "timestamp": T, "step": 3}
    batch = functools.partial(post, "runs/log-batch")
    yield batch("all three", {"run_id": "$points", "metrics": [point], "params": [{"key": "p", "value": "1"}], "tags": [{"key": "t", "value": "2"}]})
    yield batch("the same again", {"run_id": "$points", "metrics": [point], "params": [{"key": "p", "value": "1"}], "tags": [{"key": "t", "value": "2"}]})
    yield batch("nothing", {"run_id": "$points"})
    yield batch("empty lists", {"run_id": "$points", "metrics": [], "params": [], "tags": []})
    yield batch("the same point twice", {"run_id": "$points", "metrics": [point | {"key": "twin"}] * 2})
    yield batch("two values at a step", {"run_id": "$points", "metrics": [point | {"key": "two"}, point | {"key": "two", "value": 2.5}]})
    yield batch("a later step first", {"run_id": "$points", "metrics": [point | {"key": "order", "step": 9}, point | {"key": "order", "step": 1, "value": 7}]})
    yield batch("an earlier step later", {"run_id": "$points", "metrics": [point | {"key": "order", "step": 4, "timestamp": T + 99}]})
    yield batch("a later time at a step", {"run_id": "$points", "metrics": [point | {"key": "order", "step": 9, "value": 0, "timestamp": T + 1}]})
    yield batch("a greater value then", {"run_id": "$points", "metrics": [point | {"key": "order", "step": 9, "value": 3, "timestamp": T + 1}]})
    yield batch("a smaller value then", {"run_id": "$points", "metrics": [point | {"key": "order", "step": 9, "value": 2, "timestamp": T + 1}]})
    odd = [point | {"key": "odd", "value": value, "step": step} for step, value in enumerate(("NaN", "Infinity", "-Infinity", "3.5"))]
    yield batch("values that are no numbers", {"run_id": "$points", "metrics": odd})
    yield batch("a parameter twice", {"run_id": "$points", "params": [{"key": "q", "value": "1"}, {"key": "q", "value": "1"}]})
    yield batch("a parameter twice, otherwise", {"run_id": "$points", "params": [{"key": "q", "value": "1"}, {"key": "q", "value": "2"}]})
    yield batch("another value of a parameter", {"run_id": "$points", "params": [{"key": "p", "value": "2"}]})
    yield batch(
        "another value of a parameter, with a metric",
        {"run_id": "$points", "metrics": [point | {"key": "half"}], "params": [{"key": "p", "value": "2"}], "tags": [{"key": "half", "value": "1"}]},
    )
    yield batch("a tag twice", {"run_id": "$points", "tags": [{"key": "tt", "value": "1"}, {"key": "tt", "value": "2"}]})
    yield batch("a parameter of 6001", {"run_id": "$points", "params": [{"key": "long", "value": "v" * 6001}]})
    yield batch("a tag of 8001", {"run_id": "$points", "tags": [{"key": "long", "value": "v" * 8001}]})
    yield batch("the run's name as a tag", {"run_id": "$points", "tags": [{"key": "mlflow.runName", "value": "named by a batch"}]})
    for kind, most in (("metrics", 1000), ("params", 100), ("tags", 100)):
        for count in (most, most + 1):
            items = [point | {"key": f"n{number}"} if kind == "metrics" else {"key": f"n{number}", "value": "1"} for number in range(count)]
            yield batch(f"{count} {kind}", {"run_id": "$points", kind: items})
    many = {"metrics": [point | {"key": f"n{number}"} for number in range(950)]} | {
        kind: [{"key": f"n{number}", "value": "1"} for number in range(count)] for kind, count in (("params", 30), ("tags", 21))
    }
    yield batch("1001 in all", {"run_id": "$points", **many})
    for kind, good in (("metrics", point), ("params", {"key": "k", "value": "v"}), ("tags", {"key": "k", "value": "v"})):
        for field in good:
            yield batch(f"{kind} without {field}", {"run_id": "$wrong", kind: [{key: value for key, value in good.items() if key != field}]})
            for value in (None, 7, "x", True, ["x"], {"a": "b"}):
                yield batch(f"{kind} where {field} is {json.dumps(value)}", {"run_id": "$wrong", kind: [{**good, field: value}]})
        yield batch(f"{kind} of null", {"run_id": "$wrong", kind: [None]})
        yield batch(f"{kind} of text", {"run_id": "$wrong", kind: ["x"]})
        yield batch(f"{kind} with an unknown field", {"run_id": "$wrong", kind: [{**good, "key": "unknown", "more": 1}]})
    yield batch("of a model and a dataset", {"run_id": "$wrong", "metrics": [{key: value for key, value in _OF_MODEL.items() if key != "run_id"}]})
    yield batch("an unknown run", {"run_id": _NO_ID, "metrics": [point]})
    yield batch("an unknown run and nothing", {"run_id": _NO_ID})
    yield from bad_bodies("runs/log-batch", {"run_id": "$wrong", "metrics": [], "params": [], "tags": []})


def histories() -> Iterator[Ask]:
    """`metrics/get-history...`."""
    history = functools.partial(get, "metrics/get-history")
    for key in ("v", "s", "t", "b", "twin", "two", "order", "odd", "half", "no such key"):
        yield history(f"of {key}", ("run_id", "$points"), ("metric_key", key))
    yield history("by its other name", ("run_uuid", "$points"), ("metric_key", "order"))
    yield history("a page", ("run_id", "$points"), ("metric_key", "order"), ("max_results", "2"), history="next_page_token")
    yield history("the next page", ("run_id", "$points"), ("metric_key", "order"), ("max_results", "2"), ("page_token", "$history"))
    for most in ("0", "-1", "25000", "25001", "x", ""):
        yield history(f"max_results {most!r}", ("run_id", "$points"), ("metric_key", "b"), ("max_results", most))
    yield history("a bad page", ("run_id", "$points"), ("metric_key", "b"), ("page_token", "garbage"))
    yield history("an unknown run", ("run_id", _NO_ID), ("metric_key", "b"))
    yield history("no run", ("metric_key", "b"))
    yield history("no key", ("run_id", "$points"))
    yield history("an empty key", ("run_id", "$points"), ("metric_key", ""))
    bulk, bulk_name = "/ajax-api/2.0/mlflow/metrics/get-history-bulk", "metrics/get-history-bulk"
    yield get(bulk, "two runs", ("run_id", "$points"), ("run_id", "$plain"), ("metric_key", "order"), name=bulk_name)
    yield get(bulk, "values that are no numbers", ("run_id", "$points"), ("metric_key", "odd"), name=bulk_name)
    yield get(bulk, "max_results", ("run_id", "$points"), ("metric_key", "order"), ("max_results", "2"), name=bulk_name)
    yield get(bulk, "max_results is no number", ("run_id", "$points"), ("metric_key", "order"), ("max_results", "x"), name=bulk_name)
    yield get(bulk, "no run", ("metric_key", "order"), name=bulk_name)
    yield get(bulk, "no key", ("run_id", "$points"), name=bulk_name)
    yield get(bulk, "an unknown run", ("run_id", _NO_ID), ("metric_key", "order"), name=bulk_name)
    yield get(bulk, "101 runs", *[("run_id", "$points")] * 101, ("metric_key", "order"), name=bulk_name)
    steps: list[dict[str, Any]] = [{"key": "curve", "value": step / 7, "timestamp": T + step, "step": step} for step in range(1000)]
    yield post("runs/log-batch", "a curve", {"run_id": "$points", "metrics": steps})
    yield post("runs/log-batch", "another curve", {"run_id": "$plain", "metrics": [point | {"step": point["step"] * 3} for point in steps[:40]]})
    interval = functools.partial(get, "metrics/get-history-bulk-interval")
    curve = (("run_ids", "$points"), ("metric_key", "curve"))
    yield interval("few", *curve, ("max_results", "10"))
    yield interval("two runs", *curve, ("run_ids", "$plain"), ("max_results", "20"))
    yield interval("between", *curve, ("max_results", "10"), ("start_step", "100"), ("end_step", "200"))
    yield interval("one step", *curve, ("max_results", "10"), ("start_step", "100"), ("end_step", "100"))
    yield interval("the wrong way round", *curve, ("start_step", "200"), ("end_step", "100"))
    yield interval("only a start", *curve, ("start_step", "200"))
    yield interval("a start that is no number", *curve, ("start_step", "x"), ("end_step", "100"))
    for most in ("0", "-1", "1", "2500", "2501", "x"):
        yield interval(f"max_results {most}", *curve, ("max_results", most), ("start_step", "0"), ("end_step", "20"))
    yield interval("no run", ("metric_key", "curve"))
    yield interval("no key", ("run_ids", "$points"))
    yield interval("an unknown run", ("run_ids", _NO_ID), ("metric_key", "curve"))
    yield interval("an unknown key", ("run_ids", "$points"), ("metric_key", "no such key"))
    yield interval("101 runs", *[("run_ids", "$points")] * 101, ("metric_key", "curve"))


def searches() -> Iterator[Ask]:
    """`runs/search`."""
    yield post("experiments/create", "for searches", {"name": "searched"}, searched="experiment_id")
    for number, name in enumerate(("alpha", "Beta", "gamma", "delta", "epsilon", "it's", "zeta_1", "zeta%2")):
        tags = [{"key": "team", "value": "ab"[number % 2]}, {"key": "n", "value": str(number)}, {"key": "with space", "value": name}]
        tags.append({"key": "mlflow.user", "value": f"user{number % 3}"})
        body = {"experiment_id": "$searched", "run_name": name, "user_id": f"user{number % 3}", "start_time": T + number * 1000, "tags": tags}
        yield post("runs/create", f"{name}, for searches", body, **{f"r{number}": _RUN})
        value: float | str = "NaN" if number == 3 else "Infinity" if number == 4 else "-Infinity" if number == 5 else number / 2
        points = [{"key": "loss", "value": value, "timestamp": T, "step": 0}, {"key": "a/b c", "value": number % 3, "timestamp": T, "step": 0}]
        params = [{"key": "lr", "value": str(number * 5)}, {"key": "kind", "value": ("x", "X", "y")[number % 3]}]
        if number != 6:
            yield post("runs/log-batch", f"{name}, for searches", {"run_id": f"$r{number}", "metrics": points, "params": params})
        if number % 2:
            yield post("runs/update", f"{name}, for searches", {"run_id": f"$r{number}", "status": "FINISHED", "end_time": T + 100_000 - number})
    yield post("runs/update", "failed, for searches", {"run_id": "$r2", "status": "FAILED", "end_time": T + 1})
    search: Callable[..., Ask] = functools.partial(post, "runs/search")
    yield search("everything of each", {"experiment_ids": ["$searched"]})
    for text in FILTERS:
        yield search(f"filter {text}", {"experiment_ids": ["$searched"], "filter": text}, only="runs.*.info.run_name")
    for order in ORDERS:
        yield search(f"order {', '.join(order)}", {"experiment_ids": ["$searched"], "order_by": order}, only="runs.*.info.run_name")
    yield search("a page", {"experiment_ids": ["$searched"], "max_results": 3}, runs_page="next_page_token")
    yield search("the next page", {"experiment_ids": ["$searched"], "max_results": 3, "page_token": "$runs_page"}, runs_page="next_page_token")
    yield search("the last page", {"experiment_ids": ["$searched"], "max_results": 3, "page_token": "$runs_page"})
    ordered = {"experiment_ids": ["$searched"], "max_results": 3, "order_by": ["metrics.loss DESC"]}
    yield search("a page in order", ordered, only="runs.*.info.run_name", ordered_page="next_page_token")
    yield search("the next page in order", {**ordered, "page_token": "$ordered_page"}, only="runs.*.info.run_name", ordered_page="next_page_token")
    yield search("the last page in order", {**ordered, "page_token": "$ordered_page"}, only="runs.*.info.run_name")
    yield search("exactly one page", {"experiment_ids": ["$searched"], "max_results": 8}, only="next_page_token")
    yield search("a bad page", {"experiment_ids": ["$searched"], "page_token": "garbage"})
    yield search("an empty page token", {"experiment_ids": ["$searched"], "page_token": ""}, only="runs.*.info.run_name")
    for most in (0, -1, 50000, 50001, "3", "x", None, 1.5):
        yield search(f"max_results {most!r}", {"experiment_ids": ["$searched"], "max_results": most}, only="runs.*.info.run_name")
    yield post("runs/delete", "for searches", {"run_id": "$r1"})
    for view in ("ACTIVE_ONLY", "DELETED_ONLY", "ALL", "SOME", 2, None):
        yield search(f"view {view!r}", {"experiment_ids": ["$searched"], "run_view_type": view}, only="runs.*.info.run_name")
    yield search("two experiments", {"experiment_ids": ["$searched", "0"], "order_by": ["attributes.run_name"]}, only="runs.*.info.run_name")
    yield search("an unknown experiment", {"experiment_ids": ["799999"]})
    yield search("no number as experiment", {"experiment_ids": ["abc"]})
    yield search("no experiment", {"experiment_ids": []})
    yield search("nothing asked", {})
    yield from bad_bodies("runs/search", {"experiment_ids": ["799999"], "filter": "", "max_results": 10, "order_by": [], "page_token": ""})


FILTERS: Final = (
    *("metrics.loss < 1", "metrics.loss <= 1", "metrics.loss > 1", "metrics.loss >= 1", "metrics.loss = 1", "metrics.loss != 1", "metric.loss < 1"),
    *("metrics.loss > -1", "metrics.loss < 1e3", "metrics.loss > 1.5", "metrics.loss < .5", "metrics.`a/b c` = 1", 'metrics."a/b c" = 1', "metrics.loss>1"),
    *("metrics.loss = 'x'", "metrics.loss LIKE '1'", "metrics.loss = '1'", "metrics.loss = NaN", "metrics.nobody > 0", "metrics.loss IS NULL"),
    *("metrics.loss IS NOT NULL", "metrics.loss < 1 AND metrics.loss > 0.2", "metrics.loss < 1 and params.kind = 'x'", "Metrics.loss < 1", "metrics.LOSS < 1"),
    *(
        "params.lr = '5'",
        'params.lr = "5"',
        "params.lr != '5'",
        "params.lr = 5",
        "params.lr > '5'",
        "params.lr LIKE '%5'",
        "params.lr ILIKE '1_'",
        "param.lr = '5'",
    ),
    *("parameters.lr = '5'", "params.kind LIKE 'X'", "params.kind ILIKE 'X'", "params.kind = 'x'", "params.`kind` = 'x'", "params.nobody = '1'"),
    *("params.lr IN ('5')", "params.kind IN ('x', 'y')", "params.nobody IS NULL", "params.lr IS NOT NULL", "params.lr IS NULL", "params.lr = ''"),
    *("tags.team = 'a'", "tags.team != 'a'", "tag.team = 'a'", "tags.`with space` = 'gamma'", "tags.\"with space\" = 'gamma'", "tags.'with space' = 'gamma'"),
    *(
        "tags.team LIKE '%'",
        "tags.n > '3'",
        "tags.team = a",
        "tags.nobody != 'a'",
        "tags.nobody IS NULL",
        "tags.team IS NOT NULL",
        "tags.mlflow.runName = 'alpha'",
    ),
    *("tags.`mlflow.runName` LIKE '%eta'", "tags.`with space` = 'it''s'", 'tags.`with space` = "it\'s"', "tags.n IN ('1', '2')", "tag.`team` ILIKE 'A'"),
    *("attributes.status = 'FINISHED'", "attribute.status = 'RUNNING'", "status = 'FAILED'", "status != 'RUNNING'", "status = 'finished'", "status LIKE 'F%'"),
    *("status IN ('FINISHED', 'FAILED')", "status > 'A'", "run_name = 'alpha'", "attributes.run_name LIKE '%eta'", "attributes.run_name ILIKE 'b%'"),
    *(
        "run_name LIKE 'zeta\\_1'",
        "run_name LIKE 'zeta_1'",
        "run_name LIKE '%\\%%'",
        "attributes.`run name` = 'alpha'",
        "`run name` = 'alpha'",
        "run name = 'alpha'",
    ),
    *("run_name != 'alpha'", "run_name IN ('alpha', 'gamma')", "run_name NOT IN ('alpha', 'gamma')", "attributes.run_name IN ('alpha')", "run_name IN ()"),
    *("run_id = '$r2'", "attributes.run_id IN ('$r2', '$r3')", "run_id NOT IN ('$r2')", "run_id LIKE '%'", "run_id != '$r2'", "attributes.run_id = 'nobody'"),
    *("user_id = 'user1'", "attributes.user_id LIKE 'user_'", "user_id != 'user1'", "artifact_uri LIKE '%artifacts'", "attributes.artifact_uri = 'x'"),
    *(
        "start_time > 1600000003000",
        "attributes.start_time <= 1600000001000",
        "start_time = 1600000000000",
        "start_time != 1600000000000",
        "Created > 1600000003000",
    ),
    *(
        "start_time > '1600000003000'",
        "start_time > 1600000003000.5",
        "start_time LIKE '1'",
        "end_time > 0",
        "attributes.end_time < 1600000099995",
        "end_time IS NULL",
    ),
    *(
        "start_time > x",
        "attributes.experiment_id = '0'",
        "attributes.lifecycle_stage = 'active'",
        "attributes.nobody = '1'",
        "nobody = '1'",
        "dataset.name = 'd'",
    ),
    *(
        "datasets.name LIKE 'd%'",
        "dataset.digest = 'x'",
        "dataset.context = 'train'",
        "dataset.profile = 'x'",
        "datasets.name IN ('d', 'e')",
        "outputs.a = 'b'",
    ),
    *(
        "",
        "   ",
        "metrics.loss",
        "metrics.loss >",
        "> 1",
        "metrics.loss > 1 AND",
        "AND metrics.loss > 1",
        "metrics.loss > 1 AND AND metrics.loss > 1",
        "metrics > 1",
    ),
    *("metrics.loss > 1 OR metrics.loss < 0", "NOT metrics.loss > 1", "(metrics.loss > 1)", "metrics.loss > 1 AND (params.lr = '5')", "metrics.loss > 1;"),
    *(
        "metrics.loss > 1 metrics.loss < 2",
        "metrics.loss == 1",
        "metrics.loss <> 1",
        "metrics.loss >> 1",
        "metrics.loss = 1 -- comment",
        "metrics.loss BETWEEN 1 AND 2",
    ),
    *(
        "params.lr = '5",
        "params.lr = 5'",
        "params.`lr = '5'",
        "params. = '5'",
        ".lr = '5'",
        "params.lr.x = '5'",
        "nothing.lr = '5'",
        "1 = 1",
        "'a' = 'a'",
        "params.lr = NULL",
    ),
    *(
        "metrics.loss > 1,",
        "select * from runs",
        "params.lr = '5'; drop table runs",
        "params.lr = '\U0001f600'",
        "tags.team = ''",
        "metrics.loss > 99999999999999999999999",
    ),
    *(
        "params.lr = '5' AND tags.team = 'b' AND attributes.status = 'FINISHED' AND metrics.loss < 3",
        "tags.team = 'a'\nAND\tparams.kind = 'x'",
        "mlflow.runName = 'x'",
    ),
    *(
        "params.lr = `5`",
        "metrics.loss > --1",
        "metrics.loss > +1",
        "metrics.loss > 1e",
        "metrics.loss > 0x10",
        "metrics.loss > 1_000",
        "metrics.loss > Infinity",
    ),
)
"""Of `runs/search`, each by itself."""

ORDERS: Final = (
    *(["metrics.loss"], ["metrics.loss ASC"], ["metrics.loss DESC"], ["metrics.loss asc"], ["metric.loss desc"], ["metrics.`a/b c` DESC", "metrics.loss"]),
    *(
        ["params.lr"],
        ["params.lr DESC"],
        ["param.kind", "params.lr DESC"],
        ["tags.n DESC"],
        ["tag.team", "tags.n"],
        ["tags.`with space`"],
        ['tags."with space"'],
    ),
    *(["attributes.start_time"], ["start_time DESC"], ["attribute.end_time"], ["end_time DESC"], ["status"], ["attributes.status DESC", "run_name"]),
    *(["run_name"], ["attributes.run_name DESC"], ["`run name`"], ["attributes.`Run Name`"], ["run name"], ["created"], ["attributes.Created DESC"]),
    *(["user_id", "start_time"], ["metrics.nobody"], ["params.nobody DESC"], ["metrics.loss", "metrics.loss"]),
    *(["metrics.loss ASC", "params.lr DESC"], [""], ["   "], ["nobody"], ["attributes.nobody"], ["metrics.loss ASCENDING"], ["metrics.loss DESC ASC"]),
    *(
        ["metrics.loss NULLS LAST"],
        ["metrics"],
        ["metrics."],
        ["nothing.loss"],
        ["metrics.loss;"],
        ["metrics.loss, params.lr"],
        ["dataset.name"],
        ["1"],
        ["metrics.loss > 1"],
    ),
)
"""Of `runs/search`, each by itself."""


def inputs() -> Iterator[Ask]:
    """`runs/log-inputs`, `experiments/search-datasets`, `runs/outputs`, `runs/log-model`."""
    yield post("experiments/create", "for datasets", {"name": "fed"}, fed="experiment_id")
    for name, number in (("fed1", 0), ("fed2", 1)):
        yield post("runs/create", f"{name}, for datasets", {"experiment_id": "$fed", "run_name": name, "start_time": T + number}, **{name: _RUN})
    dataset = {"name": "d", "digest": "x", "source_type": "local", "source": '{"uri": "a"}', "schema": "s", "profile": "p"}
    tags = [{"key": "mlflow.data.context", "value": "train"}]
    log = functools.partial(post, "runs/log-inputs")
    yield log("a dataset", {"run_id": "$fed1", "datasets": [{"dataset": dataset, "tags": tags}]})
    yield log("the same again", {"run_id": "$fed1", "datasets": [{"dataset": dataset, "tags": tags}]})
    yield log("the same to another run", {"run_id": "$fed2", "datasets": [{"dataset": dataset, "tags": [{"key": "mlflow.data.context", "value": "test"}]}]})
    yield log("other tags", {"run_id": "$fed1", "datasets": [{"dataset": dataset, "tags": [{"key": "more", "value": "1"}]}]})
    yield log("two", {"run_id": "$fed1", "datasets": [{"dataset": dataset | {"name": "e"}}, {"dataset": dataset | {"name": "e", "digest": "y"}}]})
    yield log("the same twice", {"run_id": "$fed2", "datasets": [{"dataset": dataset | {"name": "f"}}, {"dataset": dataset | {"name": "f"}}]})
    yield log("nothing", {"run_id": "$fed1"})
    yield log("an unknown run", {"run_id": _NO_ID, "datasets": [{"dataset": dataset}]})
    yield log("no dataset", {"run_id": "$fed1", "datasets": [{"tags": tags}]})
    for field, most in (("name", 500), ("digest", 36), ("source", 65535), ("schema", 1048575), ("source_type", 36)):
        yield log(f"{field} of {most + 1}", {"run_id": "$fed1", "datasets": [{"dataset": dataset | {field: "z" * (most + 1)}}]})
    for field in dataset:
        left = {key: value for key, value in dataset.items() if key != field} | ({"name": f"without {field}"} if field != "name" else {})
        yield log(f"without {field}", {"run_id": "$fed1", "datasets": [{"dataset": left}]})
        yield log(f"an empty {field}", {"run_id": "$fed1", "datasets": [{"dataset": left | {field: ""}}]})
    yield log("a tag without a key", {"run_id": "$fed1", "datasets": [{"dataset": dataset, "tags": [{"value": "1"}]}]})
    yield log("a tag of 501", {"run_id": "$fed1", "datasets": [{"dataset": dataset, "tags": [{"key": "k", "value": "v" * 501}]}]})
    yield from bad_bodies("runs/log-inputs", {"run_id": "$fed1", "datasets": [], "models": []})
    yield get("runs/get", "after inputs", ("run_id", "$fed1"))
    for text in (
        "dataset.name = 'd'",
        "datasets.name LIKE 'd%'",
        "dataset.digest = 'x'",
        "dataset.context = 'test'",
        "dataset.name = 'd' AND dataset.context = 'train'",
    ):
        yield post("runs/search", f"filter of inputs {text}", {"experiment_ids": ["$fed"], "filter": text}, only="runs.*.info.run_name")
    find = functools.partial(post, "/ajax-api/2.0/mlflow/experiments/search-datasets", name="experiments/search-datasets")
    yield find("one experiment", {"experiment_ids": ["$fed"]})
    yield find("two experiments", {"experiment_ids": ["$fed", "0"]})
    yield find("none", {"experiment_ids": []})
    yield find("21", {"experiment_ids": ["$fed"] * 21})
    yield find("an unknown one", {"experiment_ids": ["799999"]})
    yield log("1001", {"run_id": "$fed1", "datasets": [{"dataset": dataset | {"name": f"many {number}"}} for number in range(1001)]})


def logged_models() -> Iterator[Ask]:
    """`logged-models...`."""
    yield post("experiments/create", "for models", {"name": "modelled"}, modelled="experiment_id")
    yield post("runs/create", "for models", {"experiment_id": "$modelled", "run_name": "modeller", "start_time": T}, modeller=_RUN)
    create = functools.partial(post, "logged-models")
    full = {"experiment_id": "$modelled", "name": "mdl", "model_type": "Agent", "source_run_id": "$modeller"}
    keep = {"model": "model.info.model_id"}
    yield create("everything", {**full, "params": [{"key": "p", "value": "1"}], "tags": [{"key": "t", "value": "2"}]}, **keep)
    yield create("only an experiment", {"experiment_id": "$one"}, nameless="model.info.model_id")
    yield create("no run", {"experiment_id": "$modelled", "name": "free"}, free="model.info.model_id")
    yield create("an unknown experiment", {"experiment_id": "799999", "name": "x"})
    yield create("an unknown run", {"experiment_id": "$modelled", "name": "x", "source_run_id": _NO_ID})
    yield create("a bad name", {"experiment_id": "$modelled", "name": "a/b"})
    yield create("a name with a point", {"experiment_id": "$modelled", "name": "a.b"})
    yield create("a name of 501", {"experiment_id": "$modelled", "name": "n" * 501})
    yield create("a parameter of 6001", {"experiment_id": "$modelled", "name": "long", "params": [{"key": "p", "value": "v" * 6001}]})
    yield create("a tag of 8001", {"experiment_id": "$modelled", "name": "long tag", "tags": [{"key": "p", "value": "v" * 8001}]})
    yield create("101 parameters", {"experiment_id": "$modelled", "name": "many", "params": [{"key": f"p{n}", "value": "1"} for n in range(101)]})
    yield create("a parameter twice", {"experiment_id": "$modelled", "name": "twice", "params": [{"key": "p", "value": "1"}] * 2})
    yield create("a bad key", {"experiment_id": "$modelled", "name": "bad", "params": [{"key": "a?b", "value": "1"}]})
    yield from bad_bodies("logged-models", {"experiment_id": "$two", "name": "good", "model_type": "x", "source_run_id": "$modeller", "params": [], "tags": []})
    yield from model_changes()


def model_changes() -> Iterator[Ask]:
    """`logged-models/ID...`, `runs/outputs`, `runs/log-model`."""
    read = functools.partial(get, name="logged-models/ID")
    for which in ("model", "nameless", "free"):
        yield read(f"logged-models/${which}", which)
    yield read("logged-models/m-" + _NO_ID, "an unknown one")
    yield read("logged-models/nobody", "an id of other letters")
    change = functools.partial(post, "logged-models/$model", method="PATCH", name="logged-models/ID (PATCH)")
    for status in ("LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED", "READY", "LOGGED_MODEL_STATUS_UNSPECIFIED", 2, 9, ""):
        yield change(f"status {status!r}", {"model_id": "$model", "status": status})
    yield change("no status", {"model_id": "$model"})
    yield change("no id in the body", {"status": "LOGGED_MODEL_READY"})
    yield change("ready", {"model_id": "$model", "status": "LOGGED_MODEL_READY"})
    unknown = "logged-models/m-" + _NO_ID
    yield post(unknown, "an unknown one", {"model_id": "m-" + _NO_ID, "status": "LOGGED_MODEL_READY"}, method="PATCH", name="logged-models/ID (PATCH)")
    tag = functools.partial(post, "logged-models/$model/tags", method="PATCH", name="logged-models/ID/tags (PATCH)")
    yield tag("two", {"tags": [{"key": "a", "value": "1"}, {"key": "b", "value": "2"}]})
    yield tag("another value", {"tags": [{"key": "a", "value": "3"}]})
    yield tag("a bad key", {"tags": [{"key": "a?b", "value": "3"}]})
    yield tag("a value of 8001", {"tags": [{"key": "long", "value": "v" * 8001}]})
    yield tag("none", {"tags": []})
    yield tag("no list", {"tags": "x"})
    yield post(f"{unknown}/tags", "an unknown one", {"tags": [{"key": "a", "value": "1"}]}, method="PATCH", name="logged-models/ID/tags (PATCH)")
    delete_tag = "logged-models/ID/tags/KEY (DELETE)"
    yield Ask(f"{delete_tag}: one", "DELETE", "logged-models/$model/tags/b")
    yield Ask(f"{delete_tag}: the same again", "DELETE", "logged-models/$model/tags/b")
    yield Ask(f"{delete_tag}: an unknown model", "DELETE", f"{unknown}/tags/b")
    params = functools.partial(post, "logged-models/$model/params", name="logged-models/ID/params")
    yield params("no id in the body", {"params": [{"key": "p", "value": "1"}]})
    yield params("two", {"model_id": "$model", "params": [{"key": "x", "value": "1"}, {"key": "y", "value": "2"}]})
    yield params("the same again", {"model_id": "$model", "params": [{"key": "x", "value": "1"}]})
    yield params("another value", {"model_id": "$model", "params": [{"key": "x", "value": "2"}]})
    yield params("none", {"model_id": "$model", "params": []})
    yield post(f"{unknown}/params", "an unknown one", {"model_id": "m-" + _NO_ID, "params": [{"key": "x", "value": "1"}]}, name="logged-models/ID/params")
    yield read("logged-models/$model", "changed")
    yield from model_uses()


def model_uses() -> Iterator[Ask]:
    """`runs/outputs`, `runs/log-model`, metrics of models, their searches and ends."""
    read = functools.partial(get, name="logged-models/ID")
    outputs = functools.partial(post, "runs/outputs")
    yield outputs("a model", {"run_id": "$modeller", "models": [{"model_id": "$model", "step": 3}]})
    yield outputs("the same again", {"run_id": "$modeller", "models": [{"model_id": "$model", "step": 3}]})
    yield outputs("an unknown model", {"run_id": "$modeller", "models": [{"model_id": "m-" + _NO_ID, "step": 0}]})
    yield outputs("an unknown run", {"run_id": _NO_ID, "models": [{"model_id": "$model", "step": 0}]})
    yield outputs("nothing", {"run_id": "$modeller", "models": []})
    yield from bad_bodies("runs/outputs", {"run_id": "$modeller", "models": []})
    of_model = {"key": "score", "value": 0.5, "timestamp": T, "step": 1, "model_id": "$model", "dataset_name": "d", "dataset_digest": "x"}
    yield post("runs/log-batch", "metrics of a model", {"run_id": "$modeller", "metrics": [of_model, of_model | {"key": "score2", "step": 2, "value": 0.75}]})
    yield post("runs/log-metric", "of a model", {"run_id": "$modeller", **of_model, "key": "score3"})
    yield post("runs/log-inputs", "a model", {"run_id": "$modeller", "models": [{"model_id": "$model"}]})
    yield read("logged-models/$model", "measured")
    yield get("runs/get", "after models", ("run_id", "$modeller"))
    yield from model_searches()
    yield Ask("logged-models/ID (DELETE): one", "DELETE", "logged-models/$free")
    yield Ask("logged-models/ID (DELETE): the same again", "DELETE", "logged-models/$free")
    yield Ask("logged-models/ID (DELETE): an unknown one", "DELETE", "logged-models/m-" + _NO_ID)
    yield read("logged-models/$free", "deleted")
    yield post("runs/log-model", "a model", {"run_id": "$modeller", "model_json": json.dumps(_MODEL_JSON | {"run_id": "x"})})
    yield post("runs/log-model", "too little", {"run_id": "$modeller", "model_json": "{}"})
    yield post("runs/log-model", "a model that is no JSON", {"run_id": "$modeller", "model_json": "{"})
    yield post("runs/log-model", "an unknown run", {"run_id": _NO_ID, "model_json": json.dumps(_MODEL_JSON | {"run_id": "x"})})
    yield from bad_bodies("runs/log-model", {"run_id": "$modeller", "model_json": json.dumps(_MODEL_JSON | {"run_id": "y"})})
    yield get("runs/get", "after log-model", ("run_id", "$modeller"))


_MODEL_JSON: Final = {"artifact_path": "m", "flavors": {"f": {"x": 1}}, "utc_time_created": "2020-01-01 00:00:00.000000"}


def model_searches() -> Iterator[Ask]:
    """`logged-models/search`."""
    search = functools.partial(post, "logged-models/search")
    names = "models.*.info.name"
    yield search("everything of one", {"experiment_ids": ["$modelled"], "filter": "name = 'mdl'"})
    for text in (
        *("name = 'mdl'", "name != 'mdl'", "name LIKE 'm%'", "name ILIKE 'M%'", "attributes.name = 'mdl'", "name IN ('mdl', 'free')", "model_id = '$model'"),
        *(
            "model_type = 'Agent'",
            "status = 'READY'",
            "status = 'LOGGED_MODEL_READY'",
            "source_run_id = '$modeller'",
            "creation_timestamp > 0",
            "params.p = '1'",
        ),
        *(
            "params.x = '1'",
            "tags.a = '3'",
            "tags.a != '3'",
            "metrics.score > 0.1",
            "metrics.score < 0.1",
            "metrics.score > 0.1 AND params.p = '1'",
            "nobody = '1'",
        ),
        *(
            "name = 'mdl' OR name = 'free'",
            "name",
            "name = mdl",
            "metrics.score = 'x'",
            "experiment_id = '0'",
            "last_updated_timestamp > 0",
            "tags.`a` = '3'",
            "name > 'a'",
        ),
    ):
        yield search(f"filter {text}", {"experiment_ids": ["$modelled"], "filter": text, "order_by": [{"field_name": "name", "ascending": True}]}, only=names)
    for field in ("name", "creation_timestamp", "last_updated_timestamp", "status", "model_id", "metrics.score", "params.p", "tags.a", "nobody", ""):
        yield search(f"order {field}", {"experiment_ids": ["$modelled"], "filter": "name = 'mdl'", "order_by": [{"field_name": field}]}, only=names)
    yield search(
        "order of a dataset", {"experiment_ids": ["$modelled"], "order_by": [{"field_name": "metrics.score", "dataset_name": "d", "dataset_digest": "x"}]}
    )
    yield search("order of a digest alone", {"experiment_ids": ["$modelled"], "order_by": [{"field_name": "metrics.score", "dataset_digest": "x"}]}, only=names)
    yield search("a dataset", {"experiment_ids": ["$modelled"], "filter": "metrics.score > 0", "datasets": [{"dataset_name": "d"}]}, only=names)
    yield search("another dataset", {"experiment_ids": ["$modelled"], "filter": "metrics.score > 0", "datasets": [{"dataset_name": "e"}]}, only=names)
    ordered = {"experiment_ids": ["$modelled"], "max_results": 2, "order_by": [{"field_name": "name", "ascending": True}]}
    yield search("a page", ordered, only=names, models_page="next_page_token")
    yield search("the next page", {**ordered, "page_token": "$models_page"}, only=names)
    yield search("another filter on the next page", {**ordered, "filter": "name = 'mdl'", "page_token": "$models_page"}, only=names)
    yield search("a bad page", {"experiment_ids": ["$modelled"], "page_token": "garbage"})
    for most in (0, -1, 1, 50, 51, 100000, "x"):
        yield search(f"max_results {most!r}", {**ordered, "max_results": most}, only=names)
    yield search("no experiment", {"experiment_ids": []})
    yield search("an unknown experiment", {"experiment_ids": ["799999"]})
    yield search("nothing asked", {})


_ODD_PATHS: Final = (
    ("steps up", "%2e%2e/x"),
    ("steps up twice encoded", "%252e%252e/x"),
    ("a backslash", "a%5Cb"),
    ("NUL", "a%00b"),
    ("a hash", "a%23b"),
    ("a semicolon", "a;b"),
)
_FILES: Final = "/api/2.0/mlflow-artifacts/artifacts"


def artifacts() -> Iterator[Ask]:
    """`artifacts/list`, and files through the proxy."""
    name = "mlflow-artifacts"
    at = f"{_FILES}/$one/$run/artifacts"
    for path, content in (
        ("a.txt", b"hello"),
        ("empty.bin", b""),
        ("dir/b c.json", b"{}"),
        ("dir/größe.txt", b"x"),
        ("dir/page.html", b"<p>"),
        ("x.unknown", b"\x00\xff"),
    ):
        yield Ask(f"{name} (PUT): {path}", "PUT", f"{at}/{path}", content, headers={"Content-Type": "application/octet-stream"})
        yield Ask(f"{name} (GET): {path}", "GET", f"{at}/{path}")
    yield Ask(f"{name} (PUT): anew", "PUT", f"{at}/a.txt", b"hello again")
    yield Ask(f"{name} (GET): anew", "GET", f"{at}/a.txt")
    yield Ask(f"{name} (PUT): a folder", "PUT", f"{at}/dir", b"x")
    yield Ask(f"{name} (PUT): below a file", "PUT", f"{at}/a.txt/b", b"x")
    yield Ask(f"{name} (PUT): the root", "PUT", f"{at}/", b"x")
    for special, path in (("what is not there", "nothing.txt"), ("a folder", "dir"), ("the root", "")):
        yield Ask(f"{name} (GET): {special}", "GET", f"{at}/{path}")
        yield Ask(f"artifacts/list: {special}", "GET", "artifacts/list", query=(("run_id", "$run"), ("path", path)))
        yield Ask(f"{name} (list): {special}", "GET", _FILES, query=(("path", f"$one/$run/artifacts/{path}".removesuffix("/")),))
    for special, path in _ODD_PATHS:
        yield Ask(f"{name} (GET): {special}", "GET", f"{at}/{path}")
    for path in ("..", "../..", "/etc", "$one", "$one/$run/artifacts/../..", "C:/x", "file:///etc", "", ".", "nobody"):
        yield Ask(f"{name} (list): path {path or 'of nothing'}", "GET", _FILES, query=(("path", path),))
    yield Ask(f"{name} (list): no path", "GET", _FILES)
    for path in ("..", "/etc", "dir/../a.txt", "%2e%2e"):
        yield Ask(f"artifacts/list: path {path}", "GET", "artifacts/list", query=(("run_id", "$run"), ("path", path)))
    yield get("artifacts/list", "a run", ("run_id", "$run"))
    yield get("artifacts/list", "by its other name", ("run_uuid", "$run"))
    yield get("artifacts/list", "a run without any", ("run_id", "$plain"))
    yield get("artifacts/list", "an unknown run", ("run_id", _NO_ID))
    yield get("artifacts/list", "no run")
    yield Ask(f"{name} (DELETE): a file", "DELETE", f"{at}/x.unknown")
    yield Ask(f"{name} (DELETE): the same again", "DELETE", f"{at}/x.unknown")
    yield Ask(f"{name} (DELETE): a folder", "DELETE", f"{at}/dir")
    yield get("artifacts/list", "after deletions", ("run_id", "$run"))
    for special, path in _ODD_PATHS:
        yield Ask(f"{name} (PUT): {special}", "PUT", f"{at}/{path}", b"x")
    mpu = "/api/2.0/mlflow-artifacts/mpu"
    yield Ask("mlflow-artifacts/mpu/create: a file", "POST", f"{mpu}/create/$one/$run/artifacts", {"path": "big.bin", "num_parts": 2})
    bodies: Sequence[tuple[str, dict[str, Any]]]
    bodies = (
        ("create", {"num_parts": 2}),
        ("create", {"path": "big.bin", "num_parts": "x"}),
        ("complete", {"path": "big.bin", "upload_id": "u", "parts": [{"part_number": 1, "etag": "e"}]}),
        ("complete", {"upload_id": "u", "parts": [{"part_number": 1, "etag": "e"}]}),
        ("abort", {"path": "big.bin", "upload_id": "u"}),
    )
    for what, body in bodies:
        yield Ask(f"mlflow-artifacts/mpu/{what}: {'/'.join(body)}", "POST", f"{mpu}/{what}/$one/$run/artifacts", body)
    yield Ask("mlflow-artifacts/presigned: a file", "GET", "/api/2.0/mlflow-artifacts/presigned/$one/$run/artifacts/a.txt")
    bodies = (
        ("upload", {"run_id": "$run", "path": "a.txt"}),
        ("upload", {"path": "a.txt"}),
        ("upload", {"run_id": "$run", "model_id": "m-1", "path": "a.txt"}),
        ("upload", {"run_id": "$run"}),
        ("download", {"run_id": "$run", "path": "a.txt"}),
        ("download", {"run_id": "$run", "path": "a.txt", "expiration": 0}),
        ("download", {"run_id": _NO_ID, "path": "a.txt"}),
        ("download", {"path": "a.txt"}),
    )
    for what, body in bodies:
        yield post(f"artifacts/presigned-{what}-url", ", ".join(f"{key} {value}" for key, value in body.items()), body)
    for part in ("bytes=2-4", "bytes=-3", "bytes=3-", "bytes=90-", "bytes=2-900"):
        yield Ask(f"{name} (GET): {part}", "GET", f"{at}/a.txt", headers={"Range": part})
    yield Ask(f"{name} (HEAD): a file", "HEAD", f"{at}/a.txt")
    yield Ask(f"{name} (ajax): a file", "GET", f"/ajax-{at.removeprefix('/')}/a.txt")


def others() -> Iterator[Ask]:
    """What else clients and pages ask."""
    yield Ask("health: GET", "GET", "/health")
    yield Ask("version: GET", "GET", "/version")
    yield get("logged-models/$model/artifacts/directories", "files of a model", name="logged-models/ID/artifacts")
    yield get("logged-models/m-" + _NO_ID + "/artifacts/directories", "an unknown one", name="logged-models/ID/artifacts")
    yield Ask("server-info: GET", "GET", "/api/3.0/mlflow/server-info")
    yield Ask("unknown: a route", "GET", "no/such/route")
    yield Ask("unknown: another method", "POST", "runs/get", {"run_id": "$run"})
    yield Ask("unknown: DELETE", "DELETE", "runs/get")
    yield get("/ajax-api/2.0/mlflow/experiments/get", "for pages", ("experiment_id", "0"), name="ajax")
    yield post("/ajax-api/2.0/mlflow/runs/search", "runs, for pages", {"experiment_ids": ["799999"]}, name="ajax")


def all_asks() -> list[Ask]:
    """Every request, in order.

    Raises:
        ValueError: two have the same name.
    """
    asks = [ask for part in (experiments, runs, metrics, searches, inputs, logged_models, artifacts, others) for ask in part()]
    names = [ask.name for ask in asks]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"These requests have the same name: {twice}")
    return asks
