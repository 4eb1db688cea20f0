"""The package: what the wheel and the sdist contain, what they depend on, and that all versions agree."""

import ast
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from jobsvc import __version__

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
DEPENDENCIES = {canonicalize_name(one.name): one for one in map(Requirement, PROJECT["dependencies"])}
EXTRAS = {name: list(map(Requirement, texts)) for name, texts in PROJECT["optional-dependencies"].items()}

DISTRIBUTION = {"dotenv": "python-dotenv", "psycopg2": "psycopg2-binary"}
"""The distribution of a module, where its name is another one."""

BROUGHT_BY = {
    "alembic": "flask-migrate",
    "click": "flask",
    "jinja2": "flask",
    "pydantic-core": "pydantic",
    "python-dotenv": "pydantic-settings",
    "typing-extensions": "pydantic",
    "werkzeug": "flask",
}
"""Imported distributions that are not declared, and the declared one that always brings each of them."""

NOT_IMPORTED = {"flask-swagger-ui", "hiredis", "six", "tzdata"}
"""Declared distributions of files, or that others use: redis-py, rq-dashboard, Python."""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel and the sdist."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", str(folder)]
    done = subprocess.run(build, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def names_in_wheel(built: Path) -> set[str]:
    [wheel] = built.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def tracked(*paths: str) -> set[str]:
    """Return the files of the repository in these folders."""
    listed = subprocess.run(["git", "ls-files", *paths], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(listed.stdout.split())


def test_wheel_has_all_files_of_the_package_and_no_others(built: Path) -> None:
    expected = tracked("jobsvc") | {f"jobsvc/{path}" for path in tracked("migrations")}
    expected |= {"jobsvc/demo.sh", "jobsvc/gunicorn_conf.py"}
    found = {name for name in names_in_wheel(built) if ".dist-info/" not in name}
    assert found == expected
    assert "jobsvc/py.typed" in found


def test_wheel_has_the_licenses_and_the_command(built: Path) -> None:
    metadata = {name.partition(".dist-info/")[2] for name in names_in_wheel(built)}
    assert {"METADATA", "licenses/LICENSE", "licenses/jobsvc/ui/static/htmx.LICENSE", "entry_points.txt"} <= metadata


def test_sdist_has_what_the_wheel_is_built_from(built: Path) -> None:
    [sdist] = built.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        found = {name.partition("/")[2] for name in archive.getnames()}
    more = {"README.md", "LICENSE", "CHANGELOG.md", "pyproject.toml", "gunicorn.conf.py", "examples/demo.sh"}
    assert found - {"PKG-INFO", ".gitignore"} == tracked("jobsvc", "migrations") | more


def imported() -> set[str]:
    """Return the distributions that jobsvc and its migrations import, but for those of Python and of extras."""
    modules = set()
    for path in (*ROOT.glob("jobsvc/**/*.py"), *ROOT.glob("migrations/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            match node:
                case ast.Import(names=names):
                    modules |= {one.name.partition(".")[0] for one in names}
                case ast.ImportFrom(module=str(module), level=0):
                    modules.add(module.partition(".")[0])
    outside = modules - sys.stdlib_module_names - {"jobsvc", "opentelemetry"}
    return {canonicalize_name(DISTRIBUTION.get(module, module)) for module in outside}


def test_all_imports_are_declared_and_all_that_is_declared_is_used() -> None:
    assert imported() - BROUGHT_BY.keys() == DEPENDENCIES.keys() - NOT_IMPORTED
    assert imported() >= BROUGHT_BY.keys()


@pytest.mark.parametrize("name", BROUGHT_BY)
def test_undeclared_import_is_brought_by_another_package(name: str) -> None:
    assert BROUGHT_BY[name] in DEPENDENCIES
    brought = [Requirement(one) for one in requires(BROUGHT_BY[name]) or []]
    assert name in {canonicalize_name(one.name) for one in brought if one.marker is None}


def test_extra_of_traces_brings_what_is_imported() -> None:
    assert [one.name for one in EXTRAS["otel"]] == ["opentelemetry-sdk"]


def test_wheel_has_the_version_of_the_code(built: Path) -> None:
    [wheel] = built.glob("*.whl")
    assert wheel.name == f"jobsvc-{__version__}-py3-none-any.whl"
    metadata = zipfile.ZipFile(wheel).read(f"jobsvc-{__version__}.dist-info/METADATA").decode()
    assert f"\nVersion: {__version__}\n" in metadata


def test_newest_entry_of_the_changes_is_this_version() -> None:
    newest = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[0]
    assert newest == ("Unreleased" if Version(__version__).is_devrelease else __version__)
