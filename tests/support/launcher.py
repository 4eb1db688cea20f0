"""Starts the service's programs by forking a process that has imported their modules: a quarter of the CPU time.

Run as a module, this is that process: it gets one request per connection, and answers it with the program's id and,
later, with its wait status.
"""

import contextlib
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType

MODULES = (
    "flask.cli",
    "flask_migrate",
    "granian.server.mp",
    "jobsvc.api.dashboard",
    "jobsvc.api.job_watcher",
    *(f"jobsvc.api.routes.{name}" for name in ("events", "jobs", "queues", "schedules", "stats", "system")),
    "jobsvc.api.server.adapter",
    "jobsvc.app",
    "jobsvc.cli.commands",
    "jobsvc.command",
    "jobsvc.dispatch.relay",
    "jobsvc.ui.console",
    "jobsvc.worker.pool",
    "rq.cli",
)
"""Modules that are loaded before a fork. None reads the environment when it is imported."""

ROOT = Path(__file__).parents[2]

RQ = str(Path(sys.executable).parent / "rq")
"""The command `rq`, a Python program."""

READ_AT_START = ("PYTHON", "LD_", "TZ", "LC_", "LANG", "OTEL_")
"""Variables that Python or a library reads when it starts: a program that is given one starts by itself."""


class Launched:
    """What tests use of `subprocess.Popen`, for a program that the launcher has started."""

    def __init__(self, args: Sequence[str], connection: socket.socket) -> None:
        self.args = args
        self.returncode: int | None = None
        self._replies = connection.makefile("r")
        self._connection = connection
        self.pid = int(self._replies.readline())

    def poll(self) -> int | None:
        """Return the exit status as `subprocess.Popen` does, None until the program has ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit status once the program has ended. Raises subprocess.TimeoutExpired."""
        if self.returncode is None:
            if timeout is not None and not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = os.waitstatus_to_exitcode(int(self._replies.readline()))
            self._replies.close()
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless the program is known to have ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


class Launcher:
    """The process that forks programs. It ends with the process that has started it."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="jobsvc-launcher-")
        self._path = f"{self._folder.name}/socket"
        command = [sys.executable, "-m", __name__, self._path]
        self._process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._process.stdout
        self._process.stdout.read(1)  # it listens

    def start(self, args: Sequence[str], env: Mapping[str, str], cwd: Path, *files: Path | str) -> Launched:
        """Start a program in a session of its own; `files` are its standard input, output and errors."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._path)
        connection.sendall(json.dumps([args, dict(env), str(cwd), *map(str, files)]).encode() + b"\n")
        return Launched(args, connection)

    def stop(self) -> None:
        """End this process; programs that run go on."""
        self._process.communicate()
        self._folder.cleanup()


launcher = cache(Launcher)


def stop_launcher() -> None:
    """Stop the launcher if there is one."""
    if launcher.cache_info().currsize:
        launcher().stop()


def can_launch(args: Sequence[str], env: Mapping[str, str]) -> bool:
    """Return True for a Python program that can be forked: no variable of READ_AT_START differs from this process'."""
    given = {name: value for name, value in env.items() if name.startswith(READ_AT_START)}
    ours = {name: value for name, value in os.environ.items() if name.startswith(READ_AT_START)}
    is_python = args[0] == sys.executable and (args[1] in ("-m", "-c") or args[1].endswith(".py"))
    return given == ours and (is_python or args[0] == RQ)


def run_program(
    *command: str | bytes, env: Mapping[str, str], say: str = "", cwd: Path | str = ROOT, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end as `subprocess.run` does; `env` is added to this process' environment.

    Raises subprocess.TimeoutExpired, after it has killed the program.
    """
    args, environment = [os.fsdecode(one) for one in command], {**os.environ, **env}
    if not can_launch(args, environment):
        return subprocess.run(
            args, env=environment, input=say, cwd=cwd, timeout=timeout, capture_output=True, text=True, check=False
        )
    with tempfile.TemporaryDirectory(prefix="jobsvc-run-") as folder:
        files = [Path(folder, name) for name in ("in", "out", "errors")]
        for file, text in zip(files, (say, "", ""), strict=True):
            file.write_text(text)
        program = launcher().start(args, environment, Path(cwd), *files)
        try:
            status = program.wait(timeout)
        finally:
            program.kill()
        return subprocess.CompletedProcess(args, status, files[1].read_text(), files[2].read_text())


def main(path: str) -> None:
    """Fork a program for each connection, until standard input is closed."""
    for name in MODULES:
        importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "tests"]:
        del sys.modules[name]
    gc.collect()
    gc.freeze()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the keepers
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen()
    os.write(1, b".")
    while sys.stdin not in select.select([listener, sys.stdin], [], [])[0]:
        connection, _ = listener.accept()
        if os.fork() == 0:
            listener.close()
            keep(connection)
        connection.close()


def keep(connection: socket.socket) -> None:
    """Start the program that this connection asks for; in this process, wait for its end and tell the status."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    args, env, cwd, *files = json.loads(connection.makefile().readline())
    pid = os.fork()
    if pid == 0:
        connection.close()
        become(args, env, cwd, files)
        sys.exit()
    with contextlib.suppress(OSError):  # the test may not wait
        connection.sendall(b"%d\n" % pid)
        connection.sendall(b"%d\n" % os.waitpid(pid, 0)[1])
    os._exit(0)


def become(args: Sequence[str], env: Mapping[str, str], cwd: str, files: Sequence[str]) -> None:
    """Run this program in this process, as `python` would."""
    os.setsid()
    os.chdir(cwd)
    for number, name in enumerate(files):
        file = os.open(name, os.O_WRONLY | os.O_APPEND if number else os.O_RDONLY)
        os.dup2(file, number)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ.clear()
    os.environ.update(env)
    kind, *rest = args[1:] if args[0] == sys.executable else args
    if kind == "-m":
        sys.path[0], sys.argv = cwd, rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif kind == "-c":
        sys.path[0], sys.argv = "", ["-c", *rest[1:]]
        sys.modules["__main__"] = ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), sys.modules["__main__"].__dict__)
    else:
        sys.path[0], sys.argv = str(Path(kind).resolve().parent), [kind, *rest]
        runpy.run_path(kind, run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1])
