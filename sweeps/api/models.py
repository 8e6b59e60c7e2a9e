"""Registered models, their versions and aliases."""

from sweeps.api.present import model_shape, version_shape
from sweeps.api.rights import Right
from sweeps.api.routing import Body, Routes, Services, Use, parse_body
from sweeps.api.shapes import SCHEMA, AliasBody, ModelAnswer, ModelEntry, ModelList, RegisterBody, VersionCreated
from sweeps.api.sizes import size_of
from sweeps.api.sweeps import best_trial
from sweeps.bounds import why_outside
from tracking.errors import InvalidValue
from tracking.records import RegisteredModel, Run

routes = Routes("models")


@routes.post("/models", Right.WRITE, answers=VersionCreated, body=RegisterBody, status=201)
def register_model(services: Use, body: Body) -> VersionCreated:
    """Register a sweep's best trial, or one run, as a new version of a model."""
    asked = parse_body(body, RegisterBody)
    artifact = asked.get("artifact", "model")
    if what := why_outside(artifact, "the run's artifacts"):
        raise InvalidValue(f"Artifact {artifact!r} {what}.", hint="Name it as the run logged it, such as model or checkpoints/best.pt.")
    version = services.store.registry.register(
        asked["model"],
        run=_winner(services, asked),
        artifact=artifact,
        alias=asked.get("alias"),
        description=asked.get("description", ""),
    )
    return VersionCreated(schema=SCHEMA, **version_shape(version, size_of(services, version)))


def _winner(services: Services, asked: RegisterBody) -> Run:
    sweep_ref, run_ref = asked.get("sweep"), asked.get("run")
    if (sweep_ref is None) == (run_ref is None):
        raise InvalidValue("Name either a sweep or a run.")
    if run_ref is not None:
        return services.store.runs.resolve(run_ref)
    sweep = services.store.sweeps.get(str(sweep_ref))
    return services.store.runs.get(best_trial(services, sweep).run_id)


@routes.get("/models", Right.READ, answers=ModelList)
def list_models(services: Use) -> ModelList:
    """All registered models."""
    return ModelList(schema=SCHEMA, models=[_shape(services, model) for model in services.store.registry.models()])


@routes.get("/models/{name}", Right.READ, answers=ModelAnswer)
def get_model(services: Use, name: str) -> ModelAnswer:
    """One registered model with its versions."""
    return ModelAnswer(schema=SCHEMA, **_shape(services, services.store.registry.model(name)))


@routes.post("/models/{name}/aliases", Right.WRITE, answers=ModelAnswer, body=AliasBody)
def set_alias(services: Use, name: str, body: Body) -> ModelAnswer:
    """Let an alias name a version."""
    asked = parse_body(body, AliasBody)
    services.store.registry.set_alias(name, asked["alias"], asked["version"])
    return ModelAnswer(schema=SCHEMA, **_shape(services, services.store.registry.model(name)))


def _shape(services: Services, model: RegisteredModel) -> ModelEntry:
    return model_shape(model, lambda version: size_of(services, version))
