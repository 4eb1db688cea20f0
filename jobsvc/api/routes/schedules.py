"""/schedules: jobs that are created at the times of a cron expression."""

import re
from typing import Any

from flask import Blueprint, url_for

from jobsvc.api.operation import Operation, Reply
from jobsvc.api.responses import JobIdReply, SchedulesReply, dump_schedule_for_caller
from jobsvc.api.schedule_requests import ScheduleRequest
from jobsvc.api.submit import job_reply, relay
from jobsvc.api.validation import body
from jobsvc.config import NAME
from jobsvc.dispatch.duties import Duty
from jobsvc.errors import InvalidInput, Problem, ScheduleNotFound
from jobsvc.jobs import schedules
from jobsvc.jobs.serialize import ScheduleShown

blueprint = Blueprint("schedules", __name__)


@blueprint.get("/schedules")
@Operation("read", {200: Reply("The schedules, by name.", SchedulesReply)})
def list_schedules() -> SchedulesReply:
    """List the schedules."""
    return {"schedules": [dump_schedule_for_caller(schedule) for schedule in schedules.every()]}


@blueprint.get("/schedules/<name>")
@Operation("read", {200: Reply("The schedule.", ScheduleShown)}, errors=(404,))
def get_schedule(name: str) -> ScheduleShown:
    """Get a schedule."""
    return dump_schedule_for_caller(schedules.get(_known(name)))


@blueprint.put("/schedules/<name>")
@Operation(
    "admin",
    {
        201: Reply("The schedule was created.", ScheduleShown, ("Location",)),
        200: Reply("The schedule was replaced.", ScheduleShown),
    },
    takes=ScheduleRequest,
    examples={
        "Each weekday morning": {
            "cron": "0 8 * * 1-5",
            "timezone": "Europe/Berlin",
            "job": {"type": "TEST_JOB", "payload": {"durationMs": 500}},
        },
    },
)
def put_schedule(name: str) -> tuple[ScheduleShown, int, dict[str, str]]:
    """Create or replace a schedule."""
    if not _is_name(name):
        raise InvalidInput([Problem("", f"the name {name[:100]!a} doesn't match {NAME}")])
    schedule, is_new = schedules.put(body(ScheduleRequest).resolve(name))
    relay().notify(Duty.SCHEDULES)
    headers = {"Location": url_for("schedules.get_schedule", name=name)} if is_new else {}
    return dump_schedule_for_caller(schedule), 201 if is_new else 200, headers


@blueprint.delete("/schedules/<name>")
@Operation("admin", {204: Reply("The schedule was deleted.")}, errors=(404,))
def delete_schedule(name: str) -> tuple[str, int]:
    """Delete a schedule; jobs that it has created stay."""
    schedules.remove(_known(name))
    return "", 204


@blueprint.post("/schedules/<name>/run")
@Operation(
    "admin",
    {
        202: Reply("The job was accepted.", JobIdReply, ("Location",)),
        200: Reply("No job was created: this unfinished one has the uniqueKey.", JobIdReply, ("Location",)),
    },
    errors=(404, 409),
)
def run_schedule(name: str) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Create the job of a schedule now, also if the schedule is disabled."""
    job = schedules.run(_known(name))
    if job.dispatch:
        relay().dispatch([job.dispatch])
    status, reply = job_reply([job])
    return reply, status, {"Location": url_for("jobs.get_job", job_id=job.job_id)}


def _known(name: str) -> str:
    """Return the name if a schedule may have it, so that Postgres can be queried. Raises ScheduleNotFound."""
    if not _is_name(name):
        raise ScheduleNotFound(f"no schedule has the name {name[:100]!a}")
    return name


def _is_name(name: str) -> bool:
    return re.fullmatch(NAME, name) is not None
