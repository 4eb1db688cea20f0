"""`flask jobs …`, run as people and scripts run it: a process with arguments, pipes and terminals."""

import contextlib
import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import uuid
from collections.abc import Callable, Iterator
from typing import Any
from uuid import UUID

import pytest
import redis

from jobsvc import jobs
from jobsvc.jobs.serialize import dump_attempts, dump_job
from jobsvc.states import Outcome
from tests.integration.factories import outcome, sql, started, submit
from tests.support import servers
from tests.support.launcher import ROOT, run_program
from tests.support.service import eventually

QUEUE = "terminal"  # no worker serves it
FLASK = (sys.executable, "-m", "flask", "--app", "wsgi", "jobs")
ENV = {"JOBSVC_QUEUES": f"{QUEUE},default", "COLUMNS": "120"}

# A relay that kept running would log that Redis is unavailable.
QUIET = {"JOBSVC_QUEUES": QUEUE, "TERM": "xterm", "REDIS_URL": "redis://127.0.0.1:1/0", "JOBSVC_SWEEP_SECONDS": "1"}


def cli(*arguments: str | bytes, env: dict[str, str] | None = None, say: str = "") -> subprocess.CompletedProcess[str]:
    return run_program(*FLASK, *arguments, env={**ENV, **(env or {})}, say=say)


def answer(*arguments: str, **more: Any) -> str:
    """Return the output of a command that must succeed and write nothing to stderr."""
    done = cli(*arguments, **more)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def failed_job(message: str = "no", **changes: Any) -> UUID:
    one = started(queue=QUEUE, retry_intervals=[], **changes)
    log = {"time": "2026-11-24T12:00:00.000Z", "level": "INFO", "message": "so far so good"}
    end = outcome(one, Outcome.FAILED, logs=[log])
    jobs.finish([type(end)(**{**vars(end), "failure": jobs.Failure("ValueError", message, f"Traceback: {message}")})])
    return one.job_id


def completed_job(**changes: Any) -> UUID:
    one = started(queue=QUEUE, **changes)
    jobs.finish([outcome(one, Outcome.COMPLETED, result={"n": 1})])
    return one.job_id


def status(job_id: UUID) -> str:
    return jobs.get(job_id).status


@pytest.fixture
def tag() -> str:
    """A tag that no other test uses."""
    return str(uuid.uuid4())


class Running:
    """A command that goes on, its standard output a pipe or a terminal, read as it comes."""

    def __init__(self, *arguments: str, terminal: bool = False, command: str = "") -> None:
        self._read, write = pty.openpty() if terminal else os.pipe()
        if terminal:
            fcntl.ioctl(write, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 120, 0, 0))
        self.process = subprocess.Popen(
            ["sh", "-c", command, "sh", *FLASK, *arguments] if command else [*FLASK, *arguments],
            cwd=ROOT,
            env={name: value for name, value in {**os.environ, **QUIET}.items() if name not in ("COLUMNS", "LINES")},
            stdin=write if terminal else subprocess.DEVNULL,
            stdout=write,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=(lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)) if terminal else None,
        )
        os.close(write)
        self.raw = b""
        self._reader = threading.Thread(target=self._collect)
        self._reader.start()

    def _collect(self) -> None:
        with contextlib.suppress(OSError):  # so ends a terminal that all others have closed
            while piece := os.read(self._read, 65536):
                self.raw += piece
        os.close(self._read)

    @property
    def output(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.raw.decode())

    def type(self, keys: bytes) -> None:
        os.write(self._read, keys)

    def wait(self) -> int:
        code = self.process.wait(30)
        self._reader.join(10)
        return code

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait()


@pytest.fixture
def run() -> Iterator[Callable[..., Running]]:
    running_commands: list[Running] = []

    def begin(*arguments: str, **more: Any) -> Running:
        running_commands.append(Running(*arguments, **more))
        return running_commands[-1]

    yield begin
    for one in running_commands:
        one.close()


def test_list_as_json_equals_the_api(tag: str) -> None:
    ids = [submit(queue=QUEUE, tags=[tag]), failed_job(tags=[tag], type="OTHER"), completed_job(tags=[tag, "x"])]
    for options, expected in [
        ([], [2, 1, 0]),
        (["--limit", "2"], [2, 1]),
        (["--status", "FAILED", "--status", "pending"], [1, 0]),
        (["--type", "OTHER", "--queue", QUEUE, "--after", "1h"], [1]),
        (["--tag", "x", "--before", "2999-01-01T00:00:00Z"], [2]),
        (["--before", "1h"], []),
        (["--after", "2999-01-01"], []),
    ]:
        shown = objects(answer("list", "--tag", tag, "--json", *options))
        assert shown == [dump_job(jobs.get(ids[n])) for n in expected], options


def test_list_spans_pages_and_ends_quietly_on_a_closed_pipe(tag: str, run: Callable[..., Running]) -> None:
    made = jobs.submit([jobs.NewJob("TEST_JOB", QUEUE, {"fill": "x" * 500}, 180, [], tags=[tag])] * 450)
    shown = objects(answer("list", "--tag", tag, "--json", "--limit", "430"))
    assert [one["id"] for one in shown] == [str(one.job_id) for one in reversed(made)][:430]
    for options in (["--json"], []):
        head = run("list", "--tag", tag, "--limit", "430", *options, command='"$@" | head -1')
        assert head.wait() == 0
        assert len(head.output.splitlines()) == 1, head.output


def test_table_fits_the_terminal(tag: str) -> None:
    hostile = failed_job("a\nb\x1b[2J[red]" + "x" * 300, tags=[tag], type="T" * 60)
    wide, narrow = (answer("list", "--tag", tag, env={"COLUMNS": width}).splitlines() for width in ("120", "50"))
    assert [wide[0].split()[0], len(wide), len(narrow)] == ["ID", 2, 2]
    assert wide[1].startswith(f"{str(hostile)[-8:]} FAILED ")
    assert " 1/1 " in wide[1]
    assert r"ValueError: a b\x1b[2J[red]x" in wide[1]
    assert max(map(len, wide)) <= 120
    assert max(map(len, narrow)) <= 50


def test_show_prints_the_job_and_its_attempts(tag: str) -> None:
    job_id = failed_job("it \x1b[31mbroke", tags=[tag])
    [whole] = objects(answer("show", str(job_id), "--json"))
    assert whole == {"job": dump_job(jobs.get(job_id)), "attempts": dump_attempts(*jobs.history(job_id))}
    text = answer("show", str(job_id))
    for part in (
        str(job_id),
        "FAILED",
        tag,
        "attempt 1: failed",
        "INFO so far so good",
        r"Traceback: it \x1b[31mbroke",
    ):
        assert part in text
    assert "\x1b" not in text


def test_retry_by_id_reports_jobs_that_cannot_be_retried() -> None:
    failed, done, unknown = failed_job(), completed_job(), uuid.uuid4()
    ended = cli("retry", str(done), str(unknown), str(failed), str(failed))
    assert (ended.returncode, ended.stdout) == (1, "retry: 1 job\n")
    first, second = ended.stderr.splitlines()
    assert first.startswith(f"Error: {done}: the job was COMPLETED; only one that is FAILED or CANCELLED")
    assert second == f"Error: {unknown}: no job has the id {unknown}"
    assert status(failed) == "PENDING"
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:  # before the process ended, and once
        assert client.lrange(f"rq:queue:jobsvc.{QUEUE}", 0, -1).count(str(failed).encode()) == 1


def test_cancelled_job_is_removed_from_rq() -> None:
    job_id = failed_job()
    answer("retry", str(job_id))
    assert answer("cancel", str(job_id), "--json") == '{"count":1}\n'
    assert status(job_id) == "CANCELLED"
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        assert client.lrange(f"rq:queue:jobsvc.{QUEUE}", 0, -1).count(str(job_id).encode()) == 0


def test_bulk_actions_ask_for_confirmation(tag: str) -> None:
    waits, runs, failed = submit(queue=QUEUE, tags=[tag]), started(queue=QUEUE, tags=[tag]), failed_job(tags=[tag])
    sql("UPDATE jobs SET lease_expires_at = now() + interval '1 h' WHERE id = :id", id=runs.job_id)
    declined = cli("cancel", "--tag", tag, say="n\n")
    assert (declined.returncode, status(waits)) == (1, "PENDING")
    assert "cancel 2 jobs? [y/N]" in declined.stderr
    agreed = cli("cancel", "--tag", tag, say="y\n")
    assert (agreed.returncode, agreed.stdout) == (0, "cancel: 2 jobs\n")
    assert (status(waits), status(runs.job_id), status(failed)) == ("CANCELLED", "PROCESSING", "FAILED")
    assert jobs.get(runs.job_id).cancel_requested_at
    assert cli("retry", "--tag", tag, "--status", "FAILED").returncode == 1  # no terminal, so no answer
    assert answer("retry", "--tag", tag, "--status", "FAILED", "--yes", "--json") == '{"count":1}\n'
    assert (status(waits), status(failed)) == ("CANCELLED", "PENDING")


def test_empty_selection_is_reported_without_a_question(tag: str) -> None:
    completed_job(tags=[tag])
    assert answer("cancel", "--tag", tag) == "cancel: no job matches\n"
    assert answer("retry", "--tag", tag, "--yes") == "retry: no job matches\n"


def test_running_job_shows_a_rounded_percentage(tag: str) -> None:
    one = started(queue=QUEUE, tags=[tag])
    progress = json.dumps({"percent": 13.333333333333334, "message": "step 8 of 60"})
    sql("UPDATE jobs SET progress = CAST(:progress AS jsonb) WHERE id = :id", id=one.job_id, progress=progress)
    assert " 13% step 8 of 60" in answer("list", "--tag", tag)


WRONG: list[list[str | bytes]] = [
    ["cancel", "--yes"],
    ["cancel", "--yes", "--type", ""],
    ["retry", "--yes", "--tag", "x" * 256],
    ["retry", str(UUID(int=1)), "--type", "TEST_JOB"],
    ["retry", "12"],
    ["delete"],
    ["delete", "--yes", "--error", "x" * 201],
    ["delete", "--yes", "--error-type", ""],
    ["delete", "--yes", "--payload", "{}"],
    ["list", "--payload", "[]"],
    ["list", "--payload", '{"a": 1, "a": 2}'],
    ["list", "--payload", '{"a": "\\u0000"}'],
    ["list", "--payload", b'{"a": "\xff"}'],
    ["list", "--depends-on", "x"],
    ["list", "--status", "NOPE"],
    ["list", "--after", "yesterday"],
    ["list", "--after", "99999999999d"],
    ["list", "--after", "2026-01-01T00:00+05:60"],
    ["list", "--before", "9999-12-31T23:59:59"],
    ["list", "--limit", "0"],
    ["list", "--queue", b"\xff"],
    ["show"],
]

# One process for all of them, since it takes seconds to start.
IN_TURN = """
import json, sys
from wsgi import app

for given in sys.argv[1:]:
    with app.app_context():
        ended = app.test_cli_runner().invoke(args=["jobs", *json.loads(given)])
    print(json.dumps([ended.exit_code, ended.stdout, ended.stderr]))
"""


def test_wrong_usage_exits_with_2() -> None:
    given = [json.dumps([os.fsdecode(argument) for argument in arguments]) for arguments in WRONG]
    done = run_program(sys.executable, "-c", IN_TURN, *given, env=ENV)
    assert len(done.stdout.splitlines()) == len(WRONG), done.stderr
    for arguments, line in zip(WRONG, done.stdout.splitlines(), strict=True):
        code, out, err = json.loads(line)
        assert (code, out) == (2, ""), arguments
        assert err.splitlines()[-1].startswith("Error: "), arguments
        assert "Traceback" not in err


@pytest.mark.parametrize("command", [["list"], ["tail"], ["stats"], ["cancel", "--type", "NONE", "--yes"]])
def test_unavailable_postgres_is_one_line(command: list[str]) -> None:
    reported = cli(*command, env={"DATABASE_URL": "postgresql://unknown@127.0.0.1:1/none"})
    assert (reported.returncode, reported.stdout) == (1, "")
    assert "Error: Postgres can't be reached; try again soon: " in reported.stderr


def test_errors_are_one_line() -> None:
    url, name = os.environ["DATABASE_URL"], f"empty_{uuid.uuid4().hex}"
    servers.sql(url, f"CREATE DATABASE {name} TEMPLATE template0")
    no_tables = f"{url.rpartition('/')[0]}/{name}"
    unknown = str(uuid.uuid4())
    for arguments, env, line in [
        (
            ["list"],
            {"DATABASE_URL": no_tables},
            "Error: The tables are missing, or older than this program; run `jobsvc migrate`",
        ),
        (["list"], {"JOBSVC_SWEEP_SECONDS": "soon"}, "jobsvc: JOBSVC_SWEEP_SECONDS: "),
        (["show", unknown], {}, f"Error: no job has the id {unknown}"),
    ]:
        reported = cli(*arguments, env=env)
        assert (reported.returncode, reported.stdout, len(reported.stderr.splitlines())) == (1, "", 1), reported.stderr
        assert reported.stderr.startswith(line)


def test_without_redis_a_retried_job_is_dispatched_by_a_sweep() -> None:
    job_id = failed_job()
    done = cli("retry", str(job_id), env={"REDIS_URL": "redis://127.0.0.1:1/0"})
    assert (done.returncode, done.stdout) == (0, "retry: 1 job\n")
    assert "Redis: unavailable, jobs wait until it is available again" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    # Undone; or dispatched already by another process's sweep.
    assert jobs.get(job_id).dispatched_at != jobs.get(job_id).due_at


def test_tail_prints_one_line_for_each_change(run: Callable[..., Running]) -> None:
    before = failed_job()
    plain, as_json = run("tail", "--limit", "500"), run("tail", "--limit", "500", "--json")
    for one in (plain, as_json):
        eventually(lambda one=one: str(before)[-8:] in one.output, 30)
    one = started(queue=QUEUE, type="TAILED")
    job_id = str(one.job_id)[-8:]
    for tail in (plain, as_json):
        eventually(lambda tail=tail: job_id in tail.output)
    jobs.finish([outcome(one, Outcome.FAILED)])
    for tail in (plain, as_json):
        eventually(lambda tail=tail: "ValueError" in tail.output.partition(job_id)[2])
        tail.process.send_signal(signal.SIGINT)
        assert tail.wait() == 0, tail.output
        assert "Traceback" not in tail.output
    lines = [line.split("  ", 3) for line in plain.output.splitlines() if job_id in line]
    assert [(type_, rest) for _, _, type_, rest in lines] == [
        ("TAILED", "PROCESSING  1/4"),
        ("TAILED", "PROCESSING → RETRYING  1/4  ValueError: no"),
    ]
    moves = [move for move in objects(as_json.output) if move["id"] == str(one.job_id)]
    assert [(move["before"], move["status"]) for move in moves] == [(None, "PROCESSING"), ("PROCESSING", "RETRYING")]


def test_tail_ends_on_a_closed_pipe(run: Callable[..., Running], tag: str) -> None:
    failed_job()
    head = run("tail", "--json", command='"$@" | head -1')
    eventually(lambda: head.output, 30)
    eventually(lambda: submit(queue=QUEUE) and head.process.poll() is not None, pause=0.3)
    assert head.wait() == 0
    assert len(head.output.splitlines()) == 1, head.output


def test_tail_draws_a_live_view_on_a_terminal(run: Callable[..., Running]) -> None:
    one = started(queue=QUEUE, type="DRAWN")
    view = run("tail", terminal=True)
    row = rf"{str(one.job_id)[-8:]} +(\w+) +DRAWN +{QUEUE} +1/4"
    eventually(lambda: re.search(row, view.output), 30)
    jobs.finish([outcome(one, Outcome.COMPLETED)])
    eventually(lambda: re.findall(row, view.output)[-1] == "COMPLETED")
    assert "\x1b[1;32mCOMPLETED" in view.raw.decode()  # green, and bold for having moved
    assert "Redis" not in view.output
    view.type(b"\x03")
    assert view.wait() == 0, view.output
    assert "Traceback" not in view.output
    assert "Aborted" not in view.output
    assert view.raw.endswith(b"\x1b[?25h")  # the cursor is shown again


def test_stats_shows_queues_and_types(tag: str) -> None:
    waits = submit(queue=QUEUE)
    sql("UPDATE jobs SET due_at = now() - interval '90 s' WHERE id = :id", id=waits)
    completed_job(type=tag)
    failed_job(type=tag)
    [reported] = objects(answer("stats", "--json"))
    by_name = {queue["name"]: queue for queue in reported["queues"]}
    assert list(by_name)[:2] == [QUEUE, "default"]
    queue = by_name[QUEUE]
    assert {"PENDING", "FAILED"} <= {name for name, count in queue["counts"].items() if count}
    assert queue["paused"] is False
    assert queue["oldestWaitingSeconds"] >= 90
    assert reported["window"] == 3600
    [found] = [one for one in reported["types"] if one["type"] == tag]
    assert [found[name] for name in ("accepted", "started", "completed", "failed", "retried")] == [2, 2, 1, 1, 0]
    assert found["waitP95"] >= found["waitP50"] > 0
    assert found["runP95"] >= found["runP50"] > 0
    jobs.pause(QUEUE)
    try:
        assert objects(answer("stats", "--json"))[0]["queues"][0]["paused"] is True
        text = answer("stats", "--window", "3h")
    finally:
        jobs.resume(QUEUE)
    assert re.search(rf"{QUEUE} \(paused\) .* [0-9]+ (min|h|d)", text)
    assert re.search(rf"{tag} +2 +2 +1 +1 +0 +[0-9]+ m?s / [0-9]+ .+ +[0-9]+ m?s / [0-9]+ m?s", text)


def test_stats_are_limited_to_a_type_and_a_queue(tag: str) -> None:
    completed_job(type=tag)
    submit(type=tag, queue="other")
    [reported] = objects(answer("stats", "--type", tag, "--json"))
    assert [(one["type"], one["accepted"]) for one in reported["types"]] == [(tag, 2)]
    [reported] = objects(answer("stats", "--type", tag, "--queue", "other", "--window", "7d", "--json"))
    assert [queue["name"] for queue in reported["queues"]] == ["other"]
    assert [(one["type"], one["accepted"], one["runP50"]) for one in reported["types"]] == [(tag, 1, None)]
    assert "No job was accepted" in answer("stats", "--type", f"{tag}-none", "--window", "60s")
    for window in ("8d", "0s", "soon", "-1h", "1h30m"):
        ended = cli("stats", "--window", window)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert "is not a length like 90s, 15m or 2h, and at most 7d" in ended.stderr


def test_rich_is_imported_only_to_draw() -> None:
    for module in ("wsgi", "jobsvc.worker"):
        code = f"import sys, {module}; sys.exit('rich' in sys.modules)"
        assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0, module
