"""The tables and plots of a run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pygal
from pygal.style import Style

from bench.competitors import JOBSVC
from bench.goals import Goal
from bench.results import Results

STYLE = Style(background="white", plot_background="white", font_family="sans-serif")
OURS, OTHERS = "#c2572b", "#5b7fa6"


@dataclass(frozen=True)
class Column:
    """A figure of a table: its name in the results, its heading, and how it is printed."""

    figure: str
    heading: str
    digits: int = 0


@dataclass(frozen=True)
class Table:
    """A measurement: one row for each competitor, the medians of the rounds; the first column is drawn."""

    name: str
    title: str
    text: str
    columns: tuple[Column, ...]


def _workers(of: str) -> tuple[Column, ...]:
    return (
        Column(f"{of}.cpu_workers", "CPU s / 1,000: workers", 2),
        Column(f"{of}.cpu_postgres", "Postgres", 2),
        Column(f"{of}.cpu_valkey", "Redis", 2),
        Column(f"{of}.processes", "processes"),
        Column(f"{of}.pss", "memory MB (PSS, all)"),
        Column(f"{of}.largest", "largest (RSS)"),
    )


def _api(of: str) -> tuple[Column, ...]:
    return (
        Column(f"{of}.rate", "jobs/s"),
        Column(f"{of}.p50", "p50 ms", 1),
        Column(f"{of}.p99", "p99 ms", 1),
        Column(f"{of}.queued_rate", "jobs/s until all are in Redis"),
        Column(f"{of}.cpu_api", "CPU s / 1,000: API", 2),
        Column(f"{of}.cpu_postgres", "Postgres", 2),
        Column(f"{of}.cpu_valkey", "Redis", 2),
        Column(f"{of}.pss", "memory MB (PSS, all)"),
        Column(f"{of}.largest", "largest (RSS)"),
    )


TABLES = (
    Table(
        "drain",
        "Drain of jobs that do nothing",
        "Jobs wait, the workers start, and nothing else runs. Each job updates its row as it starts and as it ends.",
        (Column("drain.rate", "jobs/s"), *_workers("drain")),
    ),
    Table(
        "sleep",
        "Drain of jobs that sleep for 10 ms, 50 at once",
        "",
        (Column("sleep.rate", "jobs/s"), *_workers("sleep")),
    ),
    Table("accept", "POST /jobs, 20 connections", "No worker runs.", _api("accept")),
    Table(
        "batch",
        "POST /jobs/batch, 1,000 jobs a request, 4 connections",
        "The Node API writes one INSERT of many rows and calls `addBulk`. The times are a request's.",
        _api("batch"),
    ),
    Table(
        "steady",
        "Steady state: the highest rate at which 99 of 100 posted jobs are completed within 100 ms",
        "20 connections post for 30 s while workers run. A job's time starts when it was to be sent.",
        (Column("steady.rate", "jobs/s"), Column("steady.p50", "p50 ms", 1), Column("steady.p99", "p99 ms", 1)),
    ),
    Table(
        "start",
        "From POST to the handler's first line, one job at a time",
        "",
        (Column("start.p50", "p50 ms", 1), Column("start.p99", "p99 ms", 1)),
    ),
    Table(
        "bytes",
        "What a waiting job takes",
        "All tables with their indexes, and Redis' memory, by the number of jobs.",
        (Column("drain.redis_bytes", "bytes in Redis"), Column("drain.postgres_bytes", "bytes in Postgres")),
    ),
    Table(
        "workflow",
        "A workflow of many jobs",
        "The service alone. All jobs are posted, then the workers start; the time of their start is left out.",
        (
            Column("workflow.rate", "jobs/s, first POST to last end"),
            Column("workflow.posted", "jobs/s, posted"),
            Column("workflow.drained", "jobs/s, run"),
            Column("workflow.transactions", "transactions for 1,000 jobs"),
        ),
    ),
    Table(
        "rate",
        "Jobs under a rate limit",
        "The service alone. All jobs wait; at the ideal rate, a limit's number of them starts every second.",
        (Column("rate.rate", "jobs/s", 1), Column("rate.share", "of the ideal", 3), Column("rate.most", "most in 1 s")),
    ),
    Table(
        "sql",
        "Enqueue in SQL, and by HTTP",
        "The service alone, 20 connections for single jobs and 4 for 1,000 at once. No worker runs.",
        (Column("sql.rate", "jobs/s"), Column("sql.queued_rate", "jobs/s until all are in Redis")),
    ),
    Table(
        "async",
        "Async handlers that sleep for 1 s",
        "One worker, `JOBSVC_CONCURRENCY=1000`.",
        (
            Column("async.seconds", "s", 2),
            Column("async.share", "of the ideal rate", 2),
            Column("async.pss", "memory MB (PSS, all)"),
            Column("async.largest", "largest (RSS)"),
        ),
    ),
    Table("waiting", "Drain while many jobs wait", "The service alone.", (Column("growth.waiting_rate", "jobs/s"),)),
    Table(
        "rows",
        "Reading many rows",
        "The service alone, medians in ms, the requests as a client sees them.",
        tuple(
            Column(f"growth.{what}", what, 1)
            for what in (
                *("the newest 50", "the newest 200", "50 that failed", "50 of a type and queue", "50 with a tag"),
                *("50 from the middle", "a job", "a sweep"),
            )
        ),
    ),
    Table(
        "console",
        "Pages of the console",
        "The service alone, a million jobs in the table, the requests as a client sees them, one at a time.",
        (
            Column("console.p50", "p50 ms", 1),
            Column("console.p95", "p95 ms", 1),
            Column("console.bytes", "bytes"),
            Column("console.gzipped", "gzipped"),
        ),
    ),
    Table(
        "memory",
        "Memory of the workers after many jobs",
        "The service alone, MB.",
        (Column("growth.memory_pss", "PSS, all processes"), Column("growth.memory_largest", "largest (RSS)")),
    ),
)


def goals_as_rows(goals: Sequence[Goal], results: Results) -> list[tuple[str, ...]]:
    """Each goal, what was asked, what was seen, and whether that is enough."""
    return [(goal.what, goal.asked, *goal.assess(results)) for goal in goals]


def goals_as_text(goals: Sequence[Goal], results: Results) -> str:
    """The goals for a terminal."""
    rows = goals_as_rows(goals, results)
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


def write(folder: Path, results: Results, goals: Sequence[Goal], command: str, describe: Sequence[str]) -> None:
    """RESULTS.md, and a plot of each table that has figures."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"# Results of `make bench`\n\n`{command}`:",
        "every figure is from this one run, on one machine and the same servers, each competitor in turn, in reverse",
        "order every second round. Tables show medians; a ratio is the median of the rounds' ratios.",
        "",
        *(f"- {fact}" for fact in [*describe, *results.notes]),
        "",
        "## Reached, and not",
        *_markdown(("", "asked", "seen", ""), goals_as_rows(goals, results)),
    ]
    for table in TABLES:
        names = list(dict.fromkeys(name for column in table.columns for name in results.figures(column.figure)))
        if not names:
            continue
        rows = [(name, *(_cell(results, column, name) for column in table.columns)) for name in names]
        lines += [
            "",
            f"## {table.title}",
            *([table.text] if table.text else []),
            "",
            f"![{table.title}]({table.name}.svg)",
        ]
        lines += _markdown(("", *(column.heading for column in table.columns)), rows)
        (folder / f"{table.name}.svg").write_bytes(_plot(results, table, names))
    (folder / "RESULTS.md").write_text("\n".join(lines) + "\n")


def _cell(results: Results, column: Column, name: str) -> str:
    return f"{results.median(column.figure, name):,.{column.digits}f}" if results.has(column.figure, name) else "–"


def _markdown(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return ["", _row(heading), "|---|" + "---:|" * (len(heading) - 1), *(_row(row) for row in rows)]


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _plot(results: Results, table: Table, names: Sequence[str]) -> bytes:
    """Bars: of the first column's competitors, or of all columns where the rows are the service's own."""
    grouped = table.name in ("rows", "bytes", "start", "memory")
    columns = table.columns if grouped else table.columns[:1]
    chart = pygal.HorizontalBar(
        style=STYLE,
        title=table.title,
        x_title=None if grouped else columns[0].heading,
        show_legend=grouped,
        legend_at_bottom=True,
        js=[],
        print_values=True,
        print_values_position="top",
        height=120 + 32 * len(names) * len(columns),
        disable_xml_declaration=False,
    )
    chart.x_labels = list(reversed(names))
    for column in columns:
        chart.add(column.heading, [_bar(results, column, name, grouped) for name in reversed(names)])
    return chart.render()


def _bar(results: Results, column: Column, name: str, grouped: bool) -> dict[str, object] | None:
    if not results.has(column.figure, name):
        return None
    bar: dict[str, object] = {"value": results.median(column.figure, name), "label": name}
    bar["formatter"] = lambda value: f"{value:,.{column.digits}f}"
    if not grouped:
        bar["color"] = OURS if name == JOBSVC else OTHERS
    return bar
