"""Webhook deliveries, with the answers of their receivers."""

from flask import Response

from jobsvc import jobs
from jobsvc.api.queries import PageQuery
from jobsvc.api.validation import query
from jobsvc.ui import links
from jobsvc.ui.console import blueprint, show


@blueprint.get("/webhooks")
def list_webhooks() -> Response:
    """Show a page of deliveries, newest first."""
    asked = query(PageQuery)
    deliveries, following = jobs.deliveries(asked.limit, asked.cursor)
    return show(
        "webhooks",
        "Webhooks",
        links.curl("/jobs", {"type": "WEBHOOK"}.items()),
        deliveries=deliveries,
        older=links.with_query(cursor=following) if following else None,
        is_first=asked.cursor is None,
    )
