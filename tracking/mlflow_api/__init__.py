"""MLflow's REST protocol over our record (D9): one file a resource, mounted where MLflow's clients and UI look for it.

Served is what a script with `start_run`, `log_*`, `set_tags`, nested runs, `get_run`, `search_runs` and artifacts needs;
everything else answers ENDPOINT_NOT_FOUND at once.
"""

from starlette.routing import Route

from tracking.artifacts import ArtifactStore
from tracking.mlflow_api import artifacts as artifacts_api
from tracking.mlflow_api import experiments, metrics, runs
from tracking.mlflow_api.endpoints import Services, json_routes, unknown_routes
from tracking.settings import Settings
from tracking.store import Store

__all__ = ["build_routes"]

PREFIXES = ("/api/2.0", "/ajax-api/2.0")


def build_routes(store: Store, artifacts: ArtifactStore, settings: Settings) -> list[Route]:
    """All routes of the protocol. Each endpoint states its right in an attribute `right` (I9)."""
    services = Services(store, artifacts, settings)
    endpoints = (*experiments.ENDPOINTS, *runs.ENDPOINTS, *metrics.ENDPOINTS, *artifacts_api.ENDPOINTS)
    routes = [route for prefix in PREFIXES for route in json_routes(services, f"{prefix}/mlflow", endpoints)]
    routes += artifacts_api.proxy_routes(services, "/api/2.0/mlflow-artifacts/artifacts")
    # Last: these take whatever no route before them took, so that a client is told at once and does not retry.
    return routes + unknown_routes((*PREFIXES, "/api/3.0", "/ajax-api/3.0"))
