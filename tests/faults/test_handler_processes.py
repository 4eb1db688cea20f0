"""A handler may do to its process what Python programs do; it can hurt its own attempt, never another one.

The class: all that a handler can do to the process in which it runs, or to the processes that it makes.

- Forks: by os.fork, in a thread, os.forkpty, C's fork without Python's hooks, two forks of a daemon, multiprocessing
  (fork, spawn, forkserver; Process, Pool, Manager, ProcessPoolExecutor), subprocess with preexec_fn, asyncio.
- Ways out of a forked process: return, sys.exit with 0, a number or a text, an exception, KeyboardInterrupt, os._exit,
  SIGKILL.
- What a process inherits: the channel, handlers of signals, blocked and ignored signals, what multiprocessing knows of
  its worker's children.
- What a job may change: handlers of signals, timers, masks, streams, folder, umask, environment, limits, priority,
  settings of the interpreter and of logging, threads, event loops.
- How an attempt ends that reports nothing: killed, os._exit, closed files, BaseExceptions.
- What comes out of the channel: unknown kinds, slots of others, second ends, wrong types, no JSON, endless lengths.
- A worker that is killed: processes of its handlers, in their group or in a session of their own.
"""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import empty
from tests.faults.conftest import Ground
from tests.faults.test_process_deaths import child_of, ended
from tests.support.service import Service, eventually

ENV = {"JOBSVC_HANDLERS": "tests.support.handlers.processes,tests.support.handlers.basic"}
KINDS = {"one": {}, "threads": {"JOBSVC_CONCURRENCY": "3"}, "stock": {}}


class Site:
    """A service with one worker of this kind."""

    def __init__(self, kind: str) -> None:
        empty()
        self.kind = kind
        self.service = Service(ENV)
        self.worker = self.service.worker("stock" if kind == "stock" else "pool", **KINDS[kind])

    def run(self, type_: str, timeout: float = 30, **payload: Any) -> dict[str, Any]:
        return self.service.until(self.service.post(type_, payload), "COMPLETED", "FAILED", timeout=timeout)

    def result(self, type_: str, **payload: Any) -> Any:
        job = self.run(type_, **payload)
        assert job["status"] == "COMPLETED", job["error"]
        return job["result"]


@pytest.fixture(scope="module", params=["one", "threads", "stock"])
def site(request: pytest.FixtureRequest) -> Iterator[Site]:
    site = Site(request.param)
    yield site
    site.service.close()


# The kinds whose handlers share a process. One service at a time: they would take each other's jobs.
in_shared = pytest.mark.parametrize("site", ["one", "threads"], indirect=True)
in_one = pytest.mark.parametrize("site", ["one"], indirect=True)


WAYS = {
    "return": 0,
    "exit": 0,
    "exit 3": 3,
    "exit text": 1,
    "quit": 0,
    "raise": 1,
    "interrupt": 1,
    "os._exit": 0,
    "die": -9,
}


@pytest.mark.parametrize("out", WAYS)
def test_forked_process_ends_without_affecting_the_job(site: Site, out: str) -> None:
    job_id = site.service.post("FORK", {"out": out})
    job = site.service.until(job_id, "COMPLETED", "FAILED")
    assert (job["result"], job["progress"]) == ({"who": "parent", "status": WAYS[out]}, None), job["error"]
    [attempt] = site.service.attempts(job_id)
    assert (attempt["outcome"], attempt["logs"]) == ("completed", [])


@pytest.mark.parametrize("by", ["pty", "c"])
@pytest.mark.parametrize("out", ["return", "raise", "exit 3"])
def test_process_forked_by_other_calls_ends_quietly(site: Site, by: str, out: str) -> None:
    assert site.result("FORK", out=out, by=by) == {"who": "parent", "status": WAYS[out]}


@in_shared
def test_process_forked_by_an_isolated_handler_ends_quietly(site: Site) -> None:
    for out in ("return", "exit", "raise"):
        assert site_result(site, "FORK_ISOLATED", out) == {"who": "parent", "status": WAYS[out]}


def site_result(site: Site, type_: str, out: str) -> Any:
    return site.result(type_, out=out)


@in_shared
def test_fork_does_not_affect_concurrent_jobs(site: Site) -> None:
    service = site.service
    others = [service.post(payload={"durationMs": 1500}) for _ in range(2)]
    forks = [service.post("FORK", {"out": out}) for out in ("exit", "return", "raise", "os._exit")]
    for job_id in [*others, *forks]:
        assert service.until(job_id, "COMPLETED", "FAILED")["attempts"] == 1
        assert [attempt["outcome"] for attempt in service.attempts(job_id)] == ["completed"]


KINDS_OF_START = ["fork", "spawn", "forkserver"]


@pytest.mark.parametrize("kind", KINDS_OF_START)
def test_multiprocessing_works_in_a_handler(site: Site, kind: str) -> None:
    assert site.result("USE", use="terminate", kind=kind) == -signal.SIGTERM
    assert site.result("USE", use="pool", kind=kind) == [0, 2, 4, 6]
    assert site.result("USE", use="executor", kind=kind) == [0, 2, 4, 6]
    assert site.result("USE", use="manager", kind=kind) == {"a": 1}


@in_shared
def test_terminate_always_ends_a_process(site: Site) -> None:
    """Also when the signal comes before the new process has got ready for it."""
    jobs = [site.service.post("USE", {"use": "terminate", "kind": "fork"}) for _ in range(30)]
    found = {site.service.until(job_id, "COMPLETED")["result"] for job_id in jobs}
    # On several threads one may collect another's process, and multiprocessing then knows no status of it.
    assert found - ({None} if site.kind == "threads" else set()) == {-signal.SIGTERM}


def test_forked_process_has_default_signal_handlers(site: Site) -> None:
    default = repr(signal.SIG_DFL)
    for use in ("signals", "signals in a thread"):
        interrupt, *others, blocked = site.result("USE", use=use)
        assert interrupt == "default_int_handler"
        assert (others, blocked) == ([default] * 3, [])


def test_subprocess_inherits_no_blocked_signal(site: Site) -> None:
    _, blocked, _, ignored = site.result("USE", use="mask")
    assert int(blocked, 16) == 0
    if site.kind != "stock":  # whose RQ ignores SIGINT
        assert int(ignored, 16) & 1 << (signal.SIGINT - 1) == 0


def test_other_process_apis_work(site: Site, tmp_path: Path) -> None:
    assert site.result("USE", use="fork in a thread") == "parent"
    assert site.result("USE", use="preexec") == 0
    assert site.result("USE", use="children") == [0, "MainProcess"]
    assert site.result("USE", use="daemon", path=str(tmp_path / "daemon")) is None
    eventually((tmp_path / "daemon").exists)


def test_asyncio_subprocess_works(site: Site) -> None:
    assert site.result("USE", use="asyncio") == "hello"


SIGNALS = ["SIGALRM ignored", "SIGALRM default", "SIGALRM raises", "SIGALRM blocked", "all blocked", "SIGTERM default"]
TIMERS = ["alarm", "virtual timer", "profiling timer", "SIGCHLD ignored", "watchdog", "wakeup", "loop"]
STREAMS = ["stdout closed", "stdout replaced", "stdout's file closed", "log handlers", "log level"]
OTHERS = ["folder", "umask", "environ", "memory", "data", "files", "size", "nice", "recursion", "trace", "gc"]
MORE = ["socket timeout", "warnings", "stderr's file replaced", "loggers disabled", "time zone"]
CHANGES = [*SIGNALS, *TIMERS, *STREAMS, *OTHERS, *MORE, "threads"]
NOT_IN_THREADS = {*SIGNALS, "profiling timer", "SIGCHLD ignored", "wakeup", "loop"} - {"SIGALRM blocked", "all blocked"}


@in_shared
@pytest.mark.parametrize("what", CHANGES)
def test_process_state_is_restored_for_the_next_job(site: Site, what: str) -> None:
    if site.kind == "threads" and what in NOT_IN_THREADS:
        pytest.skip("only the main thread can do this")
    before = site.result("PROCESS_STATE")
    site.run("LEAVE", what=what)
    job_id = site.service.post("PROCESS_STATE", {"seconds": 0.7})
    after = site.service.until(job_id, "COMPLETED", "FAILED")
    assert (after["result"], after["error"], after["attempts"]) == (before, None, 1)
    [attempt] = site.service.attempts(job_id)
    assert [line["message"] for line in attempt["logs"]] == ["received"]


@in_shared
def test_pending_alarm_of_a_job_is_cleared(site: Site) -> None:
    before = site.result("PROCESS_STATE")
    site.run("LEAVE", what="alarm")
    assert site.result("PROCESS_STATE", seconds=1.5) == before


@in_shared
@pytest.mark.parametrize("what", [*SIGNALS, "alarm", "SIGCHLD ignored", "stdout closed", "threads"])
def test_timeout_and_cancel_work_after_a_job_that_changed_the_process(site: Site, what: str) -> None:
    if site.kind == "threads" and what in NOT_IN_THREADS:
        pytest.skip("only the main thread can do this")
    service = site.service
    site.run("LEAVE", what=what)
    late = service.post("TEST_JOB", {"durationMs": 20_000, "steps": 400}, timeout=0.5, retry={"max": 0})
    assert service.until(late, "FAILED", timeout=8)["error"]["type"] == "Timeout"
    site.run("LEAVE", what=what)
    stopped = service.post("TEST_JOB", {"durationMs": 20_000, "steps": 400}, retry={"max": 0})
    service.until(stopped, "PROCESSING")
    service.client.post(f"/jobs/{stopped}/cancel")
    service.until(stopped, "CANCELLED", timeout=5)


@in_shared
def test_restorable_changes_need_no_new_process(site: Site) -> None:
    what = "environ" if site.kind == "threads" else "SIGALRM ignored"
    assert len({site.result("LEAVE", what=what) for _ in range(3)}) == 1


@in_one
def test_job_behind_one_that_spoils_the_process_runs_in_a_new_one(site: Site) -> None:
    service = site.service
    bodies = [{"type": "LEAVE", "payload": {"what": "stdout's file closed"}}, *[{"type": "PROCESS_STATE"}] * 30]
    job_ids = service.client.post("/jobs/batch", json={"jobs": bodies * 2}).json()["jobIds"]
    for job_id in job_ids:
        assert service.until(job_id, "COMPLETED", "FAILED")["attempts"] == 1
        assert service.job(job_id)["status"] == "COMPLETED", service.job(job_id)["error"]


@in_shared
@pytest.mark.parametrize("how", ["kill", "_exit", "close files"])
def test_attempt_of_a_dead_process_is_lost_at_once(site: Site, how: str) -> None:
    assert site.run("BREAK", how=how, timeout=8)["error"]["type"] == "WorkerLost"
    site.result("PROCESS_STATE")
    assert site.service.alive(site.worker)


@in_shared
def test_handler_that_left_its_process_group_is_killed(site: Site) -> None:
    job_id = site.service.post("BREAK", {"how": "leave group"}, timeout=60)
    site.service.until(job_id, "PROCESSING")
    site.service.client.post(f"/jobs/{job_id}/cancel")
    site.service.until(job_id, "CANCELLED", timeout=6)


@in_shared
@pytest.mark.parametrize("what", ["exit", "interrupt", "generator", "base"])
def test_any_base_exception_fails_the_attempt_and_ends_no_thread(site: Site, what: str) -> None:
    types = {"exit": "SystemExit", "interrupt": "KeyboardInterrupt", "generator": "GeneratorExit", "base": "Odd"}
    for _ in range(4):  # more than there are threads
        assert site.run("RAISE_THIS", what=what, timeout=8)["error"]["type"] == types[what]


FREE, OTHERS_ID = 511, "00000000-0000-0000-0000-000000000000"
AN_END = f'{{"job_id":"{OTHERS_ID}","fence":1,"outcome":"completed"}}'
PICKLED = "\x80\x04\x8c\x05posix\x94\x8c\x06system\x94\x93\x94\x8c\x04exit\x94\x85\x94R\x94."
FRAMES = [
    "",
    " ",
    "unknown [1]",
    "finished",
    "finished [1]",
    "finished {}",
    f'finished ["0",{AN_END},0.1]',
    f"finished [{FREE},{AN_END},0.1]",
    f"finished [-1,{AN_END},0.1]",
    f"finished [99999999999999999999,{AN_END},0.1]",
    f"finished [{FREE},{AN_END},-1]",
    f"finished [{FREE},{AN_END},NaN]",
    f"returned [[{FREE}]]",
    "returned [[0,0]]",
    'returned ["x"]',
    f'reported [{FREE},"{OTHERS_ID}",1,{{}},null]',
    f'reported [{FREE},"x",1,5,null]',
    f"partialresult [{FREE},{AN_END}]",
    "completed [0,0.1]",
    "finished " + "[" * 50_000,
    PICKLED,
    "\xff\xfe",
]


@in_shared
def test_invalid_messages_are_dropped_and_logged(site: Site) -> None:
    before = site.worker.output.count("message dropped")
    waiting = site.service.post(payload={"durationMs": 500})
    assert site.result("GARBAGE", frames=FRAMES, seconds=0.3) == "went on"
    assert site.service.until(waiting, "COMPLETED")["attempts"] == 1
    eventually(lambda: site.worker.output.count("message dropped") >= before + len(FRAMES) - 3)
    assert "Traceback" not in site.worker.output.partition("message dropped")[2].partition("\n")[0]
    site.result("PROCESS_STATE")


@in_shared
def test_second_result_of_an_attempt_is_dropped(site: Site) -> None:
    """Of an attempt that has ended, in a slot that another job may have by now."""
    first = site.service.post("GARBAGE", {"frames": []})
    site.service.until(first, "COMPLETED")
    ends = [f'finished [{slot},{{"job_id":"{first}","fence":1,"outcome":"discarded"}},0.1]' for slot in range(500, 512)]
    assert site.result("GARBAGE", frames=ends) == "went on"
    assert [one["outcome"] for one in site.service.attempts(first)] == ["completed"]


@in_shared
def test_invalid_frames_end_only_their_process(site: Site) -> None:
    job = site.run("GARBAGE", frames=[], raw="\xff" * 100, seconds=30, timeout=8)
    assert job["error"]["type"] == "WorkerLost"
    site.result("PROCESS_STATE")


def test_child_processes_of_a_handler_end_with_a_killed_worker(tmp_path: Path) -> None:
    ground = Ground(tmp_path, **ENV)
    try:
        worker = ground.service.worker()
        ground.service.post("CHILDREN", {"path": str(tmp_path / "pids")})
        eventually((tmp_path / "pids").exists)
        processes = [psutil.Process(int(pid)) for pid in (tmp_path / "pids").read_text().split()]
        rq_worker, _ = child_of(worker)
        rq_worker.kill()
        for process in processes:
            eventually(lambda process=process: ended(process), 6)
    finally:
        ground.stop()
