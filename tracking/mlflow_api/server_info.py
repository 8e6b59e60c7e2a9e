"""`server-info`: what MLflow 3's clients ask about a server before they use what not every server has."""

from typing import Final

from msgspec import Struct

from tracking.mlflow_api.endpoints import READ, Caller, Endpoint


class NoQuestion(Struct, frozen=True):
    """A query that asks nothing in particular."""


class Features(Struct, frozen=True):
    """What not every server of this version has."""

    gateway: bool = False


class ServerInfo(Struct, frozen=True):
    """What this server has."""

    store_type: str = "SqlStore"
    workspaces_enabled: bool = False
    trace_archival_enabled: bool = False
    multipart_uploads_enabled: bool = False
    multipart_downloads_enabled: bool = False
    presigned_upload_run_id_supported: bool = False
    presigned_upload_model_id_supported: bool = False
    features_enabled: Features = Features()


def get_server_info(_: Caller, __: NoQuestion) -> ServerInfo:
    """What this server has."""
    return ServerInfo()


ENDPOINTS: Final = (Endpoint("GET", "/server-info", READ, NoQuestion, get_server_info),)
