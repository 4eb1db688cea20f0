"""What is in the image, and what is not."""

import stat
from pathlib import Path

from jobsvc import __version__
from tests.image.build import Image
from tests.image.topology import Topology

MAX_BYTES = 200_000_000

UNWANTED = ("gcc", "cc", "g++", "make", "ld", "pip", "pip3", "git", "curl", "python3-config")


def test_image_is_small(image: Image) -> None:
    assert image.size <= MAX_BYTES


def test_no_pip_no_compiler_and_no_development_package(image: Image) -> None:
    found = {
        path.name
        for folder in ("usr/bin", "usr/local/bin", "opt/jobsvc/bin")
        for path in image.folder.glob(f"{folder}/*")
    }
    assert not found & set(UNWANTED)
    packages = (image.folder / "var/lib/dpkg/status").read_text().split("\n\n")
    names = [package.partition("\n")[0].removeprefix("Package: ") for package in packages]
    assert "python3" in names
    tools = [name for name in names if name.endswith("-dev") or name.startswith(("gcc", "cpp", "binutils"))]
    assert all(name.endswith("-base") for name in tools)  # a package of licenses, of which libgcc is a part
    assert not [
        path
        for pattern in ("pip", "setuptools", "ensurepip")
        for path in image.folder.glob(f"**/python3*/**/{pattern}/__init__.py")
    ]


def test_settings_of_the_image(image: Image) -> None:
    config = image.config
    assert config["Entrypoint"] == ["jobsvc"]
    assert config["Cmd"] == ["api"]
    assert list(config["ExposedPorts"]) == ["3000/tcp"]
    assert config["StopSignal"] == "SIGTERM"
    assert all(int(number) >= 10_000 for number in image.user)
    labels = {name.removeprefix("org.opencontainers.image."): text for name, text in config["Labels"].items()}
    assert labels["title"] == "jobsvc"
    assert labels["licenses"] == "MIT"
    assert labels["version"] == __version__


def test_nothing_of_the_build_is_in_the_image(image: Image) -> None:
    text = repr(image.config)
    assert "PIP_" not in text
    assert list((image.folder / "run/secrets").glob("*")) == []
    assert not (image.folder / "src").exists()
    assert not (image.folder / "app").exists() or list((image.folder / "app").iterdir()) == []


def test_user_can_change_nothing(image: Image) -> None:
    """Folders for everybody, such as /tmp, are a tmpfs of the container."""
    user = int(image.user[0])
    owned = [path for path in image.folder.rglob("*") if path.lstat().st_uid == user]
    assert owned == []
    open_files = [
        path
        for path in (image.folder / "opt").rglob("*")
        if not path.is_symlink() and path.stat().st_mode & stat.S_IWOTH
    ]
    assert open_files == []


def test_all_that_runs_is_compiled(services: Topology) -> None:
    code = """
import pathlib, sys
from jobsvc.app import create_app
create_app(has_commands=False)
import jobsvc.worker.pool
files = [pathlib.Path(one.__cached__) for one in list(sys.modules.values()) if getattr(one, "__cached__", None)]
print([str(one) for one in files if not one.exists()], len(files) > 300)
import os; os._exit(0)
"""
    done = services.containers["api"].run("python3", "-u", "-c", code)
    assert done.stdout == "[] True\n", done.stderr


def test_commands_work_in_the_image(services: Topology) -> None:
    api = services.containers["api"]
    assert api.run("jobsvc", "--version").stdout == f"jobsvc {__version__}\n"
    for command in (("jobs", "list"), ("jobs", "workers"), ("migrate",)):
        done = api.run("jobsvc", *command)
        assert done.returncode == 0, done.stderr


def test_certificates_and_time_zones_are_there(services: Topology) -> None:
    code = """
import ssl, zoneinfo
print(len(ssl.create_default_context().get_ca_certs()) > 50, zoneinfo.ZoneInfo("Europe/Vienna"))
"""
    assert services.containers["api"].run("python3", "-c", code).stdout == "True Europe/Vienna\n"


def test_image_has_no_file_of_the_checkout_but_the_package(image: Image) -> None:
    [package] = image.folder.glob("opt/jobsvc/lib/python3.*/site-packages/jobsvc")
    assert (package / "migrations/env.py").exists()
    assert (package / "ui/static/htmx.min.js").exists()
    assert not list(Path(package.parent).glob("tests*"))
