"""Schedules: the list, one with its next ticks, and a preview of the ticks of an expression."""

from flask import Response, abort, render_template, request

from jobsvc import jobs
from jobsvc.api.responses import dump_schedule_for_caller
from jobsvc.errors import InvalidInput
from jobsvc.jobs import schedules
from jobsvc.ui import links
from jobsvc.ui.console import blueprint, show


@blueprint.get("/schedules")
def list_schedules() -> Response:
    """Show the schedules."""
    shown = [dump_schedule_for_caller(schedule) for schedule in schedules.every()]
    return show("schedules", "Schedules", links.curl("/schedules"), schedules=shown)


@blueprint.get("/schedules/<path:name>")
def show_schedule(name: str) -> Response:
    """Show a schedule and its next ticks."""
    found = {one.name: one for one in schedules.every()}.get(name)
    if found is None:
        abort(404, f"No schedule has the name {name[:100]!a}.")
    return show(
        "schedule",
        f"Schedule {name}",
        links.curl(f"/schedules/{name}"),
        schedule=dump_schedule_for_caller(found),
        ticks=jobs.next_ticks(found.cron, found.timezone),
    )


@blueprint.get("/ticks")
def preview_ticks() -> str:
    """Return the part of a form that shows the next ticks of the expression and the time zone that it has."""
    cron, timezone = request.args.get("/cron", ""), request.args.get("/timezone") or "UTC"
    try:
        ticks = jobs.next_ticks(cron, timezone)
        return render_template("ui/ticks.html", ticks=ticks, timezone=timezone, cron=cron)
    except InvalidInput as invalid:
        return render_template("ui/ticks.html", error="; ".join(one.detail for one in invalid.problems))
