"""Async handlers: some that behave, and some that misbehave in one way each."""

import asyncio
import contextlib
import ctypes
import logging
import os
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from jobsvc import Context, Discard, RetryAfter, Snooze, handler


class Sleep(BaseModel):
    seconds: float = 0
    path: str | None = None


@handler("ASYNC_SLEEP")
async def sleep(payload: Sleep, ctx: Context) -> int:
    """Sleep, or wait until there is a file of this path; return the id of the process."""
    await asyncio.sleep(payload.seconds)
    while payload.path and not os.path.exists(payload.path):
        await asyncio.sleep(0.02)
    return os.getpid()


@handler("ASYNC_SLEEP_ISOLATED", isolated=True)
async def sleep_isolated(payload: Sleep, ctx: Context) -> int:
    return await sleep(payload, ctx)


class Caller:
    async def __call__(self, payload: Sleep) -> str:
        await asyncio.sleep(payload.seconds)
        return "called"


handler("ASYNC_OBJECT")(Caller())


async def _with_option(payload: Sleep, ctx: Context, *, option: str) -> str:
    await asyncio.sleep(payload.seconds)
    return option


handler("ASYNC_PARTIAL")(partial(_with_option, option="set"))

_inside: set[str] = set()


@handler("ASYNC_MEET")
async def meet(payload: dict[str, Any], ctx: Context) -> int:
    """Return once `number` of these run at once, after so many seconds."""
    _inside.add(ctx.job_id)
    while len(_inside) < payload["number"]:
        await asyncio.sleep(0.02)
    await asyncio.sleep(payload["seconds"])
    return len(_inside)


@handler("ASYNC_CLEANUP")
async def clean_up(payload: dict[str, Any], ctx: Context) -> None:
    """Note what interrupts it, and what `ctx.cancelled` is then."""
    ctx.log("started")
    try:
        await asyncio.sleep(600)
    except BaseException as error:
        await asyncio.sleep(0.05)
        Path(payload["path"]).write_text(f"{type(error).__name__} {ctx.cancelled}")
        raise


@handler("ASYNC_SWALLOW")
async def swallow(payload: dict[str, Any], ctx: Context) -> None:
    """Swallow each cancellation."""
    ctx.log("never stops")
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(600)


@handler("ASYNC_CHECK_CANCEL")
async def check_cancel(payload: dict[str, Any], ctx: Context) -> None:
    """Return once a cancel is requested."""
    while not ctx.cancelled:
        await asyncio.sleep(0.01)
    ctx.log("saw it")


@handler("ASYNC_RETURN_LATE")
async def return_late(payload: dict[str, Any]) -> str:
    """Swallow the cancellation and return."""
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(600)
    return "late"


@handler("ASYNC_BLOCK")
async def block(payload: Sleep, ctx: Context) -> str:
    """Block the loop, in a call that lets other threads run."""
    ctx.log("blocks")
    time.sleep(payload.seconds)
    return "done"


@handler("ASYNC_BLOCK_ISOLATED", isolated=True)
async def block_isolated(payload: Sleep, ctx: Context) -> str:
    return await block(payload, ctx)


@handler("ASYNC_SPAN")
async def span(payload: dict[str, Any]) -> None:
    """Append a line as it starts, and another as it ends."""
    _append(payload["path"], "+")
    await asyncio.sleep(payload["seconds"])
    _append(payload["path"], "-")


@handler("SPAN")
def sync_span(payload: dict[str, Any]) -> None:
    _append(payload["path"], "+")
    time.sleep(payload["seconds"])
    _append(payload["path"], "-")


def _append(path: str, line: str) -> None:
    with open(path, "a") as file:
        file.write(line)


@handler("ASYNC_RAISE")
async def raise_it(payload: dict[str, Any], ctx: Context) -> Any:
    match payload["what"]:
        case "cancelled":
            raise asyncio.CancelledError("by itself")
        case "cancels itself":
            asyncio.current_task().cancel()  # type: ignore[union-attr]
            await asyncio.sleep(600)
        case "value":
            raise ValueError("wrong")
        case "exit":
            raise SystemExit(3)
        case "exit in a task":
            await asyncio.create_task(_raise(SystemExit(3)))
        case "discard in a group":
            await _in_group(Discard("not found"))
        case "snooze in a group":
            await _in_group(Snooze(600))
        case "retry in a group":
            await _in_group(RetryAfter(600))
        case "unserializable":
            return {1, 2}
    return None


async def _raise(error: BaseException) -> None:
    await asyncio.sleep(0)
    raise error


async def _in_group(error: BaseException) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(asyncio.sleep(600))
        group.create_task(_raise(error))


@handler("ASYNC_REPORT")
async def report(payload: dict[str, Any], ctx: Context) -> str:
    """Log and report in turn with others, from the task, its tasks and its threads."""
    name = payload["name"]
    logger = logging.getLogger("shop")
    for number in range(5):
        logger.info("%s task %d", name, number)
        await asyncio.gather(_log(name, number), asyncio.to_thread(logger.info, "%s thread %d", name, number))
        ctx.log(f"{name} context {number}")
        ctx.progress(20 * (number + 1), name)
        await asyncio.sleep(payload.get("pause", 0.02))
    asyncio.create_task(_raise(ValueError(f"{name} lost")))  # noqa: RUF006
    await asyncio.sleep(0.05)
    return name


async def _log(name: str, number: int) -> None:
    await asyncio.sleep(0.01)
    logging.getLogger("shop").info("%s subtask %d", name, number)


_left: list[Any] = []


@handler("ASYNC_LEAVE")
async def leave(payload: dict[str, Any], ctx: Context) -> str:
    """Leave something behind; `path` is a file that the left one writes when it is cancelled."""
    loop = asyncio.get_running_loop()
    match payload["what"]:
        case "task":
            _left.append(asyncio.create_task(_note_cancel(payload["path"])))
            await asyncio.sleep(0)
        case "stubborn task":
            _left.append(asyncio.create_task(swallow({}, ctx)))
            await asyncio.sleep(0)
        case "busy task":
            _left.append(asyncio.create_task(_spin()))
            await asyncio.sleep(0)
        case "threads":
            for _ in range(40):
                _left.append(loop.run_in_executor(None, time.sleep, 30))
        case "executor":
            await loop.shutdown_default_executor()
            await loop.shutdown_asyncgens()
        case "settings":
            loop.set_task_factory(lambda *_, **__: 1 / 0)
            loop.set_exception_handler(lambda *_: 1 / 0)
            loop.set_debug(True)
            loop.slow_callback_duration = 0
        case "generator":
            _left.append(_generate())
            await anext(_left[-1])
            _left.clear()
        case "stop":
            loop.stop()
            await asyncio.sleep(0.05)
        case "cancel all":
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            await asyncio.sleep(0)
        case "epoll":
            os.close(loop._selector.fileno())  # type: ignore[attr-defined]
        case "cancel":
            asyncio.current_task().cancel()  # type: ignore[union-attr]
        case "close":
            loop.stop()
            thread = threading.Thread(target=_close, args=(loop,))
            thread.start()
    return "left"


async def _note_cancel(path: str) -> None:
    try:
        await asyncio.sleep(600)
    finally:
        await asyncio.sleep(0.02)
        Path(path).touch()


async def _spin() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(0)


async def _generate() -> Any:
    try:
        yield 1
        yield 2
    finally:
        await asyncio.sleep(0)


def _close(loop: asyncio.AbstractEventLoop) -> None:
    while loop.is_running():
        pass
    loop.close()


@handler("ASYNC_FORK")
async def fork(payload: dict[str, Any]) -> Any:
    """Fork, by Python or by C; the new process goes out of here in one of several ways."""
    future = asyncio.get_running_loop().create_future()
    pid = os.fork() if payload.get("by") != "c" else ctypes.PyDLL(None).fork()
    if pid:
        _, status = await asyncio.to_thread(os.waitpid, pid, 0)
        return {"who": "parent", "status": os.waitstatus_to_exitcode(status)}
    match payload["out"]:
        case "raise":
            raise ValueError("in the child")
        case "sleep":
            await asyncio.sleep(0.01)
        case "wait":
            await future
    return {"who": "child"}


@handler("ASYNC_PROCESS")
async def process(payload: dict[str, Any]) -> str:
    """Use a subprocess of asyncio."""
    program = await asyncio.create_subprocess_exec("echo", "hello", stdout=asyncio.subprocess.PIPE)
    out, _ = await program.communicate()
    return out.decode().strip()


@handler("SYNC_RUN")
def run(payload: dict[str, Any]) -> str:
    """Run a loop of its own in a sync handler."""

    async def main() -> str:
        await asyncio.sleep(0.01)
        return await process({})

    return asyncio.run(main())
