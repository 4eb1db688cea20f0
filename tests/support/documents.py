"""The documents of the repository, and their code blocks, which tests run as a reader would.

`<!-- test: parse -->` on the line before a block means that it is checked for its syntax only: it starts servers, or
needs some that a test has not.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from jobsvc.devservices import Postgres
from tests.support.launcher import ROOT
from tests.support.service import Service

PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
CHECKED = ("sh", "console", "python", "json", "sql", "js", "go")
"""The languages of the blocks that are run or parsed."""

PROGRAMS = {
    "js": ("main.mjs", "node main.mjs", "node --check main.mjs"),
    "go": ("main.go", "go run main.go", "gofmt -e"),
}
"""The file of a program in another language, and the commands that run and parse it. Go is not installed everywhere."""

PROGRAM_SECONDS = 200.0
"""Time for such a program: Go compiles its library first."""

EXAMPLE_URL = "http://localhost:3000"
SECONDS = 30.0
"""Time for a command, and for a job to reach the state that a page shows."""

PRELUDE = (
    'set -e\ncurl() { command curl -sS --fail-with-body -m 60 "$@"; }\njobsvc() { .venv/bin/python -m jobsvc "$@"; }\n'
)
_FENCE = re.compile(r"^```(\w*)$(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- test: (.*) -->\n\Z")
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}")
_TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"
_VARIES = re.compile(rf"(?P<gap>…)|(?P<id>{_ID.pattern})|(?P<time>{_TIME})|(?P<event>^id: \d+$)|(?P<space>\s+)", re.M)
"""What may differ from an example's output: `…` is any text, and ids and times are other ones."""

_MAY_BE = {"gap": ".*?", "id": f"({_ID.pattern})", "time": _TIME, "event": r"id: [\d.]+", "space": r"\s*"}
_REFUSAL = '"status":4'


class Block(NamedTuple):
    """A code block: its page, the number of its first line, and whether it is only parsed."""

    page: Path
    line: int
    language: str
    text: str
    is_parsed_only: bool

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Return the page's blocks of the languages in CHECKED. Fails for a mark that is unknown, or marks no block."""
    text = page.read_text()
    found, marks = [], 0
    for fence in _FENCE.finditer(text):
        mark = _MARK.search(text[: fence.start()])
        if mark:
            assert mark[1] == "parse", f"{page.name}: an unknown mark: {mark[1]}"
            marks += 1
        if fence[1] in CHECKED:
            line = text.count("\n", 0, fence.start()) + 1
            found.append(Block(page, line, fence[1], fence[2].lstrip("\n"), mark is not None))
    assert marks == len(re.findall("^<!-- test:", text, re.MULTILINE)), f"{page.name}: a mark that is on no block"
    return found


def commands(block: Block) -> list[tuple[str, str]]:
    """Return each command of a console block with the output that the page shows."""
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert not parts[0], f"{block}: text before the first command"
    split = [re.fullmatch(r"((?:[^\n]*\\\n)*[^\n]*)\n?(.*)", part, re.DOTALL) for part in parts[1:]]
    return [(one[1], one[2]) for one in split if one]


def parse(block: Block) -> None:
    """Check a block's syntax. Fails if it is wrong."""
    if block.language == "json":
        json.loads(block.text)
    elif block.language == "python":
        compile(block.text, str(block), "exec")
    elif block.language in PROGRAMS:
        run_program(block.language, block.text, is_parsed_only=True)
    elif block.language != "sql":  # Postgres checks that
        text = block.text if block.language == "sh" else "\n".join(command for command, _ in commands(block))
        checked = subprocess.run(["bash", "-n", "-c", text], capture_output=True, text=True)
        assert checked.returncode == 0, f"{block}: {checked.stderr}"


def run_program(language: str, text: str, *, is_parsed_only: bool = False) -> str | None:
    """Run or parse a program; returns its output, None if the language is not installed here. Fails if that fails."""
    name, run, check = PROGRAMS[language]
    command = (check if is_parsed_only else run).split()
    if shutil.which(command[0]) is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / name).write_text(text)
        done = subprocess.run(
            command,
            cwd=folder,
            input=text,  # gofmt takes a part of a program only from there
            env={**os.environ, "GO111MODULE": "off"},
            capture_output=True,
            text=True,
            timeout=PROGRAM_SECONDS,
        )
    assert done.returncode == 0, f"{language}: {done.stdout}{done.stderr}"
    return done.stdout


class Reader:
    """Runs the blocks of one page in their order, with a service whose port and ids take the place of the page's."""

    def __init__(self, service: Service) -> None:
        self._service = service
        self._ids: dict[str, str] = {}
        self.names: dict[str, Any] = {"__name__": "page"}
        """The global names of the page's Python."""

    def follow(self, block: Block) -> None:
        """Run a block, or parse it. Fails if that fails, or if a command's output is not the one shown."""
        parse(block)
        if block.is_parsed_only or block.language == "json":
            return
        if block.language == "sql":
            done = self._run_sql(block.text)
            assert done.returncode == 0, f"{block}: {done.stdout}{done.stderr}"
        elif block.language == "python":
            exec(compile(self._with_url(block.text), str(block), "exec"), self.names)
        elif block.language in PROGRAMS:
            run_program(block.language, self._with_url(block.text))
        elif block.language == "sh":
            shell = self._run(block.text)
            assert shell.returncode == 0, f"{block}: {shell.stdout}{shell.stderr}"
        else:
            for command, expected in commands(block):
                self._check(block, command, expected)

    def _check(self, block: Block, command: str, expected: str) -> None:
        """Run a command until its output is as expected; one that may change something is run once."""
        deadline = time.monotonic() + (0 if " -X " in command else SECONDS)
        while True:
            shell = self._run(command)
            is_done = shell.returncode == 0 or _REFUSAL in expected
            if is_done and self._matches(shell.stdout.strip(), expected.strip()):
                return
            if time.monotonic() > deadline:
                raise AssertionError(f"{block}: {command}\nshown: {expected}\nfound: {shell.stdout}{shell.stderr}")
            time.sleep(0.1)

    def _with_url(self, text: str) -> str:
        return text.replace(EXAMPLE_URL, self._service.url)

    def _run(self, command: str) -> subprocess.CompletedProcess[str]:
        command = self._with_url(PRELUDE + command).replace(".venv/bin/", f"{Path(sys.executable).parent}/")
        command = _ID.sub(lambda shown: self._ids.get(shown[0], shown[0]), command)
        return subprocess.run(
            ["bash", "-c", command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            env={**os.environ, **self._service.env},
            cwd=ROOT,
            timeout=2 * SECONDS,
        )

    def _run_sql(self, statements: str) -> subprocess.CompletedProcess[str]:
        psql = Postgres(Path()).wheel() / "pginstall" / "bin" / "psql"
        url = self._service.env.get("DATABASE_URL") or os.environ["DATABASE_URL"]
        command = [str(psql), "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", url]
        return subprocess.run(command, input=statements, capture_output=True, text=True, timeout=2 * SECONDS)

    def _matches(self, output: str, expected: str) -> bool:
        """Return True if an output is the one shown; the ids that are shown first then stand for those found."""
        expected = _ID.sub(lambda shown: self._ids.get(shown[0], shown[0]), expected)
        pattern, shown_ids, end = "", [], 0
        for part in _VARIES.finditer(expected):
            pattern += re.escape(expected[end : part.start()])
            if part.lastgroup == "id" and part[0] in (*shown_ids, *self._ids.values()):
                pattern += rf"\{shown_ids.index(part[0]) + 1}" if part[0] in shown_ids else part[0]
            else:
                pattern += _MAY_BE[part.lastgroup or ""]
                shown_ids += [part[0]] * (part.lastgroup == "id")
            end = part.end()
        found = re.fullmatch(pattern + re.escape(expected[end:]), output, re.DOTALL)
        self._ids |= dict(zip(shown_ids, found.groups(), strict=True)) if found else {}
        return found is not None
