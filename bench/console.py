"""The pages of the console over a million jobs: their times, their sizes, and the lines of their code."""

import gzip
import html
import http.client
import re
import statistics
import time
from dataclasses import dataclass

from bench import console_data
from bench.competitors import JOBSVC
from bench.environment import ROOT, BenchError, Environment
from bench.jobsvc_stacks import Jobsvc
from bench.results import Results

READS = 60
"""Number of timed requests for each page, and a sixth as many before them."""

WHOLE, QUICK = 1_000_000, 20_000
PAGES = {
    "overview": "",
    "jobs": "jobs",
    "jobs, refreshed": "jobs?top={newest}",
    "200 jobs": "jobs?limit=200",
    "failed jobs": "jobs?status=FAILED",
    "completed jobs": "jobs?status=COMPLETED",
    "jobs of a type": "jobs?type=CHARGE_CARD",
    "jobs of a type and queue that failed": "jobs?type=CHARGE_CARD&queue=high&status=FAILED",
    "jobs with a tag": "jobs?tag=rare",
    "jobs with an error": "jobs?errorType=CardDeclined",
    "jobs with a payload": "jobs?payload=%7B%22order%22:1%7D",
    "failed jobs with a payload": "jobs?status=FAILED&payload=%7B%22order%22:1%7D",
    "jobs from the middle": "jobs?cursor={middle}",
    "search without a match": "jobs?q=ffffffff0000",
    "failed job": "jobs/{failed}",
    "waiting job": "jobs/{waiting}",
    "failures": "failures",
    "queues": "queues",
    "queue": "queues/low",
    "type": "types/CHARGE_CARD",
    "schedules": "schedules",
    "workers": "workers",
    "new job": "new",
    "webhooks": "webhooks",
}
IDS = {
    "newest": "SELECT id::text FROM jobs ORDER BY id DESC LIMIT 1",
    "middle": "SELECT id::text FROM jobs WHERE id < uuidv7(interval '-10 days') ORDER BY id DESC LIMIT 1",
    "failed": "SELECT id::text FROM jobs WHERE status = 'FAILED' ORDER BY id DESC LIMIT 1",
    "waiting": "SELECT id::text FROM jobs WHERE status = 'PENDING' ORDER BY id DESC LIMIT 1",
}
CODE = ROOT / "jobsvc" / "ui"
VENDORED = "htmx.min.js"


@dataclass(frozen=True)
class Answer:
    """What a request of a page took in ms, and its body."""

    ms: float
    body: bytes

    @property
    def zipped(self) -> int:
        """Bytes of the body as a proxy would send it."""
        return len(gzip.compress(self.body, 6))


def measure(environment: Environment, results: Results, number: int) -> None:
    """All of it, of an API without workers."""
    competitor = Jobsvc(JOBSVC, 0)
    began = time.perf_counter()
    environment.make("console", lambda: console_data.fill(environment.sql, number), competitor.template)
    environment.use("console")
    print(f"  {number:,} jobs: made in {time.perf_counter() - began:.0f} s", flush=True)
    results.notes.append(f"console: {number:,} jobs, {READS} requests a page, one at a time")
    ids = {name: environment.sql(statement)[0][0] for name, statement in IDS.items()}
    _, port = competitor.serve(environment)
    connection = http.client.HTTPConnection("127.0.0.1", port)
    slowest = 0.0
    print(f"  {'page':<40}{'p50 ms':>8}{'p95 ms':>8}{'bytes':>10}{'gzipped':>9}", flush=True)
    for name, path in PAGES.items():
        answers = [_get(connection, f"/ui/{path.format(**ids)}") for _ in range(READS // 6 + READS)][READS // 6 :]
        times = [one.ms for one in answers]
        p50, p95 = statistics.median(times), statistics.quantiles(times, n=20)[18]
        slowest = max(slowest, p95)
        size, zipped = len(answers[-1].body), answers[-1].zipped
        for figure, value in (("p50", p50), ("p95", p95), ("bytes", size), ("gzipped", zipped)):
            results.write(f"console.{figure}", name, value)
        print(f"  {name:<40}{p50:>8.1f}{p95:>8.1f}{size:>10,}{zipped:>9,}", flush=True)
    results.write("console.slowest", JOBSVC, slowest)
    results.write("console.visit", JOBSVC, _first_visit(connection) / 1024)
    results.write("console.lines", JOBSVC, _lines())
    connection.close()
    environment.clear()


def _get(connection: http.client.HTTPConnection, path: str) -> Answer:
    began = time.perf_counter()
    connection.request("GET", path, headers={"Accept": "text/html"})
    reply = connection.getresponse()
    body = reply.read()
    took = 1000 * (time.perf_counter() - began)
    if reply.status != 200:
        raise BenchError(f"{path}: {reply.status}, {body[:500]!r}")
    return Answer(took, body)


def _first_visit(connection: http.client.HTTPConnection) -> int:
    """Print what the overview and its files take, and return the sum of their gzipped bytes."""
    page = _get(connection, "/ui/")
    files = [html.unescape(one) for one in re.findall(r'(?:href|src)="(/ui/static/[^"]+)"', page.body.decode())]
    total = 0
    for name, answer in (("overview", page), *((file, _get(connection, file)) for file in files)):
        name = name.partition("?")[0]
        print(f"  first visit: {name:<43}{len(answer.body):>10,}{answer.zipped:>9,}", flush=True)
        total += answer.zipped
    print(f"  first visit: {'in all, gzipped':<43}{'':>10}{total:>9,}", flush=True)
    return total


def _lines() -> int:
    """Print the lines of the console's code by kind, and return their sum."""
    lines: dict[str, int] = {}
    for path in sorted(CODE.rglob("*")):
        if path.suffix in (".py", ".html", ".css", ".js") and path.name != VENDORED:
            lines[path.suffix] = lines.get(path.suffix, 0) + path.read_text().count("\n")
    print(f"  lines: {', '.join(f'{number:,} {kind}' for kind, number in lines.items())}", flush=True)
    return sum(lines.values())
