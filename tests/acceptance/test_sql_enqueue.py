"""Jobs enqueued in SQL by an application that shares the database: when they exist, run, and end."""

import time
from collections.abc import Iterator
from uuid import uuid4

import pytest
from psycopg2 import errors

from tests.conftest import fresh_database
from tests.support.servers import sql, upgrade
from tests.support.service import WORKERS, Service, eventually
from tests.support.sql_client import application, committed, enqueue

SECRETS = {"JOBSVC_WEBHOOK_SECRETS": "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"}


@pytest.fixture(scope="module", params=sorted(WORKERS))
def service(request: pytest.FixtureRequest, apart: dict[str, str]) -> Iterator[Service]:
    """A service whose sweeps come too late for any test: only a notification can have jobs dispatched."""
    service = Service({**apart, "JOBSVC_SWEEP_SECONDS": "60", "JOBSVC_HTTP_ALLOW": "192.0.2.0/24", **SECRETS})
    service.worker(request.param)
    yield service
    service.close()


def test_committed_job_runs_at_once(service: Service) -> None:
    job_id = committed(service, payload={"result": {"a": "漢"}})
    job = service.until(job_id, "COMPLETED")
    assert (job["result"], job["attempts"]) == ({"a": "漢"}, 1)


def test_delayed_job_runs_at_its_time(service: Service) -> None:
    job_id = committed(service, delay=1)
    assert service.job(job_id)["status"] == "SCHEDULED"
    service.until(job_id, "COMPLETED")


def test_job_exists_once_its_transaction_is_committed(service: Service) -> None:
    with application(service) as connection:
        job_id = enqueue(connection)
        assert service.client.get(f"/jobs/{job_id}").status_code == 404
        connection.commit()
        service.until(job_id, "COMPLETED")


def test_rolled_back_job_does_not_exist(service: Service) -> None:
    key = uuid4().hex
    with application(service) as connection:
        job_id = enqueue(connection, uniqueKey=key)
        connection.rollback()
    assert service.client.get(f"/jobs/{job_id}").status_code == 404
    assert committed(service, uniqueKey=key) != job_id


def test_savepoint_undoes_only_what_came_after_it(service: Service) -> None:
    with application(service) as connection, connection.cursor() as cursor:
        kept = enqueue(connection)
        cursor.execute("SAVEPOINT here")
        undone = enqueue(connection)
        cursor.execute("ROLLBACK TO here")
        connection.commit()
    service.until(kept, "COMPLETED")
    assert service.client.get(f"/jobs/{undone}").status_code == 404


def test_arguments_have_names_and_defaults(service: Service) -> None:
    in_low = """jobsvc_enqueue(options => '{"queue": "low"}', type => 'TEST_JOB')"""
    with application(service) as connection, connection.cursor() as cursor:
        cursor.execute(f"SELECT jobsvc_enqueue('TEST_JOB'), {in_low}")
        [ids] = cursor.fetchall()
        connection.commit()
    assert [service.until(str(one), "COMPLETED")["queue"] for one in ids] == ["default", "low"]


def test_times_count_from_the_call(service: Service) -> None:
    with application(service) as connection:
        early = enqueue(connection, delay=1000)
        time.sleep(1.1)
        late = enqueue(connection, delay=1000, expiresIn=2000)
        connection.commit()
    first, second = service.job(early), service.job(late)
    assert first["createdAt"][:19] < second["createdAt"][:19]
    assert first["runAt"][:19] < second["runAt"][:19] < second["expiresAt"][:19]


def test_counts_have_the_jobs(service: Service) -> None:
    def accepted() -> float:
        lines = service.client.get("/metrics").text.splitlines()
        shown = [line for line in lines if line.startswith("jobsvc_jobs_accepted_total{") and 'type="SUM"' in line]
        return sum(float(line.split()[-1]) for line in shown)

    before, key = accepted(), uuid4().hex
    for _ in range(2):
        committed(service, type="SUM", payload={"numbers": [1]}, uniqueKey=key, delay=1000)
    assert accepted() == before + 1


@pytest.mark.parametrize(
    ("type", "payload", "message"),
    [
        ("SUM", {}, "/numbers: Field required"),
        ("SUM", {"numbers": ["1"]}, "/numbers/0: Input should be a valid integer"),
        ("HTTP_REQUEST", {"url": "http://10.0.0.1/"}, "10.0.0.1 is not a public address"),
        ("HTTP_REQUEST", {"url": "http://0x0a.1/", "headers": {"authorization": "hidden"}}, "is not a public address"),
    ],
)
def test_payload_that_does_not_fit_is_discarded(
    service: Service, type: str, payload: dict[str, object], message: str
) -> None:
    job_id = committed(service, type=type, payload=payload)
    job = service.until(job_id, "FAILED")
    assert (job["attempts"], job["error"]["type"]) == (1, "InvalidPayload")
    assert message in job["error"]["message"]
    assert "hidden" not in job["error"]["message"]
    assert [one["outcome"] for one in service.attempts(job_id)] == ["discarded"]


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://127.0.0.1:1/hook", "127.0.0.1 leads to 127.0.0.1, which is not a public address"),
        ("http://user:secret@example.com/", "must not hold a user name or password; use a header"),
        ("https:// /", "has a space, a backslash or a control character"),
    ],
)
def test_webhook_url_is_checked_when_the_delivery_runs(service: Service, url: str, message: str) -> None:
    job_id = committed(service, webhookUrl=url)
    delivery = service.until(job_id, "COMPLETED")["webhookJobId"]
    committed(service)  # the relay checks for due jobs; its next sweep comes too late
    ended = service.until(delivery, "FAILED")
    assert (ended["attempts"], ended["error"]["type"]) == (1, "Refused")
    assert message in ended["error"]["message"]
    assert "secret" not in ended["error"]["message"]


LISTENERS = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND query LIKE 'LISTEN %%'"


def test_lost_listener_listens_again_without_an_outage(service: Service) -> None:
    before = {pid for [pid] in service.sql(LISTENERS)}
    assert before
    assert service.sql(f"SELECT pg_terminate_backend(pid) FROM ({LISTENERS}) AS them") == [(True,)] * len(before)
    eventually(lambda: len({pid for [pid] in service.sql(LISTENERS)} - before) == len(before))
    service.until(committed(service), "COMPLETED")
    for process in service.processes:
        assert "unavailable" not in process.output
        assert "listener" not in process.output


def test_tables_may_be_in_any_schema(service: Service) -> None:
    url = fresh_database()
    schema = '"My ""jobs"""'
    sql(url, f"CREATE SCHEMA {schema}")
    sql(url, f"ALTER DATABASE {url.rpartition('/')[2]} SET search_path = {schema}")
    upgrade({"DATABASE_URL": url})  # beside the tables in public
    other = Service(
        {
            "DATABASE_URL": url,
            "REDIS_URL": service.env["REDIS_URL"],
            "JOBSVC_NAMESPACE": uuid4().hex,
            "JOBSVC_SWEEP_SECONDS": "60",
        }
    )
    try:
        other.worker()
        with application(other) as connection, connection.cursor() as cursor:
            cursor.execute("SET search_path = public")
            cursor.execute(f"""SELECT {schema}.jobsvc_enqueue('TEST_JOB', '{{}}', '{{"uniqueKey": "k"}}')""")
            [[job_id]] = cursor.fetchall()
            with pytest.raises(errors.InvalidParameterValue, match="known types: none"):
                cursor.execute("SELECT public.jobsvc_enqueue('TEST_JOB')")
            connection.rollback()
            cursor.execute(f"SELECT {schema}.jobsvc_enqueue('TEST_JOB')")
            [[job_id]] = cursor.fetchall()
            connection.commit()
        other.until(job_id, "COMPLETED")
    finally:
        other.close()
