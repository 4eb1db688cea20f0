"""Handlers: how they are registered, what their defaults mean, what they see."""

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from fractions import Fraction
from functools import partial
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from jobsvc import Context, Discard, Snooze, handler
from jobsvc.errors import HandlerError
from jobsvc.handlers import RetryAfter, find, load, loop_types, names, registry
from jobsvc.handlers.context import MAX_LINE, MAX_PROGRESS
from jobsvc.handlers.retry_policy import DEFAULT_RETRY, YEAR, BackoffPolicy, RetryPolicy


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    before = dict(registry._handlers)
    yield
    registry._handlers.clear()
    registry._handlers.update(before)


def context() -> Context:
    return Context("id", 1, 4, 7, lambda percent, message: None, lambda line: None)


class Payload(BaseModel):
    count: int


def test_decorated_function_is_registered_and_unchanged() -> None:
    @handler("UNIT", queue="low", timeout=5, retry={"max": 2, "interval": [1, 2]})
    def double(payload: Payload, ctx: Context) -> int:
        return payload.count * 2 + ctx.fence

    assert double(Payload(count=1), context()) == 9
    found = find("UNIT")
    assert found is not None
    assert found({"count": 2}, context()) == 11
    assert (found.queue, found.timeout, found.retry.intervals()) == ("low", 5, [1, 2])
    assert "UNIT" in names()


def test_context_and_annotation_are_optional() -> None:
    @handler("UNIT")
    def plain(payload) -> Any:  # type: ignore[no-untyped-def]
        return payload

    found = find("UNIT")
    assert found is not None
    assert found({"any": [1]}, context()) == {"any": [1]}


def test_payloads_are_strict_json() -> None:
    from datetime import date

    class Dated(BaseModel):
        day: date
        count: int = 0

    @handler("UNIT")
    def dated(payload: Dated) -> None: ...

    found = find("UNIT")
    assert found is not None
    assert found.parse({"day": "2026-01-31"}).day == date(2026, 1, 31)
    for wrong in ({"day": 5}, {"day": "2026-01-31", "count": "1"}, {"day": "2026-01-31", "count": True}):
        with pytest.raises(ValidationError):
            found.parse(wrong)


@pytest.mark.parametrize(
    "options",
    [
        {"timeout": 0},
        {"timeout": "x"},
        {"retry": {"max": -1}},
        {"retry": {"interval": "x"}},
        {"retry": {"often": 1}},
        {"retry": {"backoff": {}}},
        {"retry": {"backoff": {"initial": float("nan")}}},
        {"retry": {"backoff": {"initial": 1}, "interval": 1}},
    ],
)
def test_invalid_default_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(HandlerError, match=r"^UNIT: "):
        handler("UNIT", **options)(lambda payload: None)
    assert find("UNIT") is None


def test_invalid_handler_is_refused() -> None:
    async def generate(payload: Payload) -> AsyncIterator[int]:
        yield 1

    for function in (generate, partial(generate), lambda: None, lambda a, b, c: None):
        with pytest.raises(HandlerError, match=r"^UNIT: "):
            handler("UNIT")(function)


async def asynchronous(payload: Payload, ctx: Context) -> None: ...


async def with_option(payload: Payload, *, option: str) -> None: ...


class AsyncCallable:
    async def __call__(self, payload: Payload) -> None: ...


class SyncCallable:
    def __call__(self, payload: Payload) -> None: ...


KINDS = {
    "function": (asynchronous, True),
    "partial": (partial(with_option, option="set"), True),
    "object": (AsyncCallable(), True),
    "partial of an object": (partial(AsyncCallable()), True),
    "method": (AsyncCallable().__call__, True),
    "sync": (lambda payload: None, False),
    "sync object": (SyncCallable(), False),
    "sync partial": (partial(SyncCallable()), False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_async_handler_is_recognised(kind: str) -> None:
    function, is_async = KINDS[kind]
    handler("UNIT")(function)
    found = find("UNIT")
    assert found is not None
    assert (found.is_async, "UNIT" in loop_types()) == (is_async, is_async)
    if kind != "sync":
        assert found.payload_schema()["title"] == "Payload"


def test_isolated_async_handler_does_not_share_a_loop() -> None:
    handler("UNIT", isolated=True)(asynchronous)
    assert "UNIT" not in loop_types()


def test_duplicate_name_is_refused() -> None:
    handler("UNIT")(lambda payload: None)
    with pytest.raises(HandlerError, match="two handlers of this name"):
        handler("UNIT")(lambda payload: None)


def test_loading_adds_the_built_in_handlers() -> None:
    load([], ["default"])
    assert {"TEST_JOB", "HTTP_REQUEST"} <= set(names())


def test_missing_module_is_refused() -> None:
    with pytest.raises(HandlerError, match=r"^JOBSVC_HANDLERS: no\.such can't be imported"):
        load(["no.such"], ["default"])


def test_unserved_queue_is_refused() -> None:
    handler("UNIT", queue="nowhere")(lambda payload: None)
    with pytest.raises(HandlerError, match=r"UNIT: its queue 'nowhere' is not among JOBSVC_QUEUES"):
        load([], ["default"])


@pytest.mark.parametrize(
    ("given", "base", "expected"),
    [
        ({}, None, [1, 5, 25]),
        ({"max": 0}, None, []),
        ({"max": 5}, None, [1, 5, 25, 25, 25]),
        ({"max": 2}, None, [1, 5]),
        ({"interval": 7}, None, [7, 7, 7]),
        ({"interval": [2, 3]}, None, [2, 3]),
        ({"max": 5, "interval": [1, 2, 4]}, None, [1, 2, 4, 4, 4]),
        ({"max": 1, "interval": [1, 2, 4]}, None, [1]),
        ({"max": 2}, {"interval": [9, 8, 7]}, [9, 8]),
        ({"interval": 3}, {"max": 1, "interval": 9}, [3]),
        ({}, {"max": 0}, []),
        ({"max": 3, "interval": 0}, None, [0, 0, 0]),
        ({"max": 2, "interval": 0.25}, None, [0.25, 0.25]),
    ],
)
def test_intervals_are_computed(given: dict[str, Any], base: dict[str, Any] | None, expected: list[float]) -> None:
    policy = RetryPolicy.model_validate(given)
    assert policy.over(RetryPolicy.model_validate(base or {}).over(DEFAULT_RETRY)).intervals() == expected


EXACT = {"initial": 2, "factor": 3, "max": 50, "jitter": 0}


@pytest.mark.parametrize(
    ("given", "base", "expected"),
    [
        ({"backoff": EXACT}, None, [2, 6, 18]),
        ({"backoff": EXACT, "max": 5}, None, [2, 6, 18, 50, 50]),
        ({"backoff": EXACT, "max": 0}, None, []),
        ({"backoff": EXACT}, {"max": 1, "interval": 7}, [2]),
        ({"backoff": EXACT}, {"max": 2, "backoff": {"initial": 1}}, [2, 6]),
        ({"max": 4}, {"max": 2, "backoff": EXACT}, [2, 6, 18, 50]),
        ({}, {"max": 2, "backoff": EXACT}, [2, 6]),
        ({"interval": 4}, {"max": 2, "backoff": EXACT}, [4, 4]),
        ({"interval": [4, 5, 6]}, {"max": 2, "backoff": EXACT}, [4, 5, 6]),
        ({"backoff": {"initial": 1, "jitter": 0}, "max": 14}, None, [2**n for n in range(12)] + [3600, 3600]),
        ({"backoff": {"initial": 9000, "jitter": 0}, "max": 2}, None, [3600, 3600]),
        (
            {"backoff": {"initial": 1, "factor": 100, "max": YEAR, "jitter": 0}, "max": 5},
            None,
            [1, 100, 1e4, 1e6, YEAR],
        ),
        ({"backoff": {"initial": 1, "max": 0}, "max": 2}, None, [0, 0]),
        ({"backoff": {"initial": YEAR, "factor": 100, "max": 5, "jitter": 0}, "max": 100}, None, [5] * 100),
    ],
)
def test_backoff_grows_up_to_its_maximum(given: dict[str, Any], base: Any, expected: list[float]) -> None:
    policy = RetryPolicy.model_validate(given)
    assert policy.over(RetryPolicy.model_validate(base or {}).over(DEFAULT_RETRY)).intervals() == expected


@pytest.mark.parametrize(("jitter", "low", "high"), [(0.1, 0.9, 1.1), (1, 0, 2)])
def test_jitter_spreads_the_intervals_over_its_range(jitter: float, low: float, high: float) -> None:
    backoff = BackoffPolicy(initial=10, factor=1, jitter=jitter)
    drawn = backoff.draw(1000)
    assert 10 * low <= min(drawn) < 10 * (low + 0.02)
    assert 10 * (high - 0.02) < max(drawn) <= 10 * high
    assert len(set(drawn)) > 990
    assert max(BackoffPolicy(initial=YEAR, max=YEAR, jitter=1).draw(100)) == YEAR


def test_backoff_of_a_handler_is_drawn_for_each_job() -> None:
    handler("UNIT", retry={"max": 4, "backoff": {"initial": 1}})(lambda payload: None)
    found = find("UNIT")
    assert found is not None
    assert found.retry_intervals() != found.retry_intervals()


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 10**9, 10**400, pytest.param(10**5000, id="huge")])
def test_invalid_interval_is_refused(seconds: float) -> None:
    for raise_it in (lambda: Snooze(seconds), lambda: RetryAfter(seconds, "")):
        with pytest.raises(ValueError, match="a job can wait"):
            raise_it()


@pytest.mark.parametrize(
    "percent",
    [-1, 101, 100.0001, float("nan"), float("inf"), Decimal("sNaN"), 10**400, pytest.param(10**5000, id="huge")],
)
def test_progress_is_clamped_to_0_and_100(percent: float) -> None:
    with pytest.raises(ValueError, match="progress goes from 0 to 100"):
        context().progress(percent)


class Number:
    """As numpy's: it has a float, and compares in its own way."""

    def __float__(self) -> float:
        return 5.0

    def __le__(self, other: Any) -> Any:
        raise LookupError

    __ge__ = __lt__ = __gt__ = __le__


@pytest.mark.parametrize("percent", [5, 5.0, Decimal(5), Fraction(10, 2), Number()])
def test_progress_takes_any_number_and_reports_a_float(percent: Any) -> None:
    reported: list[Any] = []
    Context("id", 1, 1, 1, lambda *given: reported.append(given), lambda _: None).progress(percent)
    assert reported == [(5.0, None)]
    assert type(reported[0][0]) is float
    assert Snooze(percent).seconds == 5.0


@pytest.mark.parametrize("percent", ["5", b"5", None, [5], 5j])
def test_progress_refuses_anything_but_numbers(percent: Any) -> None:
    for give in (context().progress, Snooze):
        with pytest.raises(TypeError):
            give(percent)


class Verbose:
    """An object whose text is made anew each time."""

    def __init__(self, text: str) -> None:
        self.text, self.calls = text, 0

    def __str__(self) -> str:
        self.calls += 1
        return self.text


def test_texts_are_cut_cleaned_and_converted_once(caplog: pytest.LogCaptureFixture) -> None:
    reported: list[Any] = []
    kept: list[str] = []
    own = Context("id", 1, 1, 1, lambda *given: reported.append(given), kept.append)
    message, line = Verbose("a\x00\ud800" + "x" * 5_000_000), Verbose("b\x00" + "y" * 5_000_000)
    with caplog.at_level("INFO"):
        own.progress(1, message)  # type: ignore[arg-type]
        own.log(line)  # type: ignore[arg-type]
    [(_, shown)] = reported
    assert (len(shown), shown[:4], shown[-1]) == (MAX_PROGRESS, "a\ufffd\ufffdx", "…")
    assert (len(kept[0]), kept[0][:3], kept[0][-1]) == (MAX_LINE, "b\ufffdy", "…")
    assert len(caplog.text) < 2 * MAX_LINE
    assert (message.calls, line.calls) == (1, 1)


def test_exceptions_keep_their_arguments() -> None:
    assert str(Discard("missing")) == "missing"
    assert Snooze(2).seconds == 2
