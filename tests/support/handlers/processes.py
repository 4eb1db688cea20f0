"""Handlers that do to their process what Python programs do: fork, start others, change it, leave things behind."""

import asyncio
import concurrent.futures
import ctypes
import faulthandler
import gc
import logging
import logging.config
import multiprocessing
import os
import pty
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from jobsvc import Context, handler

PARENT = {"who": "parent"}


def _come_out(how: str) -> Any:
    """Leave the handler in a forked process, in one of the ways there are."""
    match how:
        case "return":
            return {"who": "child"}
        case "exit":
            sys.exit(0)
        case "exit 3":
            sys.exit(3)
        case "exit text":
            sys.exit("good bye")
        case "quit":
            raise SystemExit
        case "raise":
            raise ValueError("from the child")
        case "interrupt":
            raise KeyboardInterrupt
        case "os._exit":
            os._exit(0)
        case "die":
            os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError(how)


@handler("FORK", retry={"max": 0})
def fork(payload: dict[str, Any], ctx: Context) -> Any:
    return _fork(payload, ctx)


@handler("FORK_ISOLATED", retry={"max": 0}, isolated=True)
def fork_isolated(payload: dict[str, Any], ctx: Context) -> Any:
    return _fork(payload, ctx)


def _fork(payload: dict[str, Any], ctx: Context) -> Any:
    """Fork by one of the ways; the child comes out of the handler while the parent still works."""
    fork = {"os": os.fork, "pty": lambda: pty.fork()[0], "c": ctypes.PyDLL(None).fork}[payload.get("by", "os")]
    pid = fork()
    if pid == 0:
        ctx.progress(99, "from the child")
        ctx.log("from the child")
        return _come_out(payload["out"])
    _, status = os.waitpid(pid, 0)
    time.sleep(0.3)
    return {**PARENT, "status": os.waitstatus_to_exitcode(status)}


def _sleep() -> None:
    time.sleep(60)


def _double(number: int) -> int:
    return 2 * number


def _signals() -> list[Any]:
    """Return the signal handlers of this process, and the blocked signals."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM, signal.SIGCHLD)
    handlings = [getattr(signal.getsignal(number), "__name__", repr(signal.getsignal(number))) for number in numbers]
    return [*handlings, sorted(signal.pthread_sigmask(signal.SIG_BLOCK, []))]


def _from_thread(call: Callable[[], Any]) -> Any:
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(call()))
    thread.start()
    thread.join()
    return found[0] if found else None


def _fork_in_thread() -> Any:
    def run() -> str:
        pid = os.fork()
        if pid == 0:
            return "child"  # and the thread ends, and with it the process
        os.waitpid(pid, 0)
        return "parent"

    return _from_thread(run)


def _daemonize(path: str) -> None:
    """Detach a process by two forks; it writes a file long after its parents have ended."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            os.closerange(0, 4096)
            time.sleep(2.5)
            Path(path).write_text("done")
        os._exit(0)
    os.wait()


def _context(kind: str) -> Any:
    return multiprocessing.get_context(kind)


def _terminate(kind: str) -> Any:
    child = _context(kind).Process(target=_sleep)
    child.start()
    child.terminate()  # at once, before it has started
    child.join(20)
    return child.exitcode


def _pool(kind: str) -> list[int]:
    with _context(kind).Pool(2) as pool:
        return list(pool.map(_double, range(4)))


def _executor(kind: str) -> list[int]:
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=_context(kind)) as pool:
        return list(pool.map(_double, range(4)))


def _manager(kind: str) -> dict[str, int]:
    with _context(kind).Manager() as manager:
        shared = manager.dict()
        shared["a"] = 1
        return dict(shared)


def _asked(call: Callable[[], Any]) -> Any:
    with _context("fork").Pool(1) as pool:
        return pool.apply(call)


_USES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "terminate": lambda p: _terminate(p["kind"]),
    "pool": lambda p: _pool(p["kind"]),
    "executor": lambda p: _executor(p["kind"]),
    "manager": lambda p: _manager(p["kind"]),
    "signals": lambda p: _asked(_signals),
    "signals in a thread": lambda p: _from_thread(lambda: _asked(_signals)),
    "fork in a thread": lambda p: _fork_in_thread(),
    "daemon": lambda p: _daemonize(p["path"]),
    "children": lambda p: [len(multiprocessing.active_children()), multiprocessing.current_process().name],
    "preexec": lambda p: subprocess.run(["true"], preexec_fn=os.setsid).returncode,
    "mask": lambda p: subprocess.run(
        ["sh", "-c", "grep -E 'Sig(Blk|Ign)' /proc/self/status"], capture_output=True, text=True
    ).stdout.split(),
    "asyncio": lambda p: asyncio.run(_echo()),
}


async def _echo() -> str:
    process = await asyncio.create_subprocess_exec("echo", "hello", stdout=asyncio.subprocess.PIPE)
    return (await process.communicate())[0].decode().strip()


@handler("USE", retry={"max": 0}, timeout=60)
def use(payload: dict[str, Any]) -> Any:
    """Use processes as libraries do; returns what that gives."""
    return _USES[payload["use"]](payload)


def _raise(*_: object) -> None:
    raise TimeoutError("an alarm of an earlier job")


def _lower(limit: int, value: int) -> None:
    resource.setrlimit(limit, (value, resource.getrlimit(limit)[1]))


def _open_loop() -> None:
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    loop.add_signal_handler(signal.SIGUSR1, _raise)


def _chdir() -> None:
    os.mkdir("/tmp/removed-" + str(os.getpid()))
    os.chdir("/tmp/removed-" + str(os.getpid()))
    os.rmdir(os.getcwd())


_LEFT: dict[str, Callable[[], Any]] = {
    "SIGALRM ignored": lambda: signal.signal(signal.SIGALRM, lambda *_: None),
    "SIGALRM default": lambda: signal.signal(signal.SIGALRM, signal.SIG_DFL),
    "SIGALRM raises": lambda: (signal.signal(signal.SIGALRM, _raise), signal.setitimer(signal.ITIMER_REAL, 0.5)),
    "SIGALRM blocked": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM]),
    "all blocked": lambda: signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals()),
    "SIGTERM default": lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    "alarm": lambda: signal.alarm(1),
    "virtual timer": lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 0.5),
    "profiling timer": lambda: (signal.signal(signal.SIGPROF, _raise), signal.setitimer(signal.ITIMER_PROF, 0.2, 0.2)),
    "SIGCHLD ignored": lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    "watchdog": lambda: faulthandler.dump_traceback_later(1, exit=True),
    "wakeup": lambda: signal.set_wakeup_fd(_nonblocking(), warn_on_full_buffer=False),
    "stdout closed": lambda: sys.stdout.close(),
    "stdout replaced": lambda: setattr(sys, "stdout", None),
    "stdout's file closed": lambda: os.close(1),
    "folder": _chdir,
    "umask": lambda: os.umask(0o777),
    "environ": lambda: (os.environ.update(LEFT="x"), os.environ.pop("PATH")),
    "memory": lambda: _lower(resource.RLIMIT_AS, 1),
    "files": lambda: _lower(resource.RLIMIT_NOFILE, 5),
    "hard limit": lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0)),
    "size": lambda: _lower(resource.RLIMIT_FSIZE, 0),
    "nice": lambda: os.nice(5),
    "data": lambda: _lower(resource.RLIMIT_DATA, 1),
    "warnings": lambda: warnings.simplefilter("error"),
    "stderr's file replaced": lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2),
    "loggers disabled": lambda: logging.config.dictConfig({"version": 1}),
    "time zone": lambda: (os.environ.update(TZ="Asia/Tokyo"), time.tzset()),
    "recursion": lambda: sys.setrecursionlimit(200),
    "trace": lambda: sys.settrace(lambda *_: time.sleep(0.001)),
    "gc": lambda: gc.disable(),
    "socket timeout": lambda: socket.setdefaulttimeout(0.001),
    "log handlers": lambda: logging.root.handlers.clear(),
    "log level": lambda: (logging.root.setLevel(logging.CRITICAL), logging.disable(logging.CRITICAL)),
    "threads": lambda: [threading.Thread(target=_sleep, daemon=daemon).start() for daemon in (True, False)],
    "loop": _open_loop,
}


def _nonblocking() -> int:
    end = os.pipe()[1]
    os.set_blocking(end, False)
    return end


@handler("LEAVE", retry={"max": 0})
def leave(payload: dict[str, Any]) -> int:
    """Change this process in some way, and leave it so; returns the process."""
    _LEFT[payload["what"]]()
    return os.getpid()


@handler("PROCESS_STATE", retry={"max": 0})
def process_state(payload: dict[str, Any]) -> dict[str, Any]:
    """Return the state that an earlier job could have changed."""
    print("a line", flush=True)
    logging.getLogger("some.library").info("received")
    end = time.monotonic() + payload.get("seconds", 0)
    while time.monotonic() < end:  # busy, for timers that count that
        pass
    with open(os.devnull, "rb"), socket.socket() as one:
        return {
            "signals": _signals(),
            "folder": os.getcwd(),
            "umask": os.umask(0o22),
            "environ": [os.environ.get("LEFT"), "PATH" in os.environ],
            "limits": [resource.getrlimit(number)[0] for number in (resource.RLIMIT_AS, resource.RLIMIT_FSIZE)],
            "nice": os.nice(0),
            "recursion": sys.getrecursionlimit(),
            "collects": gc.isenabled(),
            "socket": one.gettimeout(),
            "trace": sys.gettrace() is None,
            "zone": time.tzname[0],
            "filters": len(warnings.filters),
        }


@handler("BREAK", retry={"max": 0})
def break_off(payload: dict[str, Any], ctx: Context) -> None:
    """End in a way that can't be reported, or only with difficulty."""
    match payload["how"]:
        case "close files":
            os.closerange(3, 4096)
            time.sleep(30)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "_exit":
            os._exit(0)
        case "leave group":
            os.setpgid(0, os.getpgid(os.getppid()))
            while True:
                with __import__("contextlib").suppress(BaseException):
                    time.sleep(0.1)


@handler("RAISE_THIS", retry={"max": 0})
def raise_this(payload: dict[str, Any]) -> None:
    raise {"exit": SystemExit(0), "interrupt": KeyboardInterrupt(), "generator": GeneratorExit(), "base": Odd()}[
        payload["what"]
    ]


class Odd(BaseException):
    pass


@handler("GARBAGE", retry={"max": 0})
def garbage(payload: dict[str, Any]) -> str:
    """Write to the worker's end of the channel, as corrupted memory might."""
    import socket as sockets

    from jobsvc.processes import forks
    from jobsvc.worker.ipc import Channel

    channel = forks._forget.__self__  # type: ignore[union-attr]
    assert isinstance(channel, Channel)
    for frame in payload["frames"]:
        channel.send(frame.encode("latin-1"))
    if raw := payload.get("raw"):
        assert isinstance(channel._socket, sockets.socket)
        channel._socket.sendall(raw.encode("latin-1"))
    channel.wake()
    time.sleep(payload.get("seconds", 0))
    return "went on"


@handler("CHILDREN", retry={"max": 1, "interval": 600}, timeout=600)
def children(payload: dict[str, Any]) -> None:
    """Start processes that ignore SIGTERM, one of them in a session of its own; note their ids, and wait."""
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    pids = [subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=apart).pid for apart in (False, True)]
    if (forked := os.fork()) == 0:
        time.sleep(600)
    path = Path(payload["path"])
    path.with_suffix(".new").write_text(" ".join(map(str, [os.getpid(), forked, *pids])))
    path.with_suffix(".new").rename(path)
    time.sleep(600)


def _swallow() -> None:
    while True:
        try:
            time.sleep(0.01)
        except BaseException:
            pass


def _parent_of_stubborn() -> None:
    subprocess.Popen(["sh", "-c", "trap '' TERM INT; sleep 60"])
    time.sleep(60)


def _slow_cleanup() -> None:
    try:
        time.sleep(60)
    finally:
        time.sleep(60)


def _fatal_alarm() -> None:
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    time.sleep(60)


_HOLDING_UP: dict[str, Callable[[], Any]] = {
    "sleep": lambda: time.sleep(60),
    "C call": lambda: ctypes.CDLL(None).sleep(60),
    "C call with the lock": lambda: ctypes.PyDLL(None).sleep(60),
    "swallow": _swallow,
    "clean-up": _slow_cleanup,
    "child": _parent_of_stubborn,
    "fatal alarm": _fatal_alarm,
}


@handler("HOLD_UP", retry={"max": 0}, timeout=600)
def hold_up(payload: dict[str, Any]) -> None:
    """Go on for a minute, in some way."""
    _HOLDING_UP[payload["how"]]()


@handler("HOLD_UP_ISOLATED", retry={"max": 0}, timeout=600, isolated=True)
def hold_up_isolated(payload: dict[str, Any]) -> None:
    """The same in a process of its own."""
    _HOLDING_UP[payload["how"]]()
