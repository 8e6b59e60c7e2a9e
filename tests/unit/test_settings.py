"""Settings: read from the environment, checked, frozen."""

import dataclasses
import math
from dataclasses import fields
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracking.errors import SettingError
from tracking.settings import PREFIX, Settings, load_settings

NUMBERS = [item.name for item in fields(Settings) if item.type in (int, float, "int", "float")]


def test_settings_are_the_defaults_when_nothing_is_set() -> None:
    """An empty environment gives the local cluster under ~/.sweep."""
    settings = load_settings({})
    assert settings == Settings()
    assert settings.home == Path.home() / ".sweep"
    assert settings.is_local


def test_settings_count_an_empty_variable_as_unset() -> None:
    """`SWEEP_X=` and blanks mean the default."""
    assert load_settings({"SWEEP_LEASE_S": "", "SWEEP_BROKER_URL": "  "}) == Settings()


def test_settings_read_every_kind_of_value() -> None:
    """Paths, texts, whole numbers and durations come out as their types."""
    settings = load_settings(
        {"SWEEP_HOME": "/srv/sweep", "SWEEP_SERVER": "http://host:8080", "SWEEP_LEASE_S": "12.5", "SWEEP_INFRA_RETRIES": "7", "OTHER": "ignored"}
    )
    assert (settings.home, settings.server, settings.lease_s, settings.infra_retries) == (Path("/srv/sweep"), "http://host:8080", 12.5, 7)


def test_settings_make_the_home_absolute_and_expand_the_tilde() -> None:
    """A relative home is taken from the working folder, `~` from the user's."""
    assert load_settings({"SWEEP_HOME": "~/x"}).home == Path.home() / "x"
    assert load_settings({"SWEEP_HOME": "x"}).home == Path.cwd() / "x"


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("text", ["x", "0", "-1", "nan", "inf", "-inf", "1e999"])
def test_settings_refuse_a_number_that_makes_no_sense(name: str, text: str) -> None:
    """Not a number, zero, negative, NaN and infinity are refused; the message names the variable and the hint what to do."""
    variable = PREFIX + name.upper()
    with pytest.raises(SettingError, match=variable) as caught:
        load_settings({variable: text})
    assert variable in caught.value.hint
    assert caught.value.exit_status == 2


@given(value=st.floats(min_value=1e-9, max_value=1e12))
def test_settings_take_any_positive_duration(value: float) -> None:
    """Every positive finite number is a duration."""
    assert math.isclose(load_settings({"SWEEP_CLAIM_TIMEOUT_S": repr(value)}).claim_timeout_s, value)


@pytest.mark.parametrize(
    ("environ", "shorter", "longer"),
    [
        ({"SWEEP_RENEW_S": "3", "SWEEP_LEASE_S": "1"}, "SWEEP_RENEW_S", "SWEEP_LEASE_S"),
        ({"SWEEP_RENEW_S": "60"}, "SWEEP_RENEW_S", "SWEEP_LEASE_S"),
        ({"SWEEP_REASSIGN_AFTER_S": "30"}, "SWEEP_LEASE_S", "SWEEP_REASSIGN_AFTER_S"),
    ],
)
def test_settings_refuse_times_that_contradict_each_other(environ: dict[str, str], shorter: str, longer: str) -> None:
    """A lease shorter than its renewals would make every healthy worker look silent."""
    with pytest.raises(SettingError, match=f"{shorter} .* must be shorter than {longer}"):
        load_settings(environ)


def test_settings_keep_artifacts_under_home_unless_told_otherwise(tmp_path: Path) -> None:
    """`artifact_root` wins over `home/artifacts`."""
    assert Settings(home=tmp_path).artifact_place == str(tmp_path / "artifacts")
    assert Settings(home=tmp_path, artifact_root="/data").artifact_place == "/data"


def test_settings_are_no_local_cluster_when_a_database_is_given() -> None:
    """A database URL means a cluster."""
    assert not load_settings({"SWEEP_DATABASE_URL": "postgresql://host/db"}).is_local


def test_settings_are_frozen() -> None:
    """Nobody changes a setting after start."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        Settings().lease_s = 1.0  # type: ignore[misc]  # that is the point
