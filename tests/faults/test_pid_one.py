"""Programs that are the first process of a container, as they are without an init such as tini.

The kernel gives PID 1 every process whose parent has ended. The programs that may be it: the worker, the API, and
`make up`'s. Who may leave such processes: handlers, and other programs in the container. What must not change:
exit statuses that the program waits for itself, signals, and the program's own status.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import psutil
import pytest

from tests.acceptance.test_startup import SERVE, UP
from tests.support.service import POOL, Process, Service, eventually, free_port

NAMESPACE = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
HAS_NAMESPACES = bool(shutil.which("unshare") and shutil.which("nsenter")) and (
    subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False).returncode == 0
)
pytestmark = pytest.mark.skipif(not HAS_NAMESPACES, reason="processes can't be put into a namespace here")

JOBS = 8


@pytest.fixture(scope="module")
def site(apart: dict[str, str]) -> Iterator[Service]:
    service = Service({**apart, "JOBSVC_HANDLERS": "tests.support.handlers.ops"})
    yield service
    service.close()


def first(process: Process) -> psutil.Process:
    """PID 1 of the namespace, as it is seen from outside."""
    eventually(lambda: psutil.Process(process.popen.pid).children())
    return psutil.Process(process.popen.pid).children()[0]


def below(process: Process) -> list[psutil.Process]:
    return first(process).children(recursive=True)


def states(process: Process) -> list[tuple[str, str]]:
    """Names and states of the processes below PID 1."""
    found = []
    for one in below(process):
        with contextlib.suppress(psutil.NoSuchProcess):
            found.append((one.name(), one.status()))
    return found


def is_sleeping(process: Process) -> bool:
    """Return True if what was left there still runs."""
    return any(name == "sleep" and state != psutil.STATUS_ZOMBIE for name, state in states(process))


def has_zombies(process: Process) -> bool:
    return any(state == psutil.STATUS_ZOMBIE for _, state in states(process))


def leave_orphan(process: Process) -> None:
    """Leave a process in the namespace whose parent has ended, and which ends after a moment."""
    target = str(first(process).pid)
    subprocess.run(["nsenter", "-t", target, "-p", "-m", "sh", "-c", "sleep 0.3 &"], check=True)


def run(code: str) -> subprocess.CompletedProcess[str]:
    head = "import os, signal, subprocess, sys\nfrom jobsvc.processes.pid_one import leave_pid_one\nleave_pid_one()\n"
    code = head + code
    return subprocess.run([*NAMESPACE, sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_orphans_of_handlers_are_reaped(site: Service) -> None:
    worker = site.run(*NAMESPACE, *POOL, env={"JOBSVC_WORKERS": "1"})
    for job_id in [site.post("LEAVES_GRANDCHILD") for _ in range(JOBS)]:
        site.until(job_id, "COMPLETED")
    assert below(worker)
    eventually(lambda: not is_sleeping(worker))
    eventually(lambda: not has_zombies(worker))
    os.kill(first(worker).pid, signal.SIGTERM)
    assert worker.wait() == 0, worker.output


@pytest.mark.parametrize("program", [POOL, SERVE, UP], ids=["worker", "api", "up"])
def test_orphans_are_reaped_and_sigterm_ends_the_program(site: Service, program: tuple[str, ...]) -> None:
    process = site.run(*NAMESPACE, *program, env={"JOBSVC_WORKERS": "1", "PORT": str(free_port(None))})
    eventually(lambda: "Worker Started" in process.output or "jobsvc serves" in process.output, 60)
    eventually(lambda: len(below(process)) > 1)
    leave_orphan(process)
    eventually(lambda: not is_sleeping(process))
    eventually(lambda: not has_zombies(process))
    os.kill(first(process).pid, signal.SIGTERM)
    assert process.wait() == 0, process.output


@pytest.mark.parametrize(("code", "status"), [("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137), ("pass", 0)])
def test_exit_status_of_the_program_is_passed_on(code: str, status: int) -> None:
    assert run(code).returncode == status


def test_program_reaps_its_own_children() -> None:
    done = run(
        "import multiprocessing, time\n"
        "def leave():\n"
        "    subprocess.run(['sh', '-c', 'sleep 0.05 &'])\n"
        "    sys.exit(5)\n"
        "for _ in range(10):\n"
        "    child = subprocess.Popen(['sh', '-c', 'sleep 0.05 & exit 3'])\n"
        "    other = multiprocessing.get_context('fork').Process(target=leave)\n"
        "    other.start()\n"
        "    time.sleep(0.1)\n"
        "    other.join()\n"
        "    assert (child.wait(), other.exitcode) == (3, 5)\n"
    )
    assert done.returncode == 0, done.stderr


def test_signals_reach_the_program() -> None:
    done = run(
        "received = []\n"
        "for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGINT):\n"
        "    signal.signal(number, lambda number, frame: received.append(number))\n"
        "    os.kill(1, number)\n"
        "    while number not in received:\n"
        "        signal.sigtimedwait([], 0.01)\n"
    )
    assert done.returncode == 0, done.stderr
