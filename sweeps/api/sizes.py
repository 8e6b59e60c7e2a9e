"""How large registered models are."""

from sweeps.api.routing import Services
from tracking.artifacts import run_folder
from tracking.errors import InvalidValue
from tracking.records import ModelVersion


def size_of(services: Services, version: ModelVersion) -> int | None:
    """How large a version's artifact is now; looked up where it lies, so that it is never a stale copy."""
    if version.run_id is None:
        return None
    run = services.store.runs.get(version.run_id)
    _, _, artifact = version.source.removeprefix("runs:/").partition("/")
    try:
        return services.artifacts.size_bytes(f"{run_folder(run.experiment_id, run.run_id)}/{artifact}")
    except InvalidValue:
        # A path that no artifact can have, from a sweep file's `register`: nothing lies there.
        return None
