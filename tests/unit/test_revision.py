"""The revision that the program needs."""

from jobsvc.db.revision import REVISION
from tests.support.launcher import ROOT


def test_program_needs_the_newest_migration() -> None:
    assert max(path.name for path in (ROOT / "migrations/versions").glob("*.py")).split("_")[0] == REVISION
