"""/schedules: jobs that are created at the times of a cron expression."""

import re
from typing import Any

from flask import Blueprint, url_for

from jobsvc.api.auth import needs
from jobsvc.api.describing import Reply, describe
from jobsvc.api.requests import ScheduleRequest
from jobsvc.api.responses import JobIdReply, SchedulesReply
from jobsvc.api.showing import dump_schedule_for_caller
from jobsvc.api.submit import relay
from jobsvc.api.validation import body, no_body, no_query
from jobsvc.config import NAME
from jobsvc.dispatch.duties import Duty
from jobsvc.errors import InvalidInput, Problem, ScheduleNotFound
from jobsvc.jobs import schedules
from jobsvc.jobs.serialize import ScheduleShown

blueprint = Blueprint("schedules", __name__)
blueprint.before_request(no_query)


@blueprint.get("/schedules")
@describe({200: Reply("The schedules.", SchedulesReply)})
def list_schedules() -> SchedulesReply:
    """Show all schedules, by name."""
    return {"schedules": [dump_schedule_for_caller(schedule) for schedule in schedules.every()]}


@blueprint.get("/schedules/<name>")
@describe({200: Reply("The schedule.", ScheduleShown)}, errors=(404,))
def show_schedule(name: str) -> ScheduleShown:
    """Show a schedule."""
    return dump_schedule_for_caller(schedules.get(_known(name)))


@blueprint.put("/schedules/<name>")
@needs("admin")
@describe(
    {201: Reply("A new schedule.", ScheduleShown, ("Location",)), 200: Reply("It was there before.", ScheduleShown)},
    takes=ScheduleRequest,
)
def put_schedule(name: str) -> tuple[ScheduleShown, int, dict[str, str]]:
    """Make a schedule, or put another one in its place."""
    if not _is_name(name):
        raise InvalidInput([Problem("", f"the name {name[:100]!a} doesn't fit {NAME}")])
    schedule, is_new = schedules.put(body(ScheduleRequest).resolve(name))
    relay().notify(Duty.SCHEDULES)
    headers = {"Location": url_for("schedules.show_schedule", name=name)} if is_new else {}
    return dump_schedule_for_caller(schedule), 201 if is_new else 200, headers


@blueprint.delete("/schedules/<name>")
@needs("admin")
@describe({204: Reply("It is gone.")}, errors=(404,))
def delete_schedule(name: str) -> tuple[str, int]:
    """Delete a schedule; the jobs that it made stay."""
    no_body()
    schedules.remove(_known(name))
    return "", 204


@blueprint.post("/schedules/<name>/run")
@needs("admin")
@describe(
    {
        202: Reply("Stored; it will be run.", JobIdReply, ("Location",)),
        200: Reply("The unfinished job that has the uniqueKey.", JobIdReply, ("Location",)),
    },
    errors=(404,),
)
def run_schedule(name: str) -> tuple[dict[str, Any], int, dict[str, str]]:
    """Make the schedule's job now, whether it is enabled or not. 200 when its unique key is taken."""
    no_body()
    job = schedules.run(_known(name))
    if job.dispatch:
        relay().dispatch([job.dispatch])
    status = 202 if job.dispatch else 200
    return {"jobId": str(job.job_id)}, status, {"Location": url_for("jobs.show", job_id=job.job_id)}


def _known(name: str) -> str:
    """Return the name if a schedule may have it, so that Postgres can be queried. Raises ScheduleNotFound."""
    if not _is_name(name):
        raise ScheduleNotFound(f"no schedule has the name {name[:100]!a}")
    return name


def _is_name(name: str) -> bool:
    return re.fullmatch(NAME, name) is not None
