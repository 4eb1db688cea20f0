"""Pages about the code name files and functions that exist."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PAGES = [
    *(ROOT / "docs" / name for name in ("architecture.md", "glossary.md", "guarantees.md", "state-machine.md")),
    *sorted((ROOT / "docs" / "decisions").glob("*.md")),
]

NAME = re.compile(r"`((?:[\w-]+/)+[\w-]+\.py)(?::\s+([\w.]+))?`")
"""A file with its folder, and after a colon a function, a class, or a method with its class."""


def definitions(path: Path) -> set[str]:
    """Return the functions, classes, methods and constants that a file defines."""
    names: set[str] = set()
    for node in ast.parse(path.read_text()).body:
        match node:
            case ast.FunctionDef(name=name):
                names.add(name)
            case ast.ClassDef(name=name, body=body):
                names.add(name)
                names |= {f"{name}.{one.name}" for one in body if isinstance(one, ast.FunctionDef)}
            case ast.Assign(targets=[ast.Name(id=name)]) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
    return names


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_code_exists(page: Path) -> None:
    wrong = []
    for file, name in NAME.findall(page.read_text()):
        path = next((path for path in (ROOT / file, ROOT / "jobsvc" / file) if path.is_file()), None)
        if path is None or (name and name not in definitions(path)):
            wrong.append(f"{file}: {name}" if name else file)
    assert not wrong
