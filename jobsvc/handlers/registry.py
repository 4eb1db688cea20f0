"""The registry of handlers, to which `@handler` adds."""

import inspect
import typing
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import to_json

from jobsvc.config import settings
from jobsvc.errors import HandlerError
from jobsvc.handlers.context import Context, Discard
from jobsvc.handlers.rate_limit import RateLimitPolicy
from jobsvc.handlers.retry_policy import DEFAULT_RETRY, DEFAULT_TIMEOUT, Duration, RetryPolicy
from jobsvc.printable import describe_exception
from jobsvc.processes.forks import Boundary

DELIVERY = "WEBHOOK"
"""The type of the jobs that deliver webhooks; the service creates them itself."""

MAX_PROBLEMS = 20
"""Maximum number of problems in the message of InvalidPayload."""

_boundary = Boundary()


class InvalidPayload(Discard):
    """The stored payload doesn't fit the handler's schema: the job was enqueued in SQL, or by another version."""


@dataclass(frozen=True)
class Handler:
    """A registered handler and its defaults. `queue` is None if it names none; `is_async`: call it by `call_async`."""

    name: str
    function: Callable[..., Any]
    payload: TypeAdapter[Any]
    takes_context: bool
    queue: str | None
    timeout: float
    retry: RetryPolicy
    isolated: bool
    is_async: bool
    rate_limit: RateLimitPolicy | None

    @property
    def shares_loop(self) -> bool:
        """True if its attempts need neither a thread nor a process of their own."""
        return self.is_async and not self.isolated

    @property
    def default_queue(self) -> str:
        """The queue of jobs that give none."""
        return self.queue or settings().default_queue

    @property
    def description(self) -> str | None:
        """The function's docstring."""
        return inspect.getdoc(self.function)

    @cached_property
    def _fixed_intervals(self) -> list[float]:
        return self.retry.intervals()

    def retry_policy(self, own: RetryPolicy | None) -> RetryPolicy:
        """Return the retry policy of a job that gives `own`, with this handler's where that leaves something out."""
        return own.over(self.retry) if own else self.retry

    def retry_intervals(self, own: RetryPolicy | None = None) -> list[float]:
        """Return the retry intervals (seconds) of a new job that gives `own`; a backoff draws them for each call."""
        if own is None and self.retry.backoff is None:
            return self._fixed_intervals
        return self.retry_policy(own).intervals()

    def payload_schema(self) -> dict[str, Any]:
        """Return the payload's JSON Schema (2020-12); any object, if the annotation has no schema."""
        try:
            return self.payload.json_schema()
        except PydanticInvalidForJsonSchema:
            return {"type": "object"}

    def parse(self, payload: dict[str, Any]) -> Any:
        """Return the payload as the annotated type. Raises pydantic's ValidationError."""
        # Through JSON, where strict means JSON's types: a date may be given as text, a number may not.
        return self.payload.validate_json(to_json(payload), strict=True)

    def __call__(self, payload: dict[str, Any], context: Context) -> Any:
        """Run the handler; returns and raises what it does. Raises InvalidPayload."""
        with _boundary:
            return self.function(*self._arguments(payload, context))

    async def call_async(self, payload: dict[str, Any], context: Context) -> Any:
        """Run an async handler; returns and raises as a call does."""
        with _boundary:
            return await self.function(*self._arguments(payload, context))

    def _arguments(self, payload: dict[str, Any], context: Context) -> tuple[Any, ...]:
        try:
            parsed = self.parse(payload)
        except ValidationError as error:
            raise InvalidPayload(_describe(error)) from None
        return (parsed, context) if self.takes_context else (parsed,)


def _describe(error: ValidationError) -> str:
    """Return pydantic's problems with their JSON pointers, without the values."""
    found = error.errors(include_url=False, include_context=False, include_input=False)[:MAX_PROBLEMS]
    return "; ".join(f"{''.join(f'/{part}' for part in one['loc'])}: {one['msg']}" for one in found)


F = TypeVar("F", bound=Callable[..., Any])

_handlers: dict[str, Handler] = {}
_OPTIONS = {RetryPolicy.__name__: "retry", RateLimitPolicy.__name__: "rate_limit"}


def handler(
    name: str,
    *,
    queue: str | None = None,
    timeout: float = DEFAULT_TIMEOUT,
    retry: dict[str, Any] | RetryPolicy = DEFAULT_RETRY,
    isolated: bool = False,
    rate_limit: dict[str, Any] | None = None,
) -> Callable[[F], F]:
    """Register a function, which may be `async def`, as the handler of the job type `name`.

    The function takes the payload, validated by its annotation, and optionally a Context.
    `timeout` is seconds for one attempt; `retry` is {"max": n, "interval": seconds or a list},
    or {"max": n, "backoff": {"initial": seconds}} (see BackoffPolicy).
    An `isolated` handler runs in its own process, forked for each attempt.
    `rate_limit` is {"limit": starts, "per": seconds}, with a "key" if the limit is not the type's own.

    Raises HandlerError if the name is taken or a default is invalid.
    """

    if not isinstance(name, str) or not name or not name.isprintable():
        raise HandlerError('a handler needs a name, written as @handler("NAME"), without control characters')
    if not isinstance(queue, str | None) or not isinstance(isolated, bool):
        raise HandlerError(f"{name}: queue must be the name of a queue, and isolated True or False")
    if not isinstance(rate_limit, dict | None):
        raise HandlerError(f'{name}: rate_limit must be a dict, like {{"limit": 100, "per": 60}}')

    def register(function: F) -> F:
        if name in _handlers:
            raise HandlerError(f"{name}: there are two handlers of this name")
        try:
            code = _code_of(function)
            payload, takes_context = _signature(function, code)
            _handlers[name] = Handler(
                name=name,
                function=function,
                payload=TypeAdapter(payload),
                takes_context=takes_context,
                queue=queue,
                timeout=TypeAdapter(Duration).validate_python(timeout),
                retry=RetryPolicy.model_validate(retry).over(DEFAULT_RETRY),
                isolated=isolated,
                is_async=inspect.iscoroutinefunction(code),
                rate_limit=None if rate_limit is None else RateLimitPolicy.model_validate({"key": name, **rate_limit}),
            )
        except ValidationError as error:
            option = _OPTIONS.get(error.title, "timeout")
            first = error.errors(include_url=False, include_input=False)[0]
            raise HandlerError(f"{name}: {'.'.join(map(str, (option, *first['loc'])))}: {first['msg']}") from error
        except Exception as error:  # pydantic, or an annotation's own code, may raise anything
            raise HandlerError(f"{name}: {describe_exception(error)}") from error
        return function

    return register


def _code_of(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function whose code runs: that of a `partial`, or the `__call__` of another object."""
    while isinstance(function, partial):
        function = function.func
    is_callable_object = not inspect.isroutine(function) and not inspect.isclass(function)
    return type(function).__call__ if is_callable_object else function


def _signature(function: Callable[..., Any], code: Callable[..., Any]) -> tuple[Any, bool]:
    """Return the payload's annotation, dict[str, Any] if it has none, and True if the function takes a context."""
    if inspect.isasyncgenfunction(code):
        raise TypeError("an async generator can't be a handler; return the result instead of yielding values")
    parameters = [one.name for one in inspect.signature(function).parameters.values() if not _is_option(one)]
    if len(parameters) not in (1, 2):
        raise TypeError("a handler takes the payload and, if it wants it, the context")
    hints = typing.get_type_hints(code, include_extras=True)
    return hints.get(parameters[0], dict[str, Any]), len(parameters) == 2


def _is_option(parameter: inspect.Parameter) -> bool:
    """Return True if a call needs no such argument, as of those that a `partial` has set by name."""
    return parameter.kind is parameter.KEYWORD_ONLY and parameter.default is not parameter.empty


def every() -> Collection[Handler]:
    """Return all handlers, including those of the service's own jobs."""
    return _handlers.values()


def find(name: str) -> Handler | None:
    """Return the handler of this job type, or None."""
    return _handlers.get(name)


def types() -> frozenset[str]:
    """Return all job types that this process can run, including DELIVERY."""
    return frozenset(_handlers)


def loop_types() -> frozenset[str]:
    """Return the types among `types` whose jobs share an event loop."""
    return frozenset(name for name, one in _handlers.items() if one.shares_loop)


def names() -> list[str]:
    """Return the job types that a client can post, sorted."""
    return sorted(set(_handlers) - {DELIVERY})
