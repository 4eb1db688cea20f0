"""What `make` installs on a new machine, and how it goes on after an interrupted installation."""

import importlib.metadata
import os
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.launcher import ROOT
from tests.support.service import Process, eventually
from tests.unit.test_requirements import pins

NOT_COPIED = (".venv*", ".git", ".jobsvc", "node_modules", "__pycache__", ".*_cache", "site")
PACKAGE, OTHER_PACKAGE = "iniconfig==2.3.1", "iniconfig==2.3.0"
"""A small package without dependencies, in two versions."""


def installed(env: Path) -> dict[str, str]:
    """Return the versions of the packages in a virtual environment, without those that venv has brought."""
    [folder] = env.glob("lib/python*/site-packages")
    found = importlib.metadata.distributions(path=[str(folder)])
    names = {one.metadata["Name"].lower().replace("_", "-").replace(".", "-"): one.version for one in found}
    return {name: version for name, version in names.items() if name not in ("pip", "setuptools")}


def test_make_installs_what_running_needs_and_no_more(tmp_path: Path) -> None:
    """Also after Ctrl-C, and when two commands are given at once."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*NOT_COPIED))
    command = ("make", "-C", str(folder), "services-down")  # needs what `make up` needs, and starts nothing
    processes = [Process(*command)]
    try:
        eventually(lambda: (folder / ".venv/.unfinished").exists(), 120)
        processes[0].signal(signal.SIGINT)
        assert processes[0].wait(60) != 0
        assert "jobsvc: creating .venv (once)\njobsvc: installing " in processes[0].output
        eventually(lambda: not processes[0].tree())
        processes += [Process(*command), Process(*command)]
        for process in processes[1:]:
            assert process.wait(240) == 0, process.output
            assert "stopped: no server was running" in process.output
    finally:
        for process in processes:
            process.kill()
    assert installed(folder / ".venv") == pins("requirements-embedded.txt")
    assert not (folder / ".venv/.uv").exists()
    compiled = list(folder.glob(".venv/lib/python*/site-packages/flask/__pycache__/app.*.pyc"))
    assert compiled


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A virtual environment with one package, which pip has installed from an index of its own."""
    env = tmp_path_factory.mktemp("set-up") / "env"
    install(env)
    return env


def install(env: Path, package: str = PACKAGE) -> str:
    """Install a list with one package; returns what is printed."""
    packages = env.parent / "list.txt"
    if not packages.exists() or packages.read_text() != package:
        packages.write_text(package)
    return subprocess.run(
        [ROOT / ".ci/packages", "install", "env", "list.txt", "env/.stamp"],
        cwd=env.parent,
        env={**os.environ, "PIP_INDEX_URL": os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple")},
        capture_output=True,
        text=True,
        check=True,
    ).stderr


def test_changed_list_is_installed_once(env: Path) -> None:
    assert "jobsvc: installing 1 packages into env (once)\n" in install(env, OTHER_PACKAGE)
    assert installed(env) == {"iniconfig": "2.3.0"}
    assert install(env, OTHER_PACKAGE) == ""
    install(env)
    assert installed(env) == {"iniconfig": "2.3.1"}


def test_package_of_an_interrupted_installation_is_installed_again(env: Path) -> None:
    [module] = env.glob("lib/python*/site-packages/iniconfig/__init__.py")
    module.unlink()
    (env / ".stamp").unlink()
    (env / ".unfinished").touch()
    install(env)
    assert module.exists()
    assert not (env / ".unfinished").exists()


def test_environment_without_pip_is_created_again(env: Path) -> None:
    [pip] = env.glob("lib/python*/site-packages/pip")
    shutil.rmtree(pip)
    (env / "bin/activate").unlink()
    (env / ".stamp").unlink()
    assert "jobsvc: creating env (once)\n" in install(env)
    assert installed(env) == {"iniconfig": "2.3.1"}
