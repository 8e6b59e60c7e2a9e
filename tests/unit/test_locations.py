"""Where an experiment may keep its artifacts outside our own store."""

import pytest

from tracking.errors import InvalidValue
from tracking.locations import MAX_CHARS, below, check_location


@pytest.mark.parametrize(
    "location",
    [
        "s3://bucket/folder",
        "s3://bucket",
        "gs://b/a/",
        "wasbs://c@account.blob.core.windows.net/p",
        "abfss://c@a/p",
        "hdfs://host:8020/p",
        "dbfs:/p",
        "s3://b?x=1",
    ],
)
def test_location_of_an_object_store_is_taken_as_it_is(location: str) -> None:
    """Clients open it themselves; nothing is changed about it."""
    assert check_location(location) == location


LOCAL = ["/tmp/x", "x", "./x", "file:///x", "file:x", "C:\\x", "c:/x", "sqlite:///x", "//h/x", ""]
OURS = ["runs:/x", "mlflow-artifacts:/1"]
OPENED_BY_SERVERS = ["http://h/x", "https://h/x", "HTTPS://h/x"]
NOT_PLAIN = ["s3://b/../x", "s3://b/x#y", "s3://b/x;y", "s3://b/x?y=../z", "s3://b/x y", "s3://b/x\ny", "s3://b\\x", "s3://[b", "s3://" + "b" * MAX_CHARS]


@pytest.mark.parametrize("location", [*LOCAL, *OURS, *OPENED_BY_SERVERS, *NOT_PLAIN])
def test_location_is_refused_when_it_is_local_or_not_plain(location: str) -> None:
    """Whatever this server could be made to open, and what storage libraries read in different ways."""
    with pytest.raises(InvalidValue):
        check_location(location)


@pytest.mark.parametrize(
    "location, folder",
    [
        ("s3://b/p", "s3://b/p/r/artifacts"),
        ("s3://b/p//", "s3://b/p/r/artifacts"),
        ("dbfs:/", "dbfs:/r/artifacts"),
        ("s3://b/p?a=1", "s3://b/p/r/artifacts?a=1"),
    ],
)
def test_location_has_folders_below_it(location: str, folder: str) -> None:
    """As MLflow builds them."""
    assert below(location, "r", "artifacts") == folder
