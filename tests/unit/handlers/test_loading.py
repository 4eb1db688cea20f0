"""Modules of handlers that can't be imported: one line that names file and line.

Ways in which that happens: syntax and indentation errors, source that is not UTF-8 or has NUL bytes; imports that
fail, in the module and in one that it imports; SystemExit, KeyboardInterrupt and any other BaseException, also with
a text that can't be made; a name that is taken; wrong arguments of the decorator, or none; payload annotations that
are no schema; functions that can't be handlers; queues that are not served; folders and names that are no modules.
The processes that say so are in tests/acceptance/test_startup.py.
"""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from jobsvc.errors import HandlerError
from jobsvc.handlers import load, registry

load([], ["default"])  # as the tests find them, the built-in handlers are there

HEAD = "from jobsvc import handler\n"


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    handlers, modules = dict(registry._handlers), set(sys.modules)
    yield
    registry._handlers.clear()
    registry._handlers.update(handlers)
    for name in set(sys.modules) - modules:
        del sys.modules[name]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    return tmp_path


def refused(*modules: str) -> str:
    with pytest.raises(HandlerError) as caught:
        load(modules, ["default"])
    line = str(caught.value)
    assert line.startswith("JOBSVC_HANDLERS: ")
    assert line.isprintable()
    return line.removeprefix("JOBSVC_HANDLERS: ")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("\n\ndef to str\n", "line 3: expected '(': def to str"),
        ("if 1:\nx = 1\n", "line 2: expected an indented block after 'if' statement on line 1: x = 1"),
        (b"x = 1\ny = '\xff'\n", "line 2: (unicode error)"),
        (b"x = 1\ny\0 = 2\n", "line 2: source code string cannot contain null bytes"),
        ("# coding: nosuch\n", "line 1: unknown encoding: nosuch"),
        ("\nimport nosuchmodule\n", "line 2: ModuleNotFoundError: No module named 'nosuchmodule'"),
        ("from os import nosuchname\n", "line 1: ImportError: cannot import name 'nosuchname' from 'os'"),
        ("import json\njson.loads('x')\n", "line 2: JSONDecodeError: Expecting value"),
        ("import sys\nsys.exit(0)\n", "line 2: SystemExit: 0"),
        ("import sys\n\nsys.exit()\n", "line 3: SystemExit"),
        ("raise KeyboardInterrupt\n", "line 1: KeyboardInterrupt"),
        ("raise BaseException('a\\nb\\x1b[31m')\n", r"line 1: BaseException: a b\x1b[31m"),
        ("raise ExceptionGroup('g', [ValueError(1)])\n", "line 1: ExceptionGroup: g (1 sub-exception)"),
        ("class E(Exception):\n    def __str__(self): raise ValueError\n\nraise E\n", "line 4: E"),
        ("class E(Exception):\n    def __getattr__(self, name): 1 / 0\n\nraise E('x')\n", "line 4: E: x"),
        ("def f(): f()\nf()\n", "line 1: RecursionError: maximum recursion depth exceeded"),
        ("eval('1 +')\n", "line 1: invalid syntax: 1 +"),
        (HEAD + "@handler('TEST_JOB')\ndef f(p): ...\n", "line 2: TEST_JOB: there are two handlers of this name"),
        (HEAD + "for _ in '12':\n    handler('A')(lambda p: p)\n", "line 3: A: there are two handlers of this name"),
        (HEAD + "@handler\ndef f(p): ...\n", 'line 2: a handler needs a name, written as @handler("NAME")'),
        (HEAD + "@handler()\ndef f(p): ...\n", "line 2: TypeError: handler() missing 1 required positional argument"),
        (HEAD + "@handler('')\ndef f(p): ...\n", "line 2: a handler needs a name"),
        (HEAD + "@handler('a\\nb')\ndef f(p): ...\n", "line 2: a handler needs a name"),
        (HEAD + "@handler('A', often=1)\ndef f(p): ...\n", "line 2: TypeError: handler() got an unexpected keyword"),
        (HEAD + "@handler('A', retry={'max': -1})\ndef f(p): ...\n", "line 2: A: retry.max: Input should be greater"),
        (HEAD + "@handler('A', retry=5)\ndef f(p): ...\n", "line 2: A: retry: Input should be"),
        (HEAD + "@handler('A', timeout='x')\ndef f(p): ...\n", "line 2: A: timeout: Input should be a valid number"),
        (HEAD + "@handler('A', queue=['x'])\ndef f(p): ...\n", "line 2: A: queue must be the name of a queue"),
        (HEAD + "@handler('A', isolated='no')\ndef f(p): ...\n", "line 2: A: queue must be the name of a queue, and"),
        (HEAD + "@handler('A', queue='x')\ndef f(p): ...\n", "line 2: A: its queue 'x' is not among JOBSVC_QUEUES"),
        (
            HEAD + "class X: ...\n@handler('A')\ndef f(p: X): ...\n",
            "line 3: A: Unable to generate pydantic-core schema",
        ),
        (HEAD + "@handler('A')\ndef f(p: 'Nope'): ...\n", "line 2: A: name 'Nope' is not defined"),
        (HEAD + "@handler('A')\ndef f(p: 5): ...\n", "line 2: A: "),
        (HEAD + "@handler('A')\ndef f(): ...\n", "line 2: A: a handler takes the payload"),
        (HEAD + "\nhandler('A')(5)\n", "line 3: A: 5 is not a callable object"),
        (HEAD + "\nhandler('A')(dict.get)\n", "line 3: A: "),
    ],
)
def test_failing_module_is_named_with_its_line(folder: Path, source: str | bytes, says: str) -> None:
    (folder / "mail.py").write_bytes(source if isinstance(source, bytes) else source.encode())
    assert refused("mail").startswith(f"mail.py, {says}")


def test_innermost_file_of_the_user_is_named(folder: Path) -> None:
    (folder / "mail.py").write_text("import inside.smtp\n")
    (folder / "inside").mkdir()
    (folder / "inside" / "smtp.py").write_text("\nimport os\nos.listdir('/no/such')\n")
    assert refused("mail").startswith("inside/smtp.py, line 3: FileNotFoundError: ")
    (folder / "inside" / "smtp.py").write_text("import os\n\nprint(\n")
    assert refused("mail") == "inside/smtp.py, line 3: '(' was never closed: print("


def test_file_outside_the_working_directory_has_its_full_path(
    folder: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    monkeypatch.syspath_prepend(elsewhere)
    (elsewhere / "far.py").write_text("1 / 0\n")
    assert refused("far") == f"{elsewhere}/far.py, line 1: ZeroDivisionError: division by zero"


def test_missing_module_is_named(folder: Path) -> None:
    (folder / "parcel").mkdir()
    assert refused("parcel") == "parcel is a folder without __init__.py, so it has no handlers"
    assert refused("no.such") == "no.such can't be imported: ModuleNotFoundError: No module named 'no'"
    (folder / "plain.py").write_text("")
    assert refused("plain.inner").startswith("plain.inner can't be imported: ModuleNotFoundError: ")


def test_module_in_a_folder_without_init_is_imported(folder: Path) -> None:
    (folder / "parcel").mkdir()
    (folder / "parcel" / "mail.py").write_text(HEAD + "@handler('IN_PARCEL')\ndef f(p): ...\n")
    load(["parcel.mail"], ["default"])
    assert "IN_PARCEL" in registry.names()


def test_module_without_handlers_is_imported(folder: Path) -> None:
    (folder / "tracing_setup.py").write_text("print('set up')\n")
    load(["tracing_setup"], ["default"])
