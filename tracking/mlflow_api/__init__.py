"""MLflow's REST protocol over our record (D9): one file a resource, mounted where MLflow's clients and UI look for it.

Served is tracking: experiments, runs, metrics, datasets, logged models and artifacts. Everything else answers ENDPOINT_NOT_FOUND at
once.
"""

from starlette.routing import Route

from tracking.artifacts import ArtifactStore
from tracking.mlflow_api import artifacts as artifacts_api
from tracking.mlflow_api import datasets, experiments, histories, logged_models, metrics, runs, server_info
from tracking.mlflow_api.endpoints import Groups, Services, json_routes, unknown_routes
from tracking.settings import Settings
from tracking.store import Store

__all__ = ["build_routes"]

PREFIXES = ("/api/2.0", "/ajax-api/2.0")
NEWER_PREFIXES = ("/api/3.0", "/ajax-api/3.0")

_ENDPOINTS = (
    *experiments.ENDPOINTS,
    *runs.ENDPOINTS,
    *metrics.ENDPOINTS,
    *histories.ENDPOINTS,
    *datasets.ENDPOINTS,
    *logged_models.ENDPOINTS,
    *artifacts_api.ENDPOINTS,
)


def build_routes(store: Store, artifacts: ArtifactStore, settings: Settings) -> list[Route]:
    """All routes of the protocol. Each endpoint states its right in an attribute `right` (I9)."""
    services = Services(store, artifacts, settings, Groups.over(store))
    routes = [route for prefix in PREFIXES for route in json_routes(services, f"{prefix}/mlflow", _ENDPOINTS)]
    routes += json_routes(services, "/ajax-api/2.0/mlflow", histories.UI_ENDPOINTS)
    routes += [route for prefix in NEWER_PREFIXES for route in json_routes(services, f"{prefix}/mlflow", server_info.ENDPOINTS)]
    routes += [route for prefix in PREFIXES for route in artifacts_api.proxy_routes(services, f"{prefix}/mlflow-artifacts")]
    # Last: these take whatever no route before them took, so that a client is told at once and does not retry.
    return routes + unknown_routes((*PREFIXES, *NEWER_PREFIXES))
