"""Terminal output of `flask jobs`. It loads rich, so the API and the workers must not import it."""

import json
import os
import re
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

from rich.console import Console
from rich.live import Live
from rich.table import Table
from rich.text import Text

from jobsvc.cli.follow import Move
from jobsvc.db.models import Job
from jobsvc.jobs import JobSummary, QueueState, TypeStats, current_time
from jobsvc.states import Status

STYLES = {
    Status.PENDING: "",
    Status.SCHEDULED: "magenta",
    Status.RETRYING: "yellow",
    Status.PROCESSING: "cyan",
    Status.COMPLETED: "green",
    Status.FAILED: "red",
    Status.CANCELLED: "dim",
}

WIDTH_OF_NO_TERMINAL = 160

_CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def console() -> Console:
    """Return a console on standard output, with a fixed width if that is not a terminal."""
    width = None if sys.stdout.isatty() or "COLUMNS" in os.environ else WIDTH_OF_NO_TERMINAL
    return Console(width=width, highlight=False, markup=False, emoji=False)


def is_live() -> bool:
    """Return True if standard output is a terminal that can be redrawn."""
    return sys.stdout.isatty() and not console().is_dumb_terminal


def clean(text: Any) -> str:
    """Return the text with control characters escaped: the text of a job must not control the terminal."""
    return _CONTROLS.sub(lambda found: f"\\x{ord(found[0]):02x}", str(text))


def table(found: Iterable[Job | JobSummary], marked: Collection[UUID] = ()) -> Table:
    """Return a table with a row per job; those in `marked` are bold."""
    grid = _grid("ID", "STATUS", "TYPE", "QUEUE", "TRY", "AGE", "SAYS")
    now = current_time()
    for job in found:
        grid.add_row(
            str(job.id),
            Text(job.status, STYLES[Status(job.status)]),
            _cell(job.type),
            _cell(job.queue),
            f"{job.attempts}/{job.max_attempts}",
            span((now - job.created_at).total_seconds()),
            _cell(says(job)),
            style="bold" if job.id in marked else "",
        )
    return grid


def _grid(*names: str) -> Table:
    grid = Table(box=None, padding=(0, 1), collapse_padding=True, pad_edge=False, header_style="bold")
    for name in names:
        # On a narrow terminal, texts from clients are shortened first.
        grid.add_column(name, no_wrap=name not in ("TYPE", "QUEUE", "SAYS"), overflow="ellipsis")
    return grid


def _cell(text: str) -> Text:
    return Text(clean(" ".join(text.split())), no_wrap=True, overflow="ellipsis")


def says(job: Job | JobSummary) -> str:
    """Return the progress of a running job, else its last error."""
    if job.status == Status.PROCESSING and job.progress:
        return progress(job.progress)
    return f"{job.error['type']}: {job.error['message']}"[:300] if job.error else ""


def progress(shown: Mapping[str, Any]) -> str:
    """Return the percentage, rounded to 100 only at the end, and the message."""
    percent = shown["percent"]
    rounded = 100 if percent >= 100 else min(round(percent), 99)
    return f"{rounded}% {shown['message'] or ''}".rstrip()


def span(seconds: float) -> str:
    """Return seconds in short form: 59s, 59m, 23h, 400d."""
    for size, unit in ((86400, "d"), (3600, "h"), (60, "m")):
        if seconds >= size:
            return f"{seconds // size:.0f}{unit}"
    return f"{max(seconds, 0):.0f}s"


def line(before: JobSummary | None, job: JobSummary) -> str:
    """Return a change as one line: the current time, the job, its previous and its new status."""
    moved = f"{before.status} → {job.status}" if before and before.status != job.status else job.status
    words = [
        f"{datetime.now():%H:%M:%S}",
        str(job.id),
        job.type,
        moved,
        f"{job.attempts}/{job.max_attempts}",
        says(job),
    ]
    return clean(" ".join("  ".join(words).splitlines())).rstrip()


def live(looks: Iterator[tuple[list[JobSummary], list[Move]]]) -> None:
    """Draw each poll over the previous one, latest changes on top, as many jobs as the terminal holds."""
    screen = console()
    with Live(console=screen, auto_refresh=False) as view:
        for latest, moves in looks:
            shown = sorted(latest, key=_last_move, reverse=True)[: max(screen.height - 3, 1)]
            drawn = table(shown, {job.id for before, job in moves if before})
            drawn.title, drawn.title_justify = Text(f"{datetime.now():%H:%M:%S}  Ctrl-C ends"), "left"
            view.update(drawn, refresh=True)


def _last_move(job: JobSummary) -> datetime:
    return max(filter(None, (job.created_at, job.started_at, job.finished_at)))


def show(job: Mapping[str, Any], attempts: Sequence[Mapping[str, Any]]) -> None:
    """Print a job with its attempts, as the API shows them, without empty fields."""
    screen = console()
    for name, value in job.items():
        if value not in (None, [], {}):
            style = STYLES[Status(value)] if name == "status" else ""
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            text = progress(value) if name == "progress" else text
            screen.print(Text(f"{name:<15}", "bold"), Text(clean(text), style), soft_wrap=True)
    for attempt in attempts:
        times = f"{attempt['startedAt']} to {attempt['finishedAt'] or 'now'}"
        title = f"\nattempt {attempt['number']}: {attempt['outcome'] or 'runs'}, {times}, {attempt['worker']}"
        screen.print(Text(clean(title), "bold"), soft_wrap=True)
        for log in attempt["logs"]:
            screen.print(Text(clean(f"  {log['time']} {log['level']} {log['message']}")), soft_wrap=True)
        if error := attempt["error"]:
            told = error["traceback"] or f"{error['type']}: {error['message']}"
            screen.print(Text(clean(told.rstrip()), "red"), soft_wrap=True)


def stats(queues: Sequence[QueueState], paces: Sequence[TypeStats], minutes: int) -> None:
    """Print the job counts per queue, and the rates and durations per type."""
    screen = console()
    counted = list(queues[0].counts) if queues else []
    grid = _grid("QUEUE", *counted, "WAITS FOR")
    for one in queues:
        oldest = "" if one.oldest_waiting is None else span(one.oldest_waiting)
        numbers = [Text(str(one.counts[name]), STYLES[name] if one.counts[name] else "dim") for name in counted]
        name = _cell(f"{one.name} (paused)" if one.is_paused else one.name)
        grid.add_row(name, *numbers, oldest)
    screen.print(grid)
    grid = _grid("TYPE", "STARTED", "COMPLETED", "FAILED", "MEAN", "LONGEST")
    for pace in paces:
        rates = [f"{count / minutes:.4g}/min" for count in (pace.started, pace.completed, pace.failed)]
        lengths = ["" if length is None else f"{length:.3f}s" for length in (pace.mean, pace.longest)]
        grid.add_row(_cell(pace.type), *rates, *lengths)
    screen.print()
    screen.print(grid if paces else f"Nothing moved in the last {minutes} min.")
