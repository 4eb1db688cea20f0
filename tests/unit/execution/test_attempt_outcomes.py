"""The outcome of an attempt, for all that a handler may raise or return. `attempt` itself never raises.

Class "an exception whose texts can't be made": `__str__` that raises (an Exception, a BaseException, another exception
of its kind), returns no string, a subclass of str, U+0000 or lone surrogates, a huge text, recurses, sleeps or loops,
also after the time for it was over; `__repr__` of an argument that raises; `__getattr__`, `__getattribute__`,
`__class__`, `__cause__`, `__context__`, `__traceback__`, `__suppress_context__`, `__notes__`, `exceptions` overridden;
names of classes that are long, no plain str, or hidden by a metaclass; `__module__` that is no text; many notes, notes
that are no text; chains that are cyclic or 10,000 deep, groups 10,000 deep or 10,000 wide; SyntaxError and
UnicodeDecodeError with odd attributes; RecursionError, MemoryError, and a traceback of thousands of frames.

Class "a control exception that is wrapped": by a cause, a context, a group, a group in a chain in a group; by
`finally`, `except BaseException`, `raise … from None`, `suppress`, a generator, `asyncio.run`, a TaskGroup, a pool.

Class "a result that JSON or Postgres can't hold": equal keys of every kind, at any depth; NaN, circular, deep, bytes,
sets, integers of more than 4,300 digits, text, objects that raise or hang while they are read, too many bytes.
"""

import asyncio
import contextlib
import gc
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from uuid import uuid4

import pytest

from jobsvc.execution import attempt as attempts
from jobsvc.execution.attempt import attempt
from jobsvc.execution.attempt_log import AttemptLog
from jobsvc.execution.deadline import Deadline
from jobsvc.execution.description import MAX_MESSAGE, MAX_TRACEBACK, NO_TIME
from jobsvc.execution.exceptions import MAX_TYPE
from jobsvc.execution.interruptions import AttemptTimeout, Cancelled, WorkerShutdown
from jobsvc.execution.result_json import MAX_RESULT
from jobsvc.execution.thread_deadline import ThreadDeadline
from jobsvc.handlers import Context, Discard, RetryAfter, Snooze, handler, registry
from jobsvc.jobs import AttemptResult, Failure, StartedAttempt
from jobsvc.states import Outcome

Function = Callable[[Any, Context], Any]


@pytest.fixture(autouse=True)
def _own_registry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_handlers", {})


@pytest.fixture(params=[Deadline, ThreadDeadline])
def kind(request: pytest.FixtureRequest) -> type[Deadline]:
    """The deadline of the main thread, and that of any other one."""
    found: type[Deadline] = request.param
    return found


def run(
    function: Function,
    kind: type[Deadline] = Deadline,
    timeout: float = 30,
    act: Callable[[Deadline], None] | None = None,
) -> AttemptResult:
    """Make an attempt, on its own thread for a ThreadDeadline; `act` is called with its deadline, on another one."""
    handler("UNIT")(function)
    started = StartedAttempt(uuid4(), "UNIT", {}, 1, 1, 1, timeout, "default", 0.0)
    ends: list[AttemptResult] = []

    def make() -> None:
        deadline = kind(started, lambda *_: None)
        if act:
            threading.Thread(target=act, args=(deadline,), daemon=True).start()
        ends.append(attempt(started, deadline, AttemptLog()))

    try:
        if kind is Deadline:
            make()
        else:
            thread = threading.Thread(target=make)
            thread.start()
            thread.join(30)
    finally:
        del registry._handlers["UNIT"]
    [end] = ends
    return end


def raising(error: BaseException | type[BaseException]) -> Function:
    def function(payload: Any, ctx: Context) -> None:
        raise error

    return function


def failure(end: AttemptResult, outcome: Outcome = Outcome.FAILED) -> Failure:
    assert end.outcome == outcome, end
    assert end.failure is not None
    assert isinstance(end.failure.traceback, str)
    for text, limit in (
        (end.failure.type, MAX_TYPE),
        (end.failure.message, MAX_MESSAGE),
        (end.failure.traceback, MAX_TRACEBACK),
    ):
        assert type(text) is str
        assert len(text) <= limit
        assert "\x00" not in text
        text.encode()
    return end.failure


# --- texts


def test_texts_of_an_ordinary_exception_equal_pythons() -> None:
    def function(payload: Any, ctx: Context) -> None:
        try:
            {}["key"]
        except KeyError as error:
            error.add_note("a note")
            raise ValueError("wrong") from error

    found = failure(run(function))
    assert (found.type, found.message) == ("ValueError", "wrong")
    assert found.traceback is not None
    lines = found.traceback.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert "test_attempt_outcomes.py" in lines[1]
    assert lines.index("KeyError: 'key'") < lines.index("a note") < lines.index("ValueError: wrong")
    assert "The above exception was the direct cause of the following exception:" in lines
    assert "execution/attempt.py" not in found.traceback


def test_texts_of_an_exception_group_show_its_members() -> None:
    found = failure(run(raising(ExceptionGroup("several", [ValueError("one"), ExceptionGroup("x", [OSError("two")])]))))
    assert (found.type, found.message) == ("ExceptionGroup", "several (2 sub-exceptions)")
    assert found.traceback is not None
    assert "  | ValueError: one" in found.traceback
    assert "  |   | OSError: two" in found.traceback


class _Text(str):
    """A text whose methods are of no use."""

    def _fail(self, *_: Any) -> Any:
        raise LookupError("a method of the text")

    __len__ = __getitem__ = __str__ = __repr__ = __eq__ = encode = replace = __add__ = __format__ = _fail
    __hash__ = str.__hash__


class Lookup(Exception):
    def __getattr__(self, name: str) -> Any:
        return {}[name]


class Attribute(Exception):
    def __getattribute__(self, name: str) -> Any:
        raise KeyboardInterrupt


class Liar(Exception):
    @property
    def __class__(self) -> Any:  # type: ignore[override]
        raise SystemExit

    @property
    def __cause__(self) -> Any:  # type: ignore[override]
        raise ValueError("cause")

    __context__ = __traceback__ = __notes__ = __suppress_context__ = __dict__ = __cause__  # type: ignore[assignment]


class Impostor(Exception):
    __class__ = Snooze  # type: ignore[assignment]


class Group(ExceptionGroup[Exception]):
    @property
    def exceptions(self) -> Any:
        raise LookupError


class Hidden(type):
    @property
    def __name__(cls) -> Any:  # type: ignore[override]
        raise ValueError("the name")

    @property
    def __module__(cls) -> Any:  # type: ignore[override]
        return _Text("module")

    def __instancecheck__(cls, instance: Any) -> bool:
        raise SystemExit


class Masked(Exception, metaclass=Hidden): ...


def unshown(kind: str) -> str:
    return f"<the message cannot be shown: str() raised {kind}>"


def text(name: str, answer: Callable[[], Any]) -> BaseException:
    kind: type[Exception] = type(name, (Exception,), {"__str__": lambda self: answer()})
    return kind("argument")


def throw(error: BaseException) -> Any:
    raise error


def recurse() -> Any:
    return recurse()


def deep_group(depth: int) -> BaseException:
    error: Exception = ValueError("the innermost")
    for _ in range(depth):
        error = ExceptionGroup("group", [error])
    return error


def long_chain(length: int) -> BaseException:
    error = first = ValueError("the first")
    for number in range(length):
        error, before = ValueError(str(number)), error
        error.__cause__ = before
    assert first is not error
    return error


def cycle() -> BaseException:
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    one.__context__, two.__context__ = two, two
    return one


def with_notes(notes: Any) -> BaseException:
    error = ValueError("noted")
    error.__notes__ = notes
    return error


def syntax_error() -> BaseException:
    error = SyntaxError("odd")
    error.filename, error.lineno, error.text, error.offset, error.end_offset = 5, "x", b"\xff", 10**30, -1  # type: ignore
    return error


class Decode(UnicodeDecodeError):
    def __init__(self) -> None: ...


class Long(Exception): ...


Long.__name__ = Long.__qualname__ = "N" * 200_000
Long.__module__ = "m" * 200_000


class Odd(Exception): ...


Odd.__name__ = Odd.__qualname__ = _Text("Odd")
Odd.__module__ = 5  # type: ignore[assignment]

ODD: dict[str, tuple[Callable[[], BaseException], str, str]] = {
    "getattr": (lambda: Lookup("message"), "Lookup", "message"),
    "getattribute": (lambda: Attribute("message"), "Attribute", "message"),
    "lies": (lambda: Liar("message"), "Liar", "message"),
    "impostor": (lambda: Impostor("message"), "Impostor", "message"),
    "metaclass": (lambda: Masked("message"), "Masked", "message"),
    "long name": (lambda: Long("message"), "N" * 199 + "…", "message"),
    "odd name": (lambda: Odd("message"), "Odd", "message"),
    "str raises": (lambda: text("T", lambda: {}["x"]), "T", unshown("KeyError")),
    "str exits": (lambda: text("T", lambda: sys.exit(1)), "T", unshown("SystemExit")),
    "str breaks": (lambda: text("T", lambda: throw(Lookup())), "T", unshown("Lookup")),
    "str interrupts": (lambda: text("T", lambda: throw(AttemptTimeout(1))), "T", unshown("AttemptTimeout")),
    "str returns none": (lambda: text("T", lambda: None), "T", unshown("TypeError")),
    "str recurses": (lambda: text("T", recurse), "T", unshown("RecursionError")),
    "str is odd": (lambda: text("T", lambda: _Text("odd")), "T", "odd"),
    "str is huge": (lambda: text("T", lambda: "x" * 10**7), "T", "x" * (MAX_MESSAGE - 1) + "…"),
    "str is unstorable": (lambda: text("T", lambda: "a\x00b\ud800c"), "T", "a\ufffdb\ufffdc"),
    "argument": (lambda: ValueError(text("T", lambda: {}["x"])), "ValueError", unshown("KeyError")),
    "huge number": (lambda: ValueError(10**5000), "ValueError", unshown("ValueError")),
    "no arguments": (lambda: ValueError(), "ValueError", ""),
    "group overrides": (lambda: Group("message", [ValueError()]), "Group", "message (1 sub-exception)"),
    "deep group": (lambda: deep_group(10_000), "ExceptionGroup", "group (1 sub-exception)"),
    "wide group": (lambda: ExceptionGroup("g", [ValueError()] * 10_000), "ExceptionGroup", "g (10000 sub-exceptions)"),
    "long chain": (lambda: long_chain(10_000), "ValueError", "9999"),
    "cycle": (cycle, "ValueError", "one"),
    "many notes": (lambda: with_notes(["x" * 100] * 10**6), "ValueError", "noted"),
    "odd notes": (lambda: with_notes([5, None, _Text("n"), "\x00\ud800", object()]), "ValueError", "noted"),
    "notes are no list": (lambda: with_notes(Lookup()), "ValueError", "noted"),
    "syntax": (syntax_error, "SyntaxError", "odd"),
    "decode": (lambda: Decode(), "Decode", ""),
    "recursion": (lambda: RecursionError(), "RecursionError", ""),
    "memory": (lambda: MemoryError(), "MemoryError", ""),
    "interrupt": (lambda: KeyboardInterrupt(), "KeyboardInterrupt", ""),
    "generator": (lambda: GeneratorExit(), "GeneratorExit", ""),
    "exit": (lambda: SystemExit(0), "SystemExit", "0"),
    "stop": (lambda: StopIteration(3), "StopIteration", "3"),
    "stop async": (lambda: StopAsyncIteration(), "StopAsyncIteration", ""),
    "async": (lambda: asyncio.CancelledError(), "CancelledError", ""),
    "base": (lambda: BaseException("own"), "BaseException", "own"),
    "not ours": (lambda: WorkerShutdown("by the handler itself"), "WorkerShutdown", "by the handler itself"),
    "nor this": (lambda: Cancelled("by the handler itself"), "Cancelled", "by the handler itself"),
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_unusual_exception_is_a_failure_of_its_type(name: str, kind: type[Deadline]) -> None:
    make, type_, message = ODD[name]
    found = failure(run(lambda payload, ctx: throw(make()), kind))
    assert (found.type, found.message) == (type_, message)


@pytest.mark.parametrize("name", ODD)
def test_unusual_exception_in_a_chain_breaks_no_text(name: str) -> None:
    def function(payload: Any, ctx: Context) -> None:
        try:
            throw(ODD[name][0]())
        except BaseException as error:
            raise BaseExceptionGroup("outer", [error, ValueError("inner")]) from error

    found = failure(run(function))
    assert found.type == ("ExceptionGroup" if issubclass(type(ODD[name][0]()), Exception) else "BaseExceptionGroup")
    assert found.traceback is not None
    assert "outer" in found.traceback


def test_deep_recursion_is_shown_in_part(kind: type[Deadline]) -> None:
    def one(depth: int) -> Any:
        return two(depth)

    def two(depth: int) -> Any:
        return one(depth + 1)

    found = failure(run(lambda payload, ctx: one(0), kind))
    assert found.type == "RecursionError"
    assert found.traceback is not None
    assert "frames were left out" in found.traceback
    assert found.traceback.count("\n") < 400


def test_message_is_read_once() -> None:
    calls: list[int] = []
    error = text("Counted", lambda: calls.append(1) or "counted")
    found = failure(run(raising(error)))
    assert (found.message, len(calls)) == ("counted", 1)


@pytest.mark.parametrize("swallows", [False, True])
def test_slow_message_is_abandoned(swallows: bool, kind: type[Deadline], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "TEXT_SECONDS", 0.2)
    calls: list[int] = []

    def slow() -> str:
        calls.append(1)
        try:
            while True:
                time.sleep(0.01)
        except BaseException:
            if swallows:
                raise ValueError("other") from None
            raise

    def function(payload: Any, ctx: Context) -> None:
        try:
            throw(text("Inner", slow))
        except Exception as error:
            raise text("Slow", slow) from error

    began = time.monotonic()
    found = failure(run(function, kind))
    assert (found.type, found.message, len(calls)) == ("Slow", NO_TIME, 1)
    assert time.monotonic() - began < 5
    # nothing of it comes later
    assert run(lambda payload, ctx: time.sleep(0.5), kind).outcome == Outcome.COMPLETED


def test_slow_destructor_does_not_delay_the_attempt(kind: type[Deadline], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attempts, "TEXT_SECONDS", 0.2)
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)

    class Slow:
        def __del__(self) -> None:
            while True:
                time.sleep(0.01)

    def function(payload: Any, ctx: Context) -> None:
        slow = Slow()
        raise ValueError(id(slow))

    assert failure(run(function, kind)).type == "ValueError"


# --- what the service did


def late(deadline: Deadline) -> None: ...


def cancel(deadline: Deadline) -> None:
    time.sleep(0.2)
    deadline.cancel(0)


def return_uncounted(deadline: Deadline) -> None:
    time.sleep(0.2)
    deadline.stop(WorkerShutdown("the worker shut down"), 0)


INTERRUPTIONS = {
    Outcome.TIMEOUT: (0.2, late),
    Outcome.CANCELLED: (30.0, cancel),
    Outcome.HANDED_BACK: (30.0, return_uncounted),
}


def busy() -> None:
    end = time.monotonic() + 10
    while time.monotonic() < end:
        time.sleep(0.005)


def in_finally() -> None:
    try:
        busy()
    finally:
        raise ConnectionError("in the middle of a query")


def in_except() -> None:
    try:
        busy()
    except BaseException:
        raise RuntimeError("converted")  # noqa: B904


def from_none() -> None:
    try:
        busy()
    except BaseException:
        raise RuntimeError("converted") from None


def swallowed_and_another() -> None:
    with contextlib.suppress(BaseException):
        busy()
    raise KeyError("afterwards")


def as_discard() -> None:
    try:
        busy()
    except BaseException:
        raise Discard("abandoned") from None


def as_snooze() -> None:
    try:
        busy()
    finally:
        raise Snooze(60)


def in_group() -> None:
    try:
        busy()
    except BaseException as error:
        raise BaseExceptionGroup("group", [ValueError(), error]) from None


def by_asyncio() -> None:
    async def main() -> None:
        async def spin() -> None:
            while True:
                time.sleep(0.005)
                await asyncio.sleep(0)

        async with asyncio.TaskGroup() as group:
            group.create_task(spin())
            group.create_task(spin())

    asyncio.run(main())


def by_generator() -> None:
    def items() -> Iterator[int]:
        try:
            busy()
            yield 1
        finally:
            raise ValueError("in a generator")

    list(items())


def by_exit() -> None:
    try:
        busy()
    finally:
        sys.exit(0)


def by_context_manager() -> None:
    @contextlib.contextmanager
    def session() -> Iterator[None]:
        try:
            yield
        except BaseException:
            raise OSError("rollback failed") from None

    with session():
        busy()


WRAPPERS = [
    busy,
    in_finally,
    in_except,
    from_none,
    swallowed_and_another,
    as_discard,
    as_snooze,
    in_group,
    by_asyncio,
    by_generator,
    by_exit,
    by_context_manager,
]


@pytest.mark.parametrize("outcome", INTERRUPTIONS)
@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_interruption_by_the_service_wins_over_any_exception(
    wrapper: Callable[[], None], outcome: Outcome, kind: type[Deadline]
) -> None:
    timeout, act = INTERRUPTIONS[outcome]
    end = run(lambda payload, ctx: wrapper(), kind, timeout, act)
    assert end.outcome == outcome, end
    if outcome == Outcome.TIMEOUT:
        found = failure(end, outcome)
        assert (found.type, found.message) == ("Timeout", "the attempt took longer than its 0.2 s")
    else:
        assert end.failure is None


@pytest.mark.parametrize(
    ("interruption", "outcome"),
    [
        (Outcome.TIMEOUT, Outcome.COMPLETED),
        (Outcome.HANDED_BACK, Outcome.COMPLETED),
        (Outcome.CANCELLED, Outcome.CANCELLED),
    ],
)
def test_swallowed_interruption_completes_unless_it_was_a_cancel(
    interruption: Outcome, outcome: Outcome, kind: type[Deadline]
) -> None:
    def function(payload: Any, ctx: Context) -> str:
        with contextlib.suppress(BaseException):
            busy()
        return "done"

    timeout, act = INTERRUPTIONS[interruption]
    end = run(function, kind, timeout, act)
    assert (end.outcome, end.result) == (outcome, "done" if outcome == Outcome.COMPLETED else None)


def test_failure_before_the_interruption_is_a_failure(kind: type[Deadline]) -> None:
    assert failure(run(raising(ValueError("own")), kind, 0.5)).type == "ValueError"


def test_result_is_serialized_within_the_timeout(kind: type[Deadline]) -> None:
    class Endless(dict):  # type: ignore[type-arg]
        def items(self) -> Any:
            busy()
            return []

    assert run(lambda payload, ctx: Endless(a=1), kind, 0.2).outcome == Outcome.TIMEOUT


def test_interruption_is_shown_with_its_place_in_the_code(kind: type[Deadline]) -> None:
    found = failure(run(lambda payload, ctx: in_finally(), kind, 0.2), Outcome.TIMEOUT)
    assert found.traceback is not None
    assert "AttemptTimeout: the attempt took longer than its 0.2 s" in found.traceback
    assert "ConnectionError: in the middle of a query" in found.traceback
    assert "in busy" in found.traceback


# --- Discard, Snooze and RetryAfter


def chained(error: BaseException) -> Function:
    def function(payload: Any, ctx: Context) -> None:
        try:
            raise error
        except BaseException as caught:
            raise ValueError("wrapper") from caught

    return function


def within_context(error: BaseException) -> Function:
    def function(payload: Any, ctx: Context) -> None:
        try:
            raise error
        finally:
            raise ConnectionError("clean-up")

    return function


def within_group(error: Exception) -> Function:
    return raising(ExceptionGroup("outer", [OSError(), ExceptionGroup("inner", [KeyError(), error])]))


def within_task_group(error: Exception) -> Function:
    async def fail() -> None:
        raise error

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(fail())
            group.create_task(asyncio.sleep(10))

    return lambda payload, ctx: asyncio.run(main())


def within_pool(error: Exception) -> Function:
    def function(payload: Any, ctx: Context) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(throw, error).result()

    return function


def within_all(error: Exception) -> Function:
    def function(payload: Any, ctx: Context) -> None:
        try:
            within_group(error)(payload, ctx)
        except Exception as caught:
            try:
                raise RuntimeError from caught
            finally:
                raise ExceptionGroup("last", [ValueError(), TypeError()])

    return function


def far_down(error: Exception) -> Function:
    def function(payload: Any, ctx: Context) -> None:
        wrapped = error
        for _ in range(10_000):
            wrapped = ExceptionGroup("g", [wrapped])
        raise wrapped

    return function


class Missing(Discard):
    def __str__(self) -> str:
        return "missing"


WITHIN = [raising, chained, within_context, within_group, within_task_group, within_pool, within_all, far_down]


@pytest.mark.parametrize("wrap", WITHIN)
def test_wrapped_control_exceptions_are_honoured(wrap: Callable[[Exception], Function], kind: type[Deadline]) -> None:
    found = failure(run(wrap(Discard("404")), kind), Outcome.DISCARDED)
    assert (found.type, found.message) == ("Discard", "404")
    found = failure(run(wrap(Missing()), kind), Outcome.DISCARDED)
    assert (found.type, found.message) == ("Missing", "missing")
    end = run(wrap(Snooze(7)), kind)
    assert (end.outcome, end.delay, end.failure) == (Outcome.SNOOZED, 7.0, None)
    end = run(wrap(RetryAfter(9, "later")), kind)
    assert (failure(end).type, failure(end).message, end.delay) == ("RetryAfter", "later", 9.0)


def test_suppressed_control_exception_is_ignored() -> None:
    def function(payload: Any, ctx: Context) -> None:
        try:
            raise Discard("not so bad")
        except Discard:
            raise ValueError("try again") from None

    assert failure(run(function)).type == "ValueError"


@pytest.mark.parametrize(
    ("inner", "outer", "outcome"),
    [
        (Snooze(5), Discard("x"), Outcome.DISCARDED),
        (Discard("x"), Snooze(5), Outcome.SNOOZED),
        (Discard("x"), RetryAfter(5, "x"), Outcome.FAILED),
    ],
)
def test_last_raised_control_exception_wins(inner: Exception, outer: Exception, outcome: Outcome) -> None:
    def function(payload: Any, ctx: Context) -> None:
        try:
            raise inner
        except Exception as caught:
            raise outer from caught

    assert run(function).outcome == outcome


def test_in_a_group_discard_wins_over_snooze_over_retry_in() -> None:
    assert run(raising(ExceptionGroup("", [RetryAfter(1, ""), Snooze(1), Discard()]))).outcome == Outcome.DISCARDED
    assert run(raising(ExceptionGroup("", [RetryAfter(1, ""), Snooze(1)]))).outcome == Outcome.SNOOZED


class Bare(Snooze):
    def __init__(self) -> None: ...


class Broken(Snooze):
    def __init__(self, seconds: Any) -> None:
        self.seconds = seconds


class Fixed(Snooze):
    seconds = 5  # type: ignore[assignment]

    def __init__(self) -> None: ...


def test_snooze_without_valid_seconds_is_a_failure() -> None:
    assert failure(run(raising(Bare()))).type == "Bare"
    for seconds in (float("nan"), -1, 10**400, "x", None, Lookup()):
        assert failure(run(raising(Broken(seconds)))).type == "Broken"
    assert run(raising(Fixed())).delay == 5.0


# --- memory


class Load:
    """Something that is to go."""


def kept_by_frame(load: Load) -> None:
    raise ValueError("plain")


def kept_by_chain(load: Load) -> None:
    try:
        kept_by_frame(load)
    except ValueError as error:
        raise KeyError from error


def kept_by_group(load: Load) -> None:
    try:
        kept_by_chain(load)
    except KeyError as error:
        raise ExceptionGroup("g", [error, ValueError()]) from None


def kept_by_itself(load: Load) -> None:
    kept = []
    try:
        raise ValueError
    except ValueError as error:
        kept.append(error)
        raise


def kept_by_discard(load: Load) -> None:
    raise Discard


def kept_by_snooze(load: Load) -> None:
    raise Snooze(1)


def kept_by_timeout(load: Load) -> None:
    in_finally()


def kept_by_pool(load: Load) -> None:
    with ThreadPoolExecutor(1) as pool:
        pool.submit(kept_by_chain, load).result()


class BadText(Exception):
    def __str__(self) -> str:
        raise ValueError(self.args)


def kept_by_bad_str(load: Load) -> None:
    raise BadText(load)


HOLDERS = [
    kept_by_frame,
    kept_by_chain,
    kept_by_group,
    kept_by_itself,
    kept_by_discard,
    kept_by_snooze,
    kept_by_timeout,
    kept_by_pool,
    kept_by_bad_str,
]


@pytest.mark.parametrize("holder", HOLDERS)
def test_failed_attempt_is_freed_without_garbage_collection(
    holder: Callable[[Load], None], kind: type[Deadline]
) -> None:
    kept: list[weakref.ref[Load]] = []

    def function(payload: Any, ctx: Context) -> None:
        load = Load()
        kept.append(weakref.ref(load))
        holder(load)

    gc.disable()
    try:
        assert run(function, kind, 0.2).outcome != Outcome.COMPLETED
        assert kept[0]() is None
    finally:
        gc.enable()


def test_kept_exception_has_no_frames_and_no_chain(kind: type[Deadline]) -> None:
    kept = ValueError("one for all")

    def function(payload: Any, ctx: Context) -> None:
        raise kept from KeyError()

    assert failure(run(function, kind)).type == "ValueError"
    assert (kept.__traceback__, kept.__cause__, kept.__context__) == (None, None, None)


# --- results


def circular() -> Any:
    value: list[Any] = []
    value.append(value)
    return value


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


class Mapping(dict):  # type: ignore[type-arg]
    def __init__(self, answer: Callable[[], Any]) -> None:
        super().__init__(a=1)
        self._answer = answer

    def items(self) -> Any:
        return self._answer()


UNSERIALIZABLE: dict[str, Callable[[], Any]] = {
    "int and text": lambda: {1: "int", "1": "str"},
    "none and text": lambda: {None: 1, "null": 2},
    "true and text": lambda: {True: 1, "true": 2},
    "float and text": lambda: {1.5: 1, "1.5": 2},
    "whole float and text": lambda: {1.0: 1, "1.0": 2},
    "nested": lambda: {"a": [{"b": {2: 1, "2": 2}}]},
    "mapping": lambda: Mapping(lambda: [("a", 1), ("a", 2)]),
    "nan": lambda: [float("nan")],
    "infinite key": lambda: {float("inf"): 1},
    "circular": circular,
    "deep": lambda: nested(200),
    "very deep": lambda: nested(100_000),
    "bytes": lambda: b"x",
    "set": lambda: {1},
    "exception": lambda: ValueError(),
    "huge number": lambda: 10**5000,
    "surrogate": lambda: "\ud800",
    "surrogate key": lambda: {"\ud800": 1},
    "nul": lambda: {"a": ["\x00"]},
    "tuple key": lambda: {(1, 2): 1},
    "raises": lambda: Mapping(lambda: {}["x"]),
    "exits": lambda: Mapping(lambda: sys.exit(1)),
    "interrupts": lambda: Mapping(lambda: throw(KeyboardInterrupt())),
    "odd": lambda: Mapping(lambda: throw(Attribute())),
    "items are none": lambda: Mapping(lambda: None),
    "discards": lambda: Mapping(lambda: throw(text("T", lambda: {}["x"]))),
    "large": lambda: "x" * MAX_RESULT,
    "large in bytes": lambda: "ü" * (MAX_RESULT // 2),
    "much too large": lambda: "x" * (4 * MAX_RESULT),
}  # fmt: skip


@pytest.mark.parametrize("name", UNSERIALIZABLE)
def test_result_that_is_not_json_is_a_failure(name: str) -> None:
    found = failure(run(lambda payload, ctx: UNSERIALIZABLE[name]()))
    assert found.type == "UnserializableResult"
    assert found.message.startswith("the result")


SERIALIZABLE: dict[str, tuple[Callable[[], Any], Any]] = {
    "keys that differ": (lambda: {1: 1, "01": 2, 1.5: 3, None: 4}, {"1": 1, "01": 2, "1.5": 3, "null": 4}),
    "text": (lambda: [_Text("x")], ["x"]),
    "pair": (lambda: "\ud83d\ude00", "\U0001f600"),
    "number": (lambda: 10**4000, 10**4000),
    "tuple": (lambda: (1, (2,)), [1, [2]]),
    "mapping": (lambda: Mapping(lambda: [("b", 2)]), {"b": 2}),
    "false": (lambda: False, False),
    "as large as may be": (lambda: "ü" * (MAX_RESULT // 2 - 1), "ü" * (MAX_RESULT // 2 - 1)),
}


@pytest.mark.parametrize("name", SERIALIZABLE)
def test_result_is_stored_as_json(name: str) -> None:
    make, expected = SERIALIZABLE[name]
    end = run(lambda payload, ctx: make())
    assert (end.outcome, end.failure) == (Outcome.COMPLETED, None)
    assert end.result == expected
