"""The image, built by buildah from the Dockerfile, on a base that debootstrap makes as Debian's own image is made."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pytest

from tests.infra.debian import program
from tests.support.launcher import ROOT

CACHE = Path("/var/tmp/jobsvc-image")
"""Holds the base, and the layers of the last builds, from one run to the next. To start anew, delete it."""

NAME = "localhost/jobsvc"
MIRROR = "http://deb.debian.org/debian"
SECURITY = "http://deb.debian.org/debian-security"
NOT_IN_SLIM = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "var/cache/apt",
    "var/lib/apt/lists",
)
"""Folders that are empty in Debian's image `slim`."""

BUILD_SECONDS = 900


@dataclass(frozen=True)
class Image:
    """A built image, and the folder where its files are."""

    config: dict[str, Any]
    size: int
    folder: Path

    @cached_property
    def environment(self) -> dict[str, str]:
        return dict(one.split("=", 1) for one in self.config["Env"])

    @property
    def user(self) -> tuple[str, str]:
        user, group = self.config["User"].split(":")
        return user, group


def buildah(*arguments: str, folder: Path = ROOT) -> str:
    """Run buildah on a store of the tests' own; returns what it printed."""
    store = ("--root", str(CACHE / "store"), "--runroot", str(CACHE / "run"))
    command = [program("buildah"), *store, *arguments]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
    return done.stdout.strip()


def build(folder: Path, *arguments: str, tag: str = NAME, context: Path = ROOT) -> Image:
    """Build an image of this name and mount it; `folder` is for files that are needed meanwhile."""
    if os.geteuid() != 0:
        pytest.skip("only root can build the image here", allow_module_level=True)
    for name in ("buildah", "debootstrap"):
        program(name)
    CACHE.mkdir(mode=0o700, exist_ok=True)
    _make_base()
    buildah(
        *("bud", "--isolation", "chroot", "--format", "docker", "--layers", "--pull-never", "--tag", tag),
        *pip_settings(folder),
        *arguments,
        ".",
        folder=context,
    )
    [found] = json.loads(buildah("images", "--json", tag))
    size = float(found["size"].removesuffix(" MB"))
    container = buildah("from", "--pull-never", tag)
    config = json.loads(buildah("inspect", "--type", "image", tag))["Docker"]["config"]
    return Image(config, int(size * 1e6), Path(buildah("mount", container)))


def unmount() -> None:
    """Remove the containers, which hold the mounts."""
    buildah("rm", "--all")


def _make_base() -> None:
    """Make the base that the Dockerfile names, unless an earlier run has."""
    name = next(line.split()[1] for line in (ROOT / "Dockerfile").read_text().splitlines() if line.startswith("FROM "))
    if buildah("images", "--quiet", "--filter", f"reference={name}"):
        return
    suite = name.rpartition(":")[2].removesuffix("-slim")
    root = CACHE / "base"
    shutil.rmtree(root, ignore_errors=True)
    command = [program("debootstrap"), "--variant=minbase", suite, str(root), MIRROR]
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=BUILD_SECONDS)
    except subprocess.SubprocessError as error:
        pytest.skip(f"debootstrap can't make {name} here: {error}", allow_module_level=True)
    for folder in NOT_IN_SLIM:
        shutil.rmtree(root / folder)
        (root / folder).mkdir()
    sources = (f"{MIRROR} {suite}", f"{MIRROR} {suite}-updates", f"{SECURITY} {suite}-security")
    (root / "etc/apt/sources.list").write_text("".join(f"deb {one} main\n" for one in sources))
    container = buildah("from", "scratch")
    buildah("copy", container, str(root), "/")
    buildah("commit", "--rm", container, name)
    shutil.rmtree(root)


def pip_settings(folder: Path) -> list[str]:
    """Return options that give the index, and the certificate, of this machine's pip to the build as secrets."""
    listing = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    found = dict(line.split("=", 1) for line in listing.stdout.splitlines())
    settings = {key.rpartition(".")[2]: value.strip("'") for key, value in found.items()}
    lines = [f"{name} = {settings[name]}" for name in ("index-url", "proxy", "trusted-host") if name in settings]
    options: list[str] = []
    if "cert" in settings:
        options += ["--secret", f"id=ca.crt,src={settings['cert']}"]
        lines.append("cert = /run/secrets/ca.crt")
    (folder / "pip.conf").write_text("\n".join(["[global]", *lines, ""]))
    return [*options, "--secret", f"id=pip.conf,src={folder / 'pip.conf'}"]
