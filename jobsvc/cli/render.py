"""Terminal output of the commands. It loads rich, so the API and the workers must not import it."""

import json
import os
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jobsvc.api.explanation import Explanation
from jobsvc.api.job_types_reply import JobTypeShown
from jobsvc.api.responses import WorkerShown
from jobsvc.cli.poll import Change
from jobsvc.db.models import Job
from jobsvc.durations import format_age, format_duration
from jobsvc.jobs import JobSummary, QueueState, Series, current_time
from jobsvc.jobs.serialize import AttemptShown, JobShown, ScheduleShown
from jobsvc.printable import escape_controls
from jobsvc.states import Status

STYLES = {
    Status.PENDING: "",
    Status.SCHEDULED: "magenta",
    Status.RETRYING: "yellow",
    Status.BLOCKED: "blue",
    Status.PROCESSING: "cyan",
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.CANCELLED: "dim",
}

WIDTH_OF_NO_TERMINAL = 160

CLIENT_TEXTS = ("TYPE", "QUEUE", "DETAIL", "QUEUES", "DESCRIPTION", "HOST")
"""Columns that are shortened first on a narrow terminal."""


def console() -> Console:
    """Return a console on standard output, with a fixed width if that is not a terminal."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_OF_NO_TERMINAL
    return Console(width=width, highlight=False, markup=False, emoji=False)


def is_live() -> bool:
    """Return True if standard output is a terminal that can be redrawn."""
    return sys.stdout.isatty() and not console().is_dumb_terminal


def _safe(text: Any) -> str:
    """Return the text with control characters escaped, so that a job's text can't control the terminal."""
    return escape_controls(str(text).expandtabs(), keep_newlines=True)


def print_jobs(found: Sequence[Job]) -> None:
    """Print a table of jobs."""
    console().print(_job_table(found))


def _job_table(found: Iterable[Job | JobSummary], marked: Collection[UUID] = ()) -> Table:
    """Return a table with a row per job; those in `marked` are bold."""
    table = _table("ID", "STATUS", "TYPE", "QUEUE", "TRY", "AGE", "DETAIL")
    for job in found:
        table.add_row(
            _short(job.id),
            Text(job.status, STYLES[Status(job.status)]),
            _cell(job.type),
            _cell(job.queue),
            f"{job.attempts}/{job.max_attempts}",
            _age(job.created_at),
            _cell(job_detail(job)),
            style="bold" if job.id in marked else "",
        )
    return table


def _table(*names: str) -> Table:
    table = Table(box=None, padding=(0, 1), collapse_padding=True, pad_edge=False, header_style="bold")
    for name in names:
        table.add_column(name, no_wrap=name not in CLIENT_TEXTS, overflow="ellipsis")
    return table


def _short(job_id: UUID | str) -> str:
    """Return the last 8 characters of an id, which are random; the first ones are a time."""
    return str(job_id)[-8:]


def _cell(text: str) -> Text:
    return Text(_safe(" ".join(text.split())), no_wrap=True, overflow="ellipsis")


def job_detail(job: Job | JobSummary) -> str:
    """Return the progress of a running job, else its last error."""
    if job.status == Status.PROCESSING and job.progress:
        return format_progress(job.progress)
    return f"{job.error['type']}: {job.error['message']}"[:300] if job.error else ""


def format_progress(shown: Mapping[str, Any]) -> str:
    """Return the percentage, rounded to 100 only at the end, and the message."""
    percent = shown["percent"]
    rounded = 100 if percent >= 100 else min(round(percent), 99)
    return f"{rounded}% {shown['message'] or ''}".rstrip()


def _age(moment: datetime | str | None) -> str:
    """Return how long ago this time was; the API's spelling of a time will do."""
    if moment is None:
        return ""
    at = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
    return format_age((current_time() - at).total_seconds())


def _until(moment: str) -> str:
    seconds = (datetime.fromisoformat(moment) - current_time()).total_seconds()
    return f"in {format_age(seconds)}" if seconds > 0 else "due"


def format_change(before: JobSummary | None, job: JobSummary) -> str:
    """Return a change as one line: the current time, the job, its previous and its new status."""
    is_moved = before is not None and before.status != job.status
    words = [
        f"{datetime.now():%H:%M:%S}",
        _short(job.id),
        job.type,
        f"{before.status} → {job.status}" if before and is_moved else job.status,
        f"{job.attempts}/{job.max_attempts}",
        job_detail(job),
    ]
    return _safe(" ".join("  ".join(words).splitlines())).rstrip()


def run_live_view(polls: Iterator[tuple[list[JobSummary], list[Change]]]) -> None:
    """Draw each poll over the previous one, latest changes on top, as many jobs as the terminal has lines for."""
    screen = console()
    with Live(console=screen, auto_refresh=False) as view:
        for newest, changes in polls:
            shown = sorted(newest, key=_changed_at, reverse=True)[: max(screen.height - 3, 1)]
            table = _job_table(shown, {job.id for before, job in changes if before})
            table.title, table.title_justify = Text(f"{datetime.now():%H:%M:%S}  Ctrl-C ends"), "left"
            view.update(table, refresh=True)


def _changed_at(job: JobSummary) -> datetime:
    return max(filter(None, (job.created_at, job.started_at, job.finished_at)))


def print_job(job: JobShown, attempts: Sequence[AttemptShown]) -> None:
    """Print a job with its attempts, as the API shows them, without empty fields."""
    screen = console()
    for name, value in job.items():
        if value not in (None, [], {}):
            style = STYLES[Status(job["status"])] if name == "status" else ""
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            if name == "progress" and job["progress"]:
                text = format_progress(job["progress"])
            screen.print(Text(f"{name:<15}", "bold"), Text(_safe(text), style), soft_wrap=True)
    for attempt in attempts:
        times = f"{attempt['startedAt']} to {attempt['finishedAt'] or 'now'}"
        title = f"\nattempt {attempt['number']}: {attempt['outcome'] or 'running'}, {times}, {attempt['worker']}"
        screen.print(Text(_safe(title), "bold"), soft_wrap=True)
        for log in attempt["logs"]:
            screen.print(Text(_safe(f"  {log['time']} {log['level']} {log['message']}")), soft_wrap=True)
        if error := attempt["error"]:
            text = error["traceback"] or f"{error['type']}: {error['message']}"
            screen.print(Text(_safe(text.rstrip()), "red"), soft_wrap=True)


def print_explanation(found: Explanation) -> None:
    """Print a job's status, the reasons for it, and what happens next."""
    screen = console()
    screen.print(Text(found["status"], STYLES[found["status"]]))
    for reason in found["reasons"]:
        screen.print(Text(f"{reason['code']:<15}", "bold"), Text(_safe(reason["detail"])), soft_wrap=True)
    screen.print(Text(f"{'next':<15}", "bold"), Text(_safe(found["next"])), soft_wrap=True)


def print_queues(queues: Sequence[QueueState]) -> None:
    """Print the job counts per queue."""
    table = _table("QUEUE", *Status, "OLDEST")
    for queue in queues:
        counts = [Text(str(queue.counts[name]), STYLES[name] if queue.counts[name] else "dim") for name in Status]
        table.add_row(
            _cell(f"{queue.name} (paused)" if queue.is_paused else queue.name),
            *counts,
            format_duration(queue.oldest_waiting),
        )
    console().print(table)


def print_type_stats(types: Sequence[Series]) -> None:
    """Print the counts and durations per type."""
    screen = console()
    screen.print()
    table = _table("TYPE", "ACCEPTED", "STARTED", "COMPLETED", "FAILED", "RETRIED", "WAIT P50 / P95", "RUN P50 / P95")
    for series in types:
        one = series.whole
        counts = [one.accepted, one.started, one.completed, one.failed, one.retried]
        lengths = [f"{format_duration(it.p50)} / {format_duration(it.p95)}" for it in (one.wait, one.run)]
        table.add_row(_cell(series.type or ""), *map(str, counts), *lengths)
    screen.print(table if types else "No job was accepted, started or ended in this time.")


def print_workers(found: Sequence[WorkerShown]) -> None:
    """Print a table of workers, as the API shows them."""
    table = _table("NAME", "HOST", "PID", "STATE", "QUEUES", "JOBS", "SEEN")
    for one in found:
        texts = (one["name"], one["host"] or "", str(one["pid"] or ""), one["state"], ",".join(one["queues"]))
        table.add_row(*map(_cell, texts), " ".join(map(_short, one["jobs"])), _age(one["lastHeartbeat"]))
    console().print(table if found else "No worker is registered in Redis.")


def print_schedules(found: Sequence[ScheduleShown]) -> None:
    """Print a table of schedules, as the API shows them."""
    table = _table("NAME", "CRON", "TIMEZONE", "TYPE", "NEXT", "LAST")
    for one in found:
        next_run = _until(one["nextRunAt"]) if one["nextRunAt"] else "disabled"
        last_run = f"{_age(one['lastRunAt'])} ago" if one["lastRunAt"] else "never"
        texts = (one["name"], one["cron"], one["timezone"], one["job"].get("type", ""))
        table.add_row(*map(_cell, texts), next_run, last_run)
    console().print(table if found else "There are no schedules.")


def print_types(found: Sequence[JobTypeShown]) -> None:
    """Print a table of job types, as the API shows them."""
    table = _table("NAME", "QUEUE", "TIMEOUT", "RETRIES", "DESCRIPTION")
    for one in found:
        defaults = one["defaults"]
        numbers = f"{defaults['timeout']}s", str(defaults["retry"]["max"])
        table.add_row(_cell(one["name"]), _cell(defaults["queue"]), *numbers, _cell(one["description"] or ""))
    console().print(table)
