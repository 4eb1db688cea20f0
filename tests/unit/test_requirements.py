"""The requirements files pin what pyproject.toml asks for, and all that this needs in turn; `make lock` writes them."""

import tomllib
from importlib.metadata import requires

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.support.launcher import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SERVICE = PROJECT["project"]["dependencies"]
EXTRAS = PROJECT["project"]["optional-dependencies"]
EMBEDDED = [*SERVICE, *EXTRAS["embedded"]]
DEVELOPMENT = [*EMBEDDED, *EXTRAS["otel"], *PROJECT["dependency-groups"]["dev"]]


def pins(path: str) -> dict[str, str]:
    """Return the version of each package in a requirements file that this interpreter and system need."""
    lines = [line.partition("#")[0].strip() for line in (ROOT / path).read_text().splitlines()]
    found = [Requirement(line) for line in lines if line]
    return {
        canonicalize_name(one.name): str(one.specifier).removeprefix("==")
        for one in found
        if one.marker is None or one.marker.evaluate()
    }


def closure(wanted: list[str]) -> dict[str, list[Requirement]]:
    """Return all that these requirements need in turn, as the installed packages declare it."""
    needed: dict[str, list[Requirement]] = {}
    todo = [(Requirement(one), "") for one in wanted]
    seen = set()
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        needed.setdefault(name, []).append(requirement)
        for own_extra in {"", *requirement.extras} - {extra for other, extra in seen if other == name}:
            seen.add((name, own_extra))
            todo += [(Requirement(one), own_extra) for one in requires(name) or []]
    return needed


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("requirements.txt", SERVICE),
        ("requirements-embedded.txt", EMBEDDED),
        ("requirements-dev.txt", DEVELOPMENT),
    ],
)
def test_requirements_pin_everything_and_nothing_else(path: str, wanted: list[str]) -> None:
    needed = closure(wanted)
    pinned = pins(path)
    assert sorted(pinned) == sorted(needed), "run `make lock`"
    for name, requirements in needed.items():
        for one in requirements:
            assert one.specifier.contains(pinned[name], prereleases=True), f"{name}: run `make lock`"


def test_longer_lists_have_the_same_versions() -> None:
    service, embedded, development = map(
        pins, ("requirements.txt", "requirements-embedded.txt", "requirements-dev.txt")
    )
    assert service.items() <= embedded.items() <= development.items()


def test_benchmark_runs_the_versions_of_the_service() -> None:
    names = [canonicalize_name(Requirement(one).name) for one in EMBEDDED]
    ours, benchmark = pins("requirements-embedded.txt"), pins("bench/requirements.txt")
    assert {name: benchmark[name] for name in names} == {name: ours[name] for name in names}
