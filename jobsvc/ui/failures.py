"""Failures, grouped by type, error type and first line of the message."""

from flask import Response

from jobsvc import jobs
from jobsvc.jobs import FailureGroup
from jobsvc.ui import charts, links
from jobsvc.ui.console import blueprint, show


@blueprint.get("/failures")
def list_failures() -> Response:
    """Show the groups of the newest failed and retrying jobs."""
    found = jobs.failure_groups()
    return show(
        "failures",
        "Failures",
        links.curl("/jobs", (("status", "FAILED"), ("status", "RETRYING"))),
        groups=[describe(group) for group in found.groups],
        is_complete=found.is_complete,
    )


def describe(group: FailureGroup) -> dict[str, object]:
    """Return what the template `failure_groups.html` shows of a group; `selection`: the list's parameters for it."""
    selection = [("type", group.type), ("errorType", group.error_type), ("error", group.line)]
    return {"group": group, "selection": selection, "spark": charts.stack({"failed": group.bins})}
