"""Handlers: how they are registered, what their defaults mean, what they see."""

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from jobsvc import Context, Discard, Snooze, handler
from jobsvc.errors import HandlerError
from jobsvc.handlers import RetryIn, find, load, names, registry
from jobsvc.handlers.policy import DEFAULT_RETRY, RetryPolicy


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


def test_a_function_is_registered_and_stays_itself() -> None:
    @handler("UNIT", queue="low", timeout=5, retry={"max": 2, "interval": [1, 2]})
    def double(payload: Payload, ctx: Context) -> int:
        return payload.count * 2 + ctx.fence

    assert double(Payload(count=1), context()) == 9
    found = find("UNIT")
    assert found is not None
    assert found({"count": 2}, context()) == 11
    assert (found.queue, found.timeout, found.retry.intervals()) == ("low", 5, [1, 2])
    assert "UNIT" in names()


def test_the_context_may_be_left_out_and_so_may_the_annotation() -> None:
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
    [{"timeout": 0}, {"timeout": "x"}, {"retry": {"max": -1}}, {"retry": {"interval": "x"}}, {"retry": {"often": 1}}],
)
def test_a_default_that_makes_no_sense(options: dict[str, Any]) -> None:
    with pytest.raises(HandlerError, match=r"^UNIT: "):
        handler("UNIT", **options)(lambda payload: None)
    assert find("UNIT") is None


def test_what_cannot_be_a_handler() -> None:
    async def asynchronous(payload: Payload) -> None: ...

    for function in (asynchronous, lambda: None, lambda a, b, c: None):
        with pytest.raises(HandlerError, match=r"^UNIT: "):
            handler("UNIT")(function)


def test_a_name_taken_twice() -> None:
    handler("UNIT")(lambda payload: None)
    with pytest.raises(HandlerError, match="two handlers of this name"):
        handler("UNIT")(lambda payload: None)


def test_loading_brings_the_built_in_ones() -> None:
    load([], ["default"])
    assert {"TEST_JOB", "HTTP_REQUEST"} <= set(names())


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(HandlerError, match=r"^JOBSVC_HANDLERS: no\.such can't be imported"):
        load(["no.such"], ["default"])


def test_a_queue_that_is_not_served() -> None:
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
def test_intervals(given: dict[str, Any], base: dict[str, Any] | None, expected: list[float]) -> None:
    policy = RetryPolicy.model_validate(given)
    assert policy.over(RetryPolicy.model_validate(base or {}).over(DEFAULT_RETRY)).intervals() == expected


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 10**9])
def test_a_wait_that_makes_no_sense(seconds: float) -> None:
    for raise_it in (lambda: Snooze(seconds), lambda: RetryIn(seconds, "")):
        with pytest.raises(ValueError, match="a job can wait"):
            raise_it()


@pytest.mark.parametrize("percent", [-1, 101, float("nan")])
def test_progress_goes_from_0_to_100(percent: float) -> None:
    with pytest.raises(ValueError, match="progress goes from 0 to 100"):
        context().progress(percent)


def test_the_exceptions_say_what_they_mean() -> None:
    assert str(Discard("gone")) == "gone"
    assert Snooze(2).seconds == 2
