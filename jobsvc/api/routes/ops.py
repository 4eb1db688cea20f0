"""/healthz, /readyz and /metrics: for whoever watches the service."""

from flask import Blueprint, Response, request
from prometheus_client.exposition import choose_encoder
from redis import RedisError
from sqlalchemy import select

from jobsvc import rqsettings
from jobsvc.api import metrics as measured
from jobsvc.api.auth import needs
from jobsvc.api.parsing import no_query
from jobsvc.db import transaction
from jobsvc.errors import StoreUnavailable
from jobsvc.models import Job

blueprint = Blueprint("ops", __name__)
blueprint.before_request(no_query)


@blueprint.get("/healthz")
@needs(None)
def healthz() -> dict[str, str]:
    """The process is running."""
    return {"status": "ok"}


@blueprint.get("/readyz")
@needs(None)
def readyz() -> tuple[dict[str, str], int]:
    """Jobs can be accepted: 503 without Postgres and its tables; without Redis they can, and run later."""
    states = {"postgres": _postgres(), "redis": _redis()}
    ready = states["postgres"] == "up"
    return {"status": "ok" if ready else "unavailable", **states}, 200 if ready else 503


@blueprint.get("/metrics")
def metrics() -> Response:
    """Counters, histograms and gauges, for Prometheus: the same from every process."""
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(measured.registry()), content_type=content_type)


def _postgres() -> str:
    try:
        with transaction() as connection:
            connection.execute(select(Job.id).limit(1))
        return "up"
    except StoreUnavailable:
        return "down"


def _redis() -> str:
    try:
        rqsettings.probe()
        return "up"
    except RedisError:
        return "down"
