"""The example application in examples/shop, run by its one command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import psycopg2
import pytest

from tests.support.launcher import ROOT
from tests.support.servers import sql
from tests.support.service import Process, eventually

STOCK = 12
RUNS = 2


def run(env: dict[str, str]) -> str:
    """Run the example to its end, which has to be a good one; returns its output."""
    process = Process("make", "example", env=env)
    try:
        assert process.wait(180) == 0, process.output
        eventually(lambda: not process.tree())
        return process.output
    finally:
        process.kill()


@pytest.fixture(scope="module")
def outputs(apart: dict[str, str]) -> list[str]:
    """The outputs of two runs with the same database."""
    return [run(apart) for _ in range(RUNS)]


@pytest.fixture(scope="module")
def url(outputs: list[str], apart: dict[str, str]) -> str:
    """The URL of the database after the runs."""
    return apart["DATABASE_URL"]


def test_each_order_is_charged_once_packed_and_sent(outputs: list[str], url: str) -> None:
    for output in outputs:
        assert "Each order was charged exactly once, packed and sent." in output
        assert len(re.findall(r"gateway: order-\d+ charged", output)) == STOCK
        assert output.count("reply is lost") == 1
    orders = sql(url, "SELECT id, receipt, message FROM shop.orders ORDER BY id")
    assert len(orders) == RUNS * STOCK
    assert all(row[1:] == (f"R-order-{row[0]}", f"parcel {row[0]} is on its way") for row in orders)


def test_rolled_back_order_has_no_job(url: str) -> None:
    assert sql(url, "SELECT stock FROM shop.products") == [(0,)]
    ordered = "SELECT (payload->>'order_id')::bigint FROM jobs WHERE type = 'ORDER_PLACED' ORDER BY 1"
    assert sql(url, ordered) == sql(url, "SELECT id FROM shop.orders ORDER BY id")


def test_each_step_has_one_job_for_each_order(url: str) -> None:
    jobs = sql(url, "SELECT type, status, count(*), count(DISTINCT payload) FROM jobs GROUP BY 1, 2 ORDER BY 1")
    types = ("CHARGE", "NOTIFY", "ORDER_PLACED", "PACK")
    assert jobs == [(type_, "COMPLETED", RUNS * STOCK, RUNS * STOCK) for type_ in types]


def test_charges_keep_the_rate_limit(url: str) -> None:
    ids = "SELECT id FROM jobs WHERE type = 'CHARGE'"
    starts = (
        f"SELECT started_at FROM jobs WHERE id IN ({ids}) UNION SELECT started_at FROM attempts WHERE job_id IN ({ids})"
    )
    times = sql(url, f"SELECT extract(epoch FROM started_at)::float FROM ({starts}) AS starts ORDER BY 1")
    assert len(times) > RUNS * STOCK  # a reply was lost in each run
    assert all(later[0] - earlier[0] >= 1.25 for earlier, later in zip(times, times[5:], strict=False))


@pytest.mark.parametrize("statement", ["SELECT * FROM jobs", "DELETE FROM jobs", "UPDATE jobs SET payload = '{}'"])
def test_shop_has_no_right_on_the_tables_of_jobsvc(url: str, statement: str) -> None:
    connection = psycopg2.connect(url, options="-c role=shop")
    with connection.cursor() as cursor, pytest.raises(psycopg2.errors.InsufficientPrivilege):
        cursor.execute(statement)
    connection.close()


def test_embedded_servers_are_stopped(tmp_path: Path) -> None:
    env = {"JOBSVC_DEV_DIR": str(tmp_path / "data"), "DATABASE_URL": "", "REDIS_URL": ""}
    assert "Each order was charged exactly once, packed and sent." in run(env)
    stop = [sys.executable, "-m", "jobsvc.devservices", "stop"]
    stopped = subprocess.run(stop, cwd=ROOT, env=os.environ | env, capture_output=True, text=True, check=True)
    assert "no server was running" in stopped.stderr
