"""/healthz, /readyz and /metrics: for whoever watches the service."""

from flask import Blueprint, Response, request
from prometheus_client.exposition import choose_encoder
from redis import RedisError
from sqlalchemy import select

from jobsvc import rqsettings
from jobsvc.api import metrics as measured
from jobsvc.api.auth import needs
from jobsvc.api.describing import Reply, describe
from jobsvc.api.parsing import no_query
from jobsvc.api.replies import HealthReply, ReadinessReply, UpOrDown
from jobsvc.db import transaction
from jobsvc.errors import StoreUnavailable
from jobsvc.models import Job

blueprint = Blueprint("ops", __name__)
blueprint.before_request(no_query)


@blueprint.get("/healthz")
@needs(None)
@describe({200: Reply("It does.", HealthReply)})
def healthz() -> HealthReply:
    """The process is running."""
    return {"status": "ok"}


@blueprint.get("/readyz")
@needs(None)
@describe({200: Reply("They can.", ReadinessReply), 503: Reply("They can't.", ReadinessReply)})
def readyz() -> tuple[ReadinessReply, int]:
    """Jobs can be accepted: 503 without Postgres and its tables; without Redis they can, and run later."""
    postgres = _postgres()
    ready = postgres == "up"
    return {"status": "ok" if ready else "unavailable", "postgres": postgres, "redis": _redis()}, 200 if ready else 503


@blueprint.get("/metrics")
@describe({200: Reply("In Prometheus' text format, or OpenMetrics if that is accepted.", "text/plain")})
def metrics() -> Response:
    """Counters, histograms and gauges, for Prometheus: the same from every process."""
    encode, content_type = choose_encoder(request.headers.get("Accept", ""))
    return Response(encode(measured.registry()), content_type=content_type)


def _postgres() -> UpOrDown:
    try:
        with transaction() as connection:
            connection.execute(select(Job.id).limit(1))
        return "up"
    except StoreUnavailable:
        return "down"


def _redis() -> UpOrDown:
    try:
        rqsettings.probe()
        return "up"
    except RedisError:
        return "down"
