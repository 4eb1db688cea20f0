"""Parts of the server side: memory for clients, WSGI environs, and which payloads are checked quickly."""

import asyncio
from types import SimpleNamespace
from typing import Annotated, Any, Literal

import pytest
from flask import Flask
from pydantic import AfterValidator, BaseModel, Field, TypeAdapter, field_validator

from jobsvc.api.server.adapter import ANSWERS_BYTES, LARGE_BYTES, Adapter
from jobsvc.api.server.budget import Budget
from jobsvc.api.server.environ import UNREADABLE, environ_of
from jobsvc.api.server.plain import _calls_nothing


def test_one_address_gets_half_of_the_budget() -> None:
    budget = Budget(100)
    assert budget.take("a", 30)
    assert not budget.take("a", 30)
    assert budget.take("a", 20)
    assert budget.take("b", 30)
    assert not budget.take("b", 25)
    budget.give_back("a", 50)
    assert budget.take("b", 20)


def test_unused_address_may_send_one_body_of_any_size() -> None:
    budget = Budget(100)
    assert budget.take("a", 1000)
    assert not budget.take("a", 1)
    budget.give_back("a", 1000)
    assert budget.take("a", 1)


class BrokenProtocol:
    """RSGI's protocol of a connection that broke before its response."""

    def response_stream(self, _status: int, _headers: Any) -> Any:
        raise RuntimeError("RSGIProtocolClosed")


def test_a_broken_connection_gives_its_budget_back() -> None:
    app = Flask("large")
    app.add_url_rule("/", view_func=lambda: bytes(LARGE_BYTES))

    async def run() -> Budget:
        adapter = Adapter(app, threads=1, waiters=0)
        adapter.__rsgi_init__(asyncio.get_running_loop())
        with pytest.raises(RuntimeError, match="Closed"):
            await adapter._answer(environ(), b"", BrokenProtocol(), "a")
        return adapter._answers

    budget = asyncio.run(run())
    assert budget.take("b", 1)
    assert budget.take("b", ANSWERS_BYTES // 2 - 1)
    assert budget.take("a", 1)
    assert budget.take("a", ANSWERS_BYTES // 2 - 1), "the broken connection still counts"


class Headers:
    """RSGI's headers: values that are not ASCII are left out, but not their names."""

    def __init__(self, *items: tuple[str, str]) -> None:
        self._items = items

    def items(self) -> list[tuple[str, str]]:
        return [(name, value) for name, value in self._items if value.isascii()]

    def keys(self) -> list[str]:
        return list(dict.fromkeys(name for name, _ in self._items))

    def __len__(self) -> int:
        return len(self.keys())


def environ(path: str = "/", client: str = "127.0.0.1:1", *headers: tuple[str, str]) -> dict[str, Any]:
    about = {"server": "127.0.0.1:3000", "scheme": "http", "method": "GET", "http_version": "1.1", "query_string": ""}
    return environ_of(SimpleNamespace(path=path, client=client, headers=Headers(*headers), authority=None, **about))


def test_headers_are_converted_to_wsgi() -> None:
    found = environ(
        "/",
        "127.0.0.1:1",
        *(("content-type", "a/b"), ("content-length", "1"), ("x-a", "1"), ("x-a", "2"), ("cookie", "a=1")),
        *(("cookie", "b=2"), ("host", "h"), ("x_forwarded_for", "1.2.3.4"), ("authorization", "Bearer ü")),
    )
    assert (found["CONTENT_TYPE"], found["CONTENT_LENGTH"], found["HTTP_X_A"]) == ("a/b", "1", "1,2")
    assert (found["HTTP_COOKIE"], found["HTTP_HOST"]) == ("a=1;b=2", "h")
    assert "HTTP_X_FORWARDED_FOR" not in found
    assert found["HTTP_AUTHORIZATION"] == UNREADABLE


@pytest.mark.parametrize(("client", "address"), [("127.0.0.1:80", "127.0.0.1"), ("[::1]:80", "::1")])
def test_remote_address_has_no_port(client: str, address: str) -> None:
    assert environ("/", client)["REMOTE_ADDR"] == address


def test_path_is_kept_as_bytes() -> None:
    assert environ("/ü%")["PATH_INFO"] == "/ü%".encode().decode("latin-1")


class Simple(BaseModel):
    url: str
    width: int = 320
    type: Literal["a", "b"] = "a"
    tags: list[str] = []
    inner: dict[str, "Simple"] | None = None


class Validated(BaseModel):
    name: str

    @field_validator("name")
    @classmethod
    def _check(cls, name: str) -> str:
        return name


class Outer(BaseModel):
    inner: list[Validated]


class Made(BaseModel):
    names: list[str] = Field(default_factory=list)


class Annotation(BaseModel):
    name: Annotated[str, AfterValidator(str.upper)]


class Afterwards(BaseModel):
    def model_post_init(self, context: Any) -> None:
        pass


@pytest.mark.parametrize(
    ("annotation", "is_quick"),
    [
        *((dict, True), (dict[str, Any], True), (Simple, True), (dict[str, Simple], True)),
        *((Validated, False), (Outer, False), (Made, False), (Annotation, False), (Afterwards, False)),
    ],
)
def test_only_payloads_without_custom_code_are_checked_on_the_loop(annotation: Any, is_quick: bool) -> None:
    assert _calls_nothing(TypeAdapter(annotation).core_schema) == is_quick
