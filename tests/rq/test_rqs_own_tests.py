"""RQ's own tests of its worker, from its source distribution, with our class in its worker's place."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from xml.etree import ElementTree

import pytest
import rq

from tests.support.launcher import ROOT

CACHE = ROOT / ".jobsvc" / f"rq-{rq.__version__}"
FILES = ["worker", "worker_pool", "worker_registration", "commands", "executions"]
SANDBOX = Path("/tmp/rq_shutdown")
"""A folder that RQ's tests make, and cannot make again when one of them was killed."""

TRIES = 3
"""RQ's tests sleep and hope: one that fails is run again, alone."""

EXCEPTIONS = {
    "test_worker.TestWorker.test_worker_ttl": "the TTL is always ours: RQ's command line gives its own 420 s unasked",
    "test_worker.TestWorker.test_worker_ttl_param_resolves_timeout": "the same: a worker wakes up every 5 s, not 405",
    "test_executions.TestRegistry.test_execution_index_add_remove": (
        "asks that the execution's 90 s, which are RQ's, are no more than the worker's TTL + 60 s, which are 80 here"
    ),
}
"""Which of them our class is not to pass, and why."""


@pytest.fixture(scope="module")
def source() -> Path:
    """The folder with RQ's `tests`; fetched once."""
    if not CACHE.exists():
        CACHE.parent.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory(dir=CACHE.parent) as folder:
            (Path(folder) / "unpacked").mkdir()
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", "rq", "-d", folder]
            fetched = subprocess.run([*command, f"rq=={rq.__version__}"], capture_output=True, text=True)
            if fetched.returncode != 0:
                pytest.skip(f"RQ's source distribution can't be had: {fetched.stderr.strip()[-300:]}")
            _unpack(next(Path(folder).glob("*.tar.gz")), Path(folder) / "unpacked")
            (Path(folder) / "unpacked" / f"rq-{rq.__version__}").rename(CACHE)
    return CACHE


def _unpack(archive: Path, folder: Path) -> None:
    # Not RQ itself: what is tested is the one that is installed.
    with tarfile.open(archive) as tar:
        wanted = [member for member in tar if member.name.split("/")[1] in ("tests", "pyproject.toml")]
        tar.extractall(folder, wanted, filter="data")


def _run(source: Path, tests: Iterable[str]) -> dict[str, str]:
    """Return the result of each test (`passed`, `skipped`, `failure` or `error`) by its name, as in EXCEPTIONS."""
    paths = os.pathsep.join(map(str, (source, Path(__file__).parent, ROOT)))
    programs = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    with tempfile.NamedTemporaryFile(suffix=".xml") as report, tempfile.TemporaryFile() as output:
        options = ["-p", "plugin", "-p", "no:cacheprovider", "-q", "--tb=short", f"--junitxml={report.name}"]
        shutil.rmtree(SANDBOX, ignore_errors=True)
        process = subprocess.Popen(
            [sys.executable, "-m", "pytest", *options, *tests],
            cwd=source,
            env={**os.environ, "PYTHONPATH": paths, "PATH": programs},
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            process.wait(300)
        except subprocess.TimeoutExpired:
            pass  # a failed test may have left a worker behind, for which its process waits
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        print(output.read().decode())
        if not Path(report.name).stat().st_size:
            pytest.fail("RQ's tests did not come to an end")
        return {
            f"{case.attrib['classname'].removeprefix('tests.')}.{case.attrib['name']}": next(
                (child.tag for child in case if child.tag in ("failure", "error", "skipped")), "passed"
            )
            for case in ElementTree.parse(report.name).iter("testcase")
        }


def _address(name: str) -> str:
    module, _, rest = name.partition(".")
    return f"tests/{module}.py::{rest.replace('.', '::')}"


@pytest.mark.slow
def test_worker_passes_rqs_own_tests(source: Path) -> None:
    ended = _run(source, (f"tests/test_{name}.py" for name in FILES))
    assert len(ended) > 100
    for _ in range(TRIES - 1):
        for name in [name for name, how in ended.items() if how in ("failure", "error") and name not in EXCEPTIONS]:
            ended |= _run(source, [_address(name)])
    failed = {name for name, how in ended.items() if how in ("failure", "error")}
    assert failed - EXCEPTIONS.keys() == set()
    assert EXCEPTIONS.keys() - failed == set(), "these pass: they are exceptions no more"
