"""Handlers that fail in every way: odd exceptions, wrapped control exceptions, and attempts that hold much memory."""

import asyncio
import logging
import os
import resource
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from jobsvc import Context, Discard, Snooze, handler

MEGABYTES = 20


class ApiError(Exception):
    """As libraries have it, whose attributes come from the body of an answer."""

    def __getattr__(self, name: str) -> Any:
        return self.details[name]


class BadText(Exception):
    def __str__(self) -> str:
        raise SystemExit(1)


class SlowText(Exception):
    """Notes each call of its `__str__` in a file, and takes long."""

    def __str__(self) -> str:
        with Path(self.args[0]).open("a") as file:
            file.write("x")
        time.sleep(self.args[1])
        return "slow"


Huge = type("H" * 200_000, (Exception,), {})


def _nested() -> BaseException:
    error: Exception = ValueError("innermost")
    for _ in range(10_000):
        error = ExceptionGroup("group", [error])
    return error


def _out_of_memory() -> None:
    """Fill the memory that the process may have with many small objects."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + 64 * 1024 * 1024
    resource.setrlimit(resource.RLIMIT_AS, (most, resource.getrlimit(resource.RLIMIT_AS)[1]))
    kept: list[Any] = []
    while True:
        kept.append([None])


@handler("ODD_EXCEPTION", retry={"max": 0})
def odd_exception(payload: dict[str, Any]) -> None:
    match payload["what"]:
        case "getattr":
            raise ApiError("of an API")
        case "text":
            raise BadText
        case "huge":
            raise Huge("x" * 1_000_000)
        case "nested":
            raise _nested()
        case "exit":
            sys.exit(3)
        case "generator":
            raise GeneratorExit
        case "interrupt":
            raise KeyboardInterrupt
        case "unstorable":
            raise type("Ünïcode", (BaseException,), {})("a\x00b\ud800")


@handler("SLOW_TEXT", retry={"max": 0})
def slow_text(payload: dict[str, Any]) -> None:
    raise SlowText(payload["path"], payload["seconds"])


@handler("OUT_OF_MEMORY", retry={"max": 0}, isolated=True)
def out_of_memory(payload: dict[str, Any]) -> None:
    _out_of_memory()


@handler("EQUAL_KEYS", retry={"max": 0})
def equal_keys(payload: dict[str, Any]) -> Any:
    return {1: "int", "1": "text"}


def _busy(path: str) -> None:
    Path(path).touch()
    while True:
        time.sleep(0.01)


async def _spin(path: str) -> None:
    Path(path).touch()
    while True:
        await asyncio.sleep(0.01)


async def _task_group(path: str) -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_spin(path))
        group.create_task(_spin(path))


@handler("INTERRUPTED", retry={"max": 0})
def interrupted(payload: dict[str, Any]) -> None:
    """Note that it runs, and when it is interrupted, let something else come out."""
    _interrupted(payload)


@handler("INTERRUPTED_ISOLATED", retry={"max": 0}, isolated=True)
def interrupted_isolated(payload: dict[str, Any]) -> None:
    _interrupted(payload)


def _interrupted(payload: dict[str, Any]) -> None:
    path = payload["path"]
    match payload["how"]:
        case "finally":
            try:
                _busy(path)
            finally:
                raise ConnectionError("in the middle of a query")
        case "none":
            try:
                _busy(path)
            except BaseException:
                raise RuntimeError("converted") from None
        case "group":
            try:
                _busy(path)
            except BaseException as error:
                raise BaseExceptionGroup("group", [ValueError(), error]) from None
        case "asyncio":
            asyncio.run(_task_group(path))
        case "discard":
            try:
                _busy(path)
            except BaseException:
                raise Discard("abandoned") from None


@handler("WRAPPED", retry={"max": 3})
def wrapped(payload: dict[str, Any], ctx: Context) -> str:
    """Discard, or snooze once, within what wraps it."""
    if ctx.fence > 1:
        return "awake"
    error = Discard("404") if payload["what"] == "discard" else Snooze(0.2)
    match payload["how"]:
        case "group":
            raise ExceptionGroup("group", [OSError(), error])
        case "finally":
            try:
                raise error
            finally:
                raise ConnectionError("clean-up")
        case _:
            raise ValueError("wrapper") from error


class Cycle(Exception):
    """An exception that refers to itself, and holds data."""

    def __init__(self, data: Any) -> None:
        self.owner, self.data = self, data


def _fail(data: Any) -> None:
    raise ValueError("holding data")


async def _fail_soon(data: Any) -> None:
    await asyncio.sleep(0)
    _fail(data)


async def _fail_in_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_fail_soon(_data()))


def _data() -> bytearray:
    data = bytearray(MEGABYTES * 1024 * 1024)
    data[:: resource.getpagesize()] = b"x" * len(range(0, len(data), resource.getpagesize()))
    return data


@handler("HOLD", retry={"max": 0})
def hold(payload: dict[str, Any], ctx: Context) -> int:
    """Fail with much memory in the frames; or return the process."""
    if payload["how"] == "pid":
        return os.getpid()
    data = _data()
    match payload["how"]:
        case "plain":
            _fail(data)
        case "chain":
            try:
                _fail(data)
            except ValueError as error:
                raise KeyError("chained") from error
        case "group":
            try:
                _fail(data)
            except ValueError as error:
                raise ExceptionGroup("group", [error, OSError()]) from None
        case "timeout":
            while True:
                time.sleep(0.01)
        case "discard":
            raise Discard("with data")
        case "cycle":
            raise Cycle(data)
        case "pool":
            with ThreadPoolExecutor(2) as pool:
                pool.submit(_fail, _data()).result()
        case "logged":
            try:
                _fail(data)
            except ValueError:
                logging.getLogger("some.library").exception("logged")
                raise
        case "asyncio":
            asyncio.run(_fail_in_group())
    return 0
