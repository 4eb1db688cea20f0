"""The rows that `jobsvc_enqueue` writes, and what it refuses: as POST /jobs does."""

import contextlib
import threading
from collections.abc import Iterator
from typing import Any
from uuid import UUID, uuid4

import pytest
from psycopg2 import errors

from tests.support.service import Service, eventually
from tests.support.sql_client import application, call, committed, enqueue

YEAR = 366 * 86400
SECRET = "whsec_MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIz"


@pytest.fixture(scope="module")
def service(apart: dict[str, str]) -> Iterator[Service]:
    """A service without a worker, so that rows stay as they were written."""
    handlers = "tests.support.handlers.basic,tests.support.handlers.rated"
    service = Service({**apart, "JOBSVC_WEBHOOK_SECRETS": SECRET, "JOBSVC_HANDLERS": handlers})
    yield service
    service.close()


@pytest.fixture(autouse=True)
def _no_jobs(service: Service) -> None:
    service.sql("DELETE FROM jobs")


BODIES: list[dict[str, Any]] = [
    {},
    {"queue": "low"},
    {"queue": None, "delay": None, "runAt": None, "retry": None, "timeout": None, "expiresIn": None},
    {"uniqueKey": None, "concurrencyKey": None, "concurrencyLimit": None, "webhookUrl": None},
    {"delay": 0},
    {"delay": 0.25},
    {"delay": YEAR},
    {"runAt": "2001-02-03T04:05:06.123456789Z"},
    {"runAt": "2001-02-03 04:05:06+23:30"},
    {"runAt": "2000-02-29t23:59:59.5-00:30"},
    {"runAt": "1970-01-01T00:00:00z"},
    {"retry": {}},
    {"retry": {"max": 0}},
    {"retry": {"max": 100}},
    {"retry": {"max": None, "interval": None, "backoff": None}},
    {"retry": {"interval": 7}},
    {"retry": {"interval": [7]}},
    {"retry": {"interval": [1, 2.5, 0, 4]}},
    {"retry": {"max": 2, "interval": [1, 2, 3]}},
    {"retry": {"max": 5, "interval": [1, 2.25]}},
    {"retry": {"max": 5, "backoff": {"initial": 0.5, "jitter": 0}}},
    {"retry": {"backoff": {"initial": 3, "factor": 10, "max": 40, "jitter": 0}}},
    {"retry": {"max": 20, "backoff": {"initial": YEAR, "factor": 100, "max": YEAR, "jitter": 0}}},
    {"timeout": 0.001},
    {"timeout": YEAR, "expiresIn": YEAR},
    {"expiresIn": 0.5},
    {"uniqueKey": "k" * 255},
    {"uniqueKey": "漢" * 255, "onConflict": "return"},
    {"uniqueKey": "u", "onConflict": "reject"},
    {"uniqueKey": "u", "onConflict": "replace"},
    {"uniqueKey": "u", "onConflict": None},
    {"tags": []},
    {"tags": ["b", "a", "a"]},
    {"tags": ["t" * 100] * 16},
    {"concurrencyKey": "c"},
    {"concurrencyKey": "c" * 255, "concurrencyLimit": 1000},
    {"concurrencyKey": "c", "concurrencyLimit": 5.0},
    {"rateLimit": {"key": "r", "limit": 1, "per": 0.1}},
    {"rateLimit": {"key": "r" * 255, "limit": 100_000, "per": 86_400}, "concurrencyKey": "c"},
    {"type": "RATED", "rateLimit": None},
    {"type": "RATED", "rateLimit": {"key": "own", "limit": 7.0, "per": 1.5}},
    {"webhookUrl": "https://example.com/hook"},
    {"webhookUrl": "HTTPS://example.com/" + "x" * (8192 - 20)},
    {"payload": {"result": {"a": [1, 2.5, "漢\u2028", None, True, 10**400]}, "steps": 3}},
    {"type": "HTTP_REQUEST", "payload": {"url": "https://example.com/"}},
    {"type": "SUM", "payload": {"numbers": [1]}},
    {"type": "SUM", "payload": {"numbers": [1]}, "retry": {"max": 2}, "queue": "default"},
    {"type": "SUM", "payload": {"numbers": [1]}, "retry": {"interval": [3, 4, 5]}, "timeout": 3},
]
ROW = """
SELECT to_jsonb(jobs) - '{id,created_at,dispatched_at}'::text[] || jsonb_build_object(
    'run_at', CASE
        WHEN run_at < '2005-01-01' THEN extract(epoch FROM run_at)
        ELSE round(extract(epoch FROM run_at - created_at), 3)
    END,
    'due_at', due_at = coalesce(run_at, created_at),
    'expires_at', round(extract(epoch FROM expires_at - created_at), 3)
) FROM jobs WHERE id = %s
"""


@pytest.mark.parametrize("body", BODIES, ids=lambda body: str(body)[:50])
def test_row_is_the_same_as_that_of_a_post(service: Service, body: dict[str, Any]) -> None:
    service.sql("DELETE FROM tallies")
    posted = service.post(**body)
    [[row]] = service.sql(ROW, posted)
    service.sql("DELETE FROM jobs")
    enqueued = committed(service, **body)
    assert service.sql(ROW, enqueued) == [(row,)]
    counted = "SELECT event, type, queue, status, le, seconds, number, minute > now() - interval '3 min' FROM tallies"
    first, second = service.sql(counted)
    assert first == second


def test_backoff_is_drawn_for_each_job(service: Service) -> None:
    drawn = [service.job(committed(service, type="BACKOFF"))["retryIntervals"] for _ in range(30)]
    assert len({tuple(one) for one in drawn}) == 30
    for one in drawn:
        assert [round(seconds, 6) for seconds in one] == one
        assert all(
            0.9 * mean <= seconds <= 1.1 * mean for seconds, mean in zip(one, (0.5, 1.5, 4.5, 13.5), strict=True)
        )
    assert min(one[3] for one in drawn) < 13.5 < max(one[3] for one in drawn)


def test_ids_are_uuid7_in_the_order_of_the_calls(service: Service) -> None:
    with application(service) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT jobsvc_enqueue('TEST_JOB'), clock_timestamp() FROM generate_series(1, 500)")
        rows = cursor.fetchall()
    ids = [UUID(str(job_id)) for job_id, _ in rows]
    assert ids == sorted(set(ids))
    assert {(one.version, one.variant) for one in ids} == {(7, "specified in RFC 4122")}
    assert all(abs((one.int >> 80) / 1000 - at.timestamp()) < 1 for one, (_, at) in zip(ids, rows, strict=True))
    posted = UUID(service.post())
    assert ids[-1] < posted < UUID(committed(service))


DEEP: Any = 1
for _ in range(99):
    DEEP = {"a": DEEP}

WRONG: list[tuple[str, dict[str, Any]]] = [
    ("test_job", {"type": "test_job"}),
    ("WEBHOOK", {"type": "WEBHOOK"}),
    ("payload", {"payload": {"result": DEEP}}),
    ("run_at", {"run_at": "2030-01-31T12:00:00Z"}),
    ("dependsOn", {"dependsOn": 5}),
    ("onDependencyFailure", {"onDependencyFailure": 5}),
    ('"', {'"': 1}),
    *[("queue", {"queue": value}) for value in ("", "nowhere", "Default", 5, ["low"])],
    *[("delay", {"delay": value}) for value in (-1, -1e-9, YEAR + 1, "1", True, [1], {})],
    ("delay", {"delay": 1, "runAt": "2001-02-03T04:05:06Z"}),
    *[
        ("runAt", {"runAt": value})
        for value in (
            5,
            "",
            "tomorrow",
            "infinity",
            "2001-02-03",
            "2001-02-03T04:05:06",
            "2001-02-03T04:05Z",
            "2001-02-03T04:05:06.Z",
            "2001-02-03T04:05:06.1234567890Z",
            "2001-02-03T04:05:60Z",
            "2001-02-03T24:00:00Z",
            "2001-02-29T00:00:00Z",
            "2001-13-01T00:00:00Z",
            "2001-00-01T00:00:00Z",
            "0000-01-01T00:00:00Z",
            "2001-02-03T04:05:06+24:00",
            "2001-02-03T04:05:06Z\n",
            " 2001-02-03T04:05:06Z",
            "1969-12-31T23:59:59Z",
            "1970-01-01T00:00:00+00:01",
            "9999-12-31T00:00:00Z",
        )
    ],
    *[("retry", {"retry": value}) for value in (3, [], "x", {"max": -1}, {"max": 101}, {"max": 1.5}, {"max": "3"})],
    *[
        ("interval", {"retry": {"interval": value}})
        for value in ([], [1] * 101, -1, [1, -1], [None], [[1]], "1", YEAR + 1)
    ],
    ("tries", {"retry": {"tries": 3}}),
    ("backoff", {"retry": {"interval": 1, "backoff": {"initial": 1}}}),
    *[
        ("backoff", {"retry": {"backoff": value}})
        for value in (
            5,
            {},
            {"initial": None},
            {"initial": 0},
            {"initial": 0.0009},
            {"initial": YEAR + 1},
            {"initial": "1"},
            {"initial": 1, "factor": 0.5},
            {"initial": 1, "factor": 101},
            {"initial": 1, "factor": None},
            {"initial": 1, "max": -1},
            {"initial": 1, "jitter": 1.1},
            {"initial": 1, "jitter": True},
            {"initial": 1, "growth": 2},
        )
    ],
    *[(name, {name: value}) for name in ("timeout", "expiresIn") for value in (0, -1, YEAR + 1, "1", False, [])],
    *[
        (name, {name: value})
        for name in ("uniqueKey", "concurrencyKey")
        for value in ("", "k" * 256, 5, True, ["k"], {"k": 1})
    ],
    *[("onConflict", {"uniqueKey": "u", "onConflict": value}) for value in ("", "Return", 5, True, ["reject"])],
    ("onConflict", {"onConflict": "return"}),
    *[("concurrencyLimit", {"concurrencyKey": "c", "concurrencyLimit": value}) for value in (0, 1001, 1.5, "1", True)],
    ("concurrencyLimit", {"concurrencyLimit": 1}),
    *[
        ("rateLimit", {"rateLimit": value})
        for value in (
            5,
            {},
            {"limit": 1, "per": 1},
            {"key": "r", "limit": 1},
            {"key": "r", "per": 1},
            {"key": "r", "limit": None, "per": 1},
            {"key": "", "limit": 1, "per": 1},
            {"key": "r" * 256, "limit": 1, "per": 1},
            {"key": "r", "limit": 0, "per": 1},
            {"key": "r", "limit": 1.5, "per": 1},
            {"key": "r", "limit": 100_001, "per": 1},
            {"key": "r", "limit": True, "per": 1},
            {"key": "r", "limit": 1, "per": 0.09},
            {"key": "r", "limit": 1, "per": 86_401},
            {"key": "r", "limit": 1, "per": "1"},
            {"key": "r", "limit": 1, "per": 1, "burst": 2},
        )
    ],
    *[("tags", {"tags": value}) for value in (None, "a", {}, ["a"] * 17, [""], ["t" * 101], [5], [None], [["a"]])],
    *[("webhookUrl", {"webhookUrl": value}) for value in ("", "example.com", "ftp://example.com", "h" * 8193, 5)],
]


@pytest.mark.parametrize(("name", "body"), WRONG, ids=lambda value: str(value)[:50])
def test_wrong_value_is_refused_as_by_post(service: Service, name: str, body: dict[str, Any]) -> None:
    with pytest.raises(errors.InvalidParameterValue) as refused:
        committed(service, **body)
    assert name in refused.value.diag.message_primary
    assert service.client.post("/jobs", json=body).status_code == 422
    assert service.sql("SELECT count(*) FROM jobs") == [(0,)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((None, {}, {}), "type must not be null"),
        (("TEST_JOB", None, {}), "payload must be an object"),
        (("TEST_JOB", [], {}), "payload must be an object"),
        (("TEST_JOB", "{}", {}), "payload must be an object"),
        (("TEST_JOB", {}, None), "options must be an object"),
        (("TEST_JOB", {}, []), "options must be an object"),
        (("TEST_JOB", {}, {"type": "SUM"}), 'there is no option "type"; known options: queue, delay, runAt'),
        (("TEST_JOB", {}, {"run_at": 5}), 'did you mean "runAt"?'),
        (("test-job", {}, {}), 'did you mean "TEST_JOB"?'),
        (("NONE", {}, {}), 'there is no type "NONE"; known types: BACKOFF, '),
        (("TEST_JOB", {}, {"queue": "none"}), 'there is no queue "none"; known queues: default, high, low'),
    ],
)
def test_refusal_names_what_is_allowed(service: Service, arguments: tuple[Any, Any, Any], message: str) -> None:
    with application(service) as connection, pytest.raises(errors.InvalidParameterValue) as refused:
        call(connection, *arguments)
    assert message in refused.value.diag.message_primary


@pytest.mark.parametrize("number", ["1" + "0" * 4300, "-1e4300", "1" + "0" * 310 + ".5", "0." + "0" * 5000 + "1"])
def test_number_that_no_worker_could_read_stops_no_other_job(service: Service, number: str) -> None:
    with application(service) as connection, connection.cursor() as cursor:
        with contextlib.suppress(errors.InvalidParameterValue):
            cursor.execute("SELECT jobsvc_enqueue('TEST_JOB', %s)", (f'{{"result": {number}}}',))
        connection.commit()
    other = committed(service)
    assert service.client.get("/jobs").json()["jobs"][0]["id"] == other
    assert service.sql("SELECT count(*) FROM jobs") == [(1 + number.startswith("0."),)]


def holder(service: Service, key: str, **body: Any) -> str:
    return committed(service, uniqueKey=key, delay=1000, **body)


def test_taken_key_returns_its_holder(service: Service) -> None:
    first = holder(service, "k")
    assert committed(service, uniqueKey="k") == first
    assert committed(service, uniqueKey="k", onConflict="return") == first
    assert service.client.post("/jobs", json={"uniqueKey": "k"}).json() == {"jobId": first}
    assert committed(service, type="SUM", payload={"numbers": []}, uniqueKey="k") != first
    assert service.client.post(f"/jobs/{first}/cancel").status_code == 200
    assert committed(service, uniqueKey="k") != first


def test_taken_key_is_rejected_with_its_holder(service: Service) -> None:
    first = holder(service, "k")
    with application(service) as connection, pytest.raises(errors.UniqueViolation) as refused:
        enqueue(connection, uniqueKey="k", onConflict="reject")
    assert first in refused.value.diag.message_primary
    assert refused.value.diag.constraint_name == "jobs_unique_key"
    assert committed(service, uniqueKey="other", onConflict="reject") != first


HOLDERS = {
    "later": "status = 'SCHEDULED', due_at = now() + interval '5 min', run_at = now() + interval '5 min'",
    "due, in RQ": "due_at = now() - interval '10 s', dispatched_at = now()",
    "withheld": "due_at = now() - interval '10 s', dispatched_at = 'infinity', concurrency_key = 'c'",
    "retrying": "status = 'RETRYING', attempts = 2, due_at = now() + interval '5 min', expiry_met = now()",
    "snoozed": "status = 'SCHEDULED', attempts = 0, due_at = now() + interval '5 min', expiry_met = now()",
    "blocked": "status = 'BLOCKED', open_dependencies = 1, depends_on = '{01a2193f-f82d-7a56-b96f-0f40b64c4c3e}'",
}
"""How a job that has the unique key may wait."""

REPLACEMENTS: list[dict[str, Any]] = [
    {},
    {"delay": 1000, "expiresIn": 1000, "tags": ["new"], "payload": {"result": 2}},
    {
        "queue": "low",
        "retry": {"max": 1, "interval": 9},
        "timeout": 9,
        "concurrencyKey": "new",
        "webhookUrl": "http://a.b",
    },
    {"runAt": "2001-02-03T04:05:06Z", "expiresIn": 1000},
]
REPLACED = """
SELECT to_jsonb(jobs) - '{id,created_at,dispatched_at}'::text[] || jsonb_build_object(
    'run_at', to_char(run_at - now(), 'DD HH24:MI'),
    'due_at', CASE WHEN due_at < now() - interval '1 s' THEN 'before' WHEN due_at > now() THEN 'later' ELSE 'now' END,
    'expires_at', expires_at > now() + interval '900 s',
    'expiry_met', expiry_met > now() + interval '900 s'
) FROM jobs WHERE id = %s
"""


@pytest.mark.parametrize("state", HOLDERS)
@pytest.mark.parametrize("body", REPLACEMENTS, ids=lambda body: "+".join(body))
def test_waiting_holder_is_replaced_as_by_post(service: Service, state: str, body: dict[str, Any]) -> None:
    body = {"uniqueKey": "k", "onConflict": "replace", **body}
    found = []
    for replace in (
        lambda: service.client.post("/jobs", json=body).json()["jobId"],
        lambda: committed(service, **body),
    ):
        service.sql("DELETE FROM jobs")
        first = holder(service, "k", expiresIn=5000, tags=["old"], timeout=5)
        service.sql(f"UPDATE jobs SET {HOLDERS[state]} WHERE id = %s", first)
        assert replace() == first
        found += service.sql(REPLACED, first)
    assert found[0] == found[1]


@pytest.mark.parametrize(("body", "stays"), [({}, True), ({"queue": "low"}, False), ({"delay": 1000}, False)])
def test_replaced_job_is_dispatched_again_unless_its_entry_in_rq_fits(
    service: Service, body: dict[str, Any], stays: bool
) -> None:
    first = holder(service, "k")
    service.sql("UPDATE jobs SET due_at = now() - interval '10 s', dispatched_at = now() WHERE id = %s", first)
    [before] = service.sql("SELECT dispatched_at FROM jobs")
    with application(service) as connection, connection.cursor() as cursor:
        assert enqueue(connection, uniqueKey="k", onConflict="replace", **body) == first
        cursor.execute("SELECT dispatched_at FROM jobs")
        assert cursor.fetchall() == [before if stays else (None,)]


def test_running_holder_is_not_replaced(service: Service) -> None:
    first = holder(service, "k")
    service.sql("UPDATE jobs SET status = 'PROCESSING', lease_expires_at = now() + interval '1 h' WHERE id = %s", first)
    with pytest.raises(errors.UniqueViolation, match=first):
        committed(service, uniqueKey="k", onConflict="replace")
    assert service.client.post("/jobs", json={"uniqueKey": "k", "onConflict": "replace"}).status_code == 409


@pytest.mark.parametrize("on_conflict", ["return", "reject", "replace"])
def test_second_of_two_transactions_waits_for_the_key(service: Service, on_conflict: str) -> None:
    outcome: list[Any] = []

    def second() -> None:
        try:
            outcome.append(committed(service, uniqueKey="k", onConflict=on_conflict, timeout=7))
        except errors.UniqueViolation as error:
            outcome.append(error.diag.message_primary)

    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'transactionid'"
    )
    for ends_by, is_first in (("commit", True), ("rollback", False)):
        service.sql("DELETE FROM jobs")
        outcome.clear()
        with application(service) as connection:
            first = enqueue(connection, uniqueKey="k")
            thread = threading.Thread(target=second)
            thread.start()
            eventually(lambda: service.sql(waiting) == [(1,)])
            getattr(connection, ends_by)()
            thread.join(20)
        [[job_id, timeout]] = service.sql("SELECT id::text, timeout FROM jobs")
        assert (job_id == first) is is_first
        assert timeout == (7 if on_conflict == "replace" or not is_first else 180)
        if on_conflict == "reject" and is_first:
            assert first in outcome[0]
        else:
            assert outcome == [job_id]


def test_open_transaction_holds_up_no_other_job(service: Service) -> None:
    with application(service) as connection:
        enqueue(connection, uniqueKey="k", concurrencyKey="c")
        service.post(uniqueKey="other", concurrencyKey="c")
        committed(service, concurrencyKey="c")
        assert service.client.post("/jobs/cancel?type=TEST_JOB").json() == {"count": 2}


@pytest.fixture
def role(service: Service) -> Iterator[str]:
    """A role that may log in, and no more."""
    name = f"shop_{uuid4().hex[:8]}"
    service.sql(f"CREATE ROLE {name} LOGIN PASSWORD 'x'")
    yield name
    service.sql(f"DROP OWNED BY {name}; DROP ROLE {name}")


def test_role_needs_execute_and_nothing_else(service: Service, role: str) -> None:
    with application(service, user=role, password="x") as connection, connection.cursor() as cursor:
        with pytest.raises(errors.InsufficientPrivilege):
            enqueue(connection)
        connection.rollback()
        service.sql(f"GRANT EXECUTE ON FUNCTION jobsvc_enqueue TO {role}")
        job_id = enqueue(connection, uniqueKey="k", delay=5)
        assert enqueue(connection, uniqueKey="k", onConflict="replace") == job_id
        connection.commit()
        helpers = service.sql(
            "SELECT proname FROM pg_proc WHERE proname LIKE 'jobsvc!_%%' ESCAPE '!' AND NOT prosecdef"
        )
        assert len(helpers) > 5
        statements = [f"SELECT {table}.* FROM {table}" for table in ("jobs", "job_types", "served_queues", "tallies")]
        statements += [f"SELECT 'x' FROM {name}" for name in ("attempts", "deployment", "schedules")]
        for statement in (
            *statements,
            "DELETE FROM jobs",
            "SELECT jobsvc_make_id(now())",
            "SELECT jobsvc_read_tags('[]')",
        ):
            with pytest.raises(errors.InsufficientPrivilege):
                cursor.execute(statement)
            connection.rollback()
        for [name] in helpers:
            cursor.execute("SELECT has_function_privilege(oid, 'execute') FROM pg_proc WHERE proname = %s", (name,))
            assert cursor.fetchall() == [(False,)], name


def test_callers_own_objects_and_settings_change_nothing(service: Service, role: str) -> None:
    service.sql(f"GRANT EXECUTE ON FUNCTION jobsvc_enqueue TO {role}; CREATE SCHEMA evil AUTHORIZATION {role}")
    evil = "RETURNS {} LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'called as %', current_user; END $$"
    with application(service, user=role, password="x") as connection, connection.cursor() as cursor:
        cursor.execute("CREATE TEMP TABLE jobs (id uuid); CREATE TEMP TABLE job_types (name text)")
        for schema in ("evil", "pg_temp"):
            cursor.execute(f"CREATE FUNCTION {schema}.clock_timestamp() {evil.format('timestamptz')}")
            cursor.execute(f"CREATE FUNCTION {schema}.length(text) {evil.format('integer')}")
            cursor.execute(f"CREATE FUNCTION {schema}.jobsvc_make_job(text, jsonb, jsonb) {evil.format('record')}")
            cursor.execute(f"CREATE FUNCTION {schema}.same(text, text) {evil.format('boolean')}")
            cursor.execute(f"CREATE OPERATOR {schema}.= (FUNCTION = {schema}.same, LEFTARG = text, RIGHTARG = text)")
        cursor.execute(
            "SET search_path = evil, pg_temp, pg_catalog; SET timezone = 'Asia/Tokyo'; SET datestyle = 'SQL, DMY';"
            "SET standard_conforming_strings = off; SET transform_null_equals = on;"
            "SET intervalstyle = sql_standard; SET plpgsql.extra_errors = 'all'; SET check_function_bodies = off"
        )
        cursor.execute(
            "SELECT public.jobsvc_enqueue('TEST_JOB', '{}', '"
            '{"tags": ["a"], "uniqueKey": "k", "runAt": "2001-02-03T04:05:06.5+01:00", "retry": {"interval": [1]}}'
            "')"
        )
        connection.commit()
    service.sql("DROP SCHEMA evil CASCADE")
    [[run_at, tags]] = service.sql("SELECT extract(epoch FROM run_at), tags FROM jobs")
    assert (float(run_at), tags) == (981169506.5, ["a"])
