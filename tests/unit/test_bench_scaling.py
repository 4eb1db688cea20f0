"""The arithmetic and the output of `python -m bench.scaling`."""

import pytest

from bench.scaling.meter import difference, table
from bench.scaling.servers import cpu_and_duration

LOG = """\
LOG:  automatic vacuum of table "bench.public.attempts": index scans: 0
\tsystem usage: CPU: user: 9.00 s, system: 9.00 s, elapsed: 9.00 s
LOG:  automatic vacuum of table "bench.public.jobs": index scans: 1
\tpages: 0 removed, 26097 remain, 26097 scanned (100.00% of total), 0 eagerly scanned
\tsystem usage: CPU: user: 0.23 s, system: 0.16 s, elapsed: 10.88 s
LOG:  automatic analyze of table "bench.public.jobs"
\tsystem usage: CPU: user: 7.00 s, system: 7.00 s, elapsed: 7.00 s
LOG:  automatic aggressive vacuum of table "bench.public.jobs": index scans: 0
\tsystem usage: CPU: user: 1.00 s, system: 0.50 s, elapsed: 2.00 s
"""


def test_vacuums_of_the_jobs_are_read_from_the_log() -> None:
    assert cpu_and_duration(LOG) == [(pytest.approx(0.39), 10.88), (1.5, 2.0)]


def test_difference_is_what_was_added() -> None:
    assert difference({"at": 1.0, "updates": 5.0}, {"at": 3.0, "updates": 9.0}) == {"at": 2.0, "updates": 4.0}


def test_table_is_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    table(("", "jobs/s", "rows"), [["one", 1234.5, 20_000], ["two", 0.1234, 3]])
    assert capsys.readouterr().out == (
        "\n|  | jobs/s | rows |\n|---|---:|---:|\n| one | 1,234 | 20,000 |\n| two | 0.12 | 3 |\n\n"
    )
