"""`flask jobs`: its help, short ids, and the commands that change jobs and queues or list what the service has."""

import json
import os
import sys
import uuid
from typing import Any

import pytest
import redis

from jobsvc import jobs
from jobsvc.jobs.serialize import dump_job
from tests.acceptance.test_cli import ENV, IN_TURN, QUEUE, answer, cli, completed_job, failed_job, objects, status
from tests.integration.factories import sql, submit
from tests.support.launcher import run_program
from tests.support.service import Service

COMMANDS = [
    "cancel",
    "delete",
    "enqueue",
    "explain",
    "list",
    "pause",
    "resume",
    "retry",
    "schedules",
    "show",
    "stats",
    "tail",
    "types",
    "update",
    "workers",
]


def in_turn(*commands: list[str], **env: str) -> list[tuple[int, str, str]]:
    """Run the commands one after the other in one process; returns the exit code, output and errors of each."""
    done = run_program(sys.executable, "-c", IN_TURN, *map(json.dumps, commands), env={**ENV, "COLUMNS": "80", **env})
    assert len(done.stdout.splitlines()) == len(commands), done.stderr
    return [(code, out, err) for code, out, err in map(json.loads, done.stdout.splitlines())]


def env_of(service: Service) -> dict[str, str]:
    return {**service.env, "JOBSVC_QUEUES": "high,default,low"}


def test_help_fits_80_columns() -> None:
    [(_, overview, _), *helps] = in_turn(["--help"], *([command, "--help"] for command in COMMANDS))
    listed = [line.split()[0] for line in overview.partition("Commands:\n")[2].partition("\n\n")[0].splitlines()]
    assert listed == COMMANDS
    assert "..." not in overview.partition("Commands:\n")[2]
    assert "Exit status: 0 done; 1 not found, refused or unavailable; 2 wrong usage." in overview
    for code, text, err in [(0, overview, ""), *helps]:
        assert (code, err) == (0, "")
        assert max(map(len, text.splitlines())) <= 80, text


def test_an_id_is_accepted_by_its_last_8_characters() -> None:
    failed, done = failed_job(), completed_job()
    [shown] = objects(answer("show", str(failed)[-8:].upper(), "--json"))
    assert shown["job"]["id"] == str(failed)
    ended = cli("retry", str(done)[-8:], "00000000", str(failed)[-8:], str(failed))
    assert (ended.returncode, ended.stdout) == (1, "retry: 1 job\n")
    assert ended.stderr.splitlines()[0].startswith(f"Error: {str(done)[-8:]}: the job was COMPLETED; ")
    assert ended.stderr.splitlines()[1:] == [
        f"Error: 00000000: none of the newest {jobs.MOST_SEARCHED:,} jobs has an id that ends in 00000000"
    ]
    assert status(failed) == "PENDING"


def test_an_ambiguous_short_id_is_refused() -> None:
    one = submit(queue=QUEUE)
    twin = uuid.UUID(f"{str(uuid.uuid4())[:-8]}{str(one)[-8:]}")
    sql("UPDATE jobs SET id = :twin WHERE id = :id", id=submit(queue=QUEUE), twin=twin)
    ended = cli("cancel", str(one)[-8:])
    assert (ended.returncode, ended.stdout) == (1, "cancel: 0 jobs\n")
    assert ended.stderr.startswith(
        f"Error: {str(one)[-8:]}: several jobs have ids that end in {str(one)[-8:]}, such as "
    )
    assert (status(one), status(twin)) == ("PENDING", "PENDING")


def test_enqueue_takes_every_field_of_a_post_and_dispatches() -> None:
    job_id = answer("enqueue", "TEST_JOB", '{"durationMs": 5}', "--queue", QUEUE).strip()
    job = dump_job(jobs.get(uuid.UUID(job_id)))
    assert (job["payload"], job["queue"], job["status"]) == ({"durationMs": 5}, QUEUE, "PENDING")
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        assert client.lrange(f"rq:queue:jobsvc.{QUEUE}", 0, -1).count(job_id.encode()) == 1
    options = {
        "--delay": "60.5",
        "--retry": '{"max": 2, "interval": 7}',
        "--timeout": "30",
        "--expires-in": "3600",
        "--unique-key": str(uuid.uuid4()),
        "--concurrency-key": "k",
        "--concurrency-limit": "3",
    }
    arguments = ["enqueue", "TEST_JOB", "--queue", QUEUE, "--tag", "a", "--tag", "b", "--json"]
    arguments += [word for option in options.items() for word in option]
    [made] = objects(answer(*arguments))
    job = dump_job(jobs.get(uuid.UUID(made["jobId"])))
    assert (job["status"], job["tags"], job["retryIntervals"], job["timeout"]) == ("SCHEDULED", ["a", "b"], [7, 7], 30)
    assert (job["uniqueKey"], job["concurrencyKey"]) == (options["--unique-key"], "k")
    assert job["expiresAt"] is not None
    assert objects(answer(*arguments)) == [made]  # the unfinished job with the unique key
    assert objects(answer(*arguments, "--on-conflict", "replace", "--tag", "c")) == [made]
    assert jobs.get(uuid.UUID(made["jobId"])).tags == ["a", "b", "c"]
    refusal = cli("enqueue", "TEST_JOB", "--unique-key", options["--unique-key"], "--on-conflict", "reject")
    assert (refusal.returncode, refusal.stdout) == (1, "")
    assert refusal.stderr == f"Error: the unfinished job {made['jobId']} has the uniqueKey\n"


def test_update_changes_what_its_options_give() -> None:
    one = submit(queue=QUEUE, delay=600, tags=["a"], timeout=9, expires_in=700)
    before = dump_job(jobs.get(one))
    assert answer("update", str(one)[-8:], "--payload", '{"steps": 2}', "--tag", "b", "--tag", "c") == "update: 1 job\n"
    job = dump_job(jobs.get(one))
    assert (job["payload"], job["tags"]) == ({"steps": 2}, ["b", "c"])
    assert {**job, "payload": before["payload"], "tags": before["tags"]} == before
    options = ["--queue", QUEUE, "--delay", "900", "--retry", '{"max": 1, "interval": 3}', "--timeout", "5"]
    [job] = objects(answer("update", str(one), *options, "--expires-in", "1000", "--json"))
    assert (job["retryIntervals"], job["timeout"], job["status"]) == ([3], 5, "SCHEDULED")
    reset = [word for field in ("timeout", "expiresIn", "tags", "retry", "runAt") for word in ("--reset", field)]
    [job] = objects(answer("update", str(one), *reset, "--json"))
    assert (job["timeout"], job["expiresAt"], job["tags"], job["status"]) == (180, None, [], "PENDING")
    assert job["retryIntervals"] == [1, 5, 25]
    with redis.Redis.from_url(os.environ["REDIS_URL"]) as client:
        assert client.lrange(f"rq:queue:jobsvc.{QUEUE}", 0, -1).count(str(one).encode()) == 1
    assert objects(answer("update", str(one), "--json")) == [job]
    wrong = cli("update", str(one), "--delay", "-1")
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "/delay" in wrong.stderr
    unstorable = cli("update", str(one), "--payload", '{"result": "\\u0000"}')
    assert (unstorable.returncode, unstorable.stderr) == (2, "Error: /payload/result: contains U+0000\n")
    done = completed_job()
    refusal = cli("update", str(done), "--delay", "1")
    assert (refusal.returncode, refusal.stderr.startswith("Error: the job was COMPLETED; ")) == (1, True)


def test_enqueue_refuses_what_a_post_refuses(api: Service) -> None:
    wrong: list[tuple[list[str], dict[str, Any]]] = [
        (["NOPE"], {"type": "NOPE"}),
        (["TEST_JOB", '{"durationMs": "1"}'], {"type": "TEST_JOB", "payload": {"durationMs": "1"}}),
        (["TEST_JOB", "[]"], {"type": "TEST_JOB", "payload": []}),
        (["TEST_JOB", '{"result": "\\u0000"}'], {"type": "TEST_JOB", "payload": {"result": "\0"}}),
        (["TEST_JOB", "--delay", '"1"'], {"type": "TEST_JOB", "delay": "1"}),
        (["TEST_JOB", "--delay", "-1"], {"type": "TEST_JOB", "delay": -1}),
        (
            ["TEST_JOB", "--delay", "1", "--run-at", "2030-01-31T12:00:00Z"],
            {"type": "TEST_JOB", "delay": 1, "runAt": "2030-01-31T12:00:00Z"},
        ),
        (["TEST_JOB", "--run-at", "tomorrow"], {"type": "TEST_JOB", "runAt": "tomorrow"}),
        (["TEST_JOB", "--retry", '{"maxx": 1}'], {"type": "TEST_JOB", "retry": {"maxx": 1}}),
        (["TEST_JOB", "--concurrency-limit", "1"], {"type": "TEST_JOB", "concurrencyLimit": 1}),
        (["TEST_JOB", "--unique-key", ""], {"type": "TEST_JOB", "uniqueKey": ""}),
        (["TEST_JOB", "--tag", "x" * 101], {"type": "TEST_JOB", "tags": ["x" * 101]}),
    ]
    ended = in_turn(*(["enqueue", *arguments] for arguments, _ in wrong), **env_of(api))
    for (_, body), (code, out, err) in zip(wrong, ended, strict=True):
        answered = api.client.post("/jobs", json=body)
        assert answered.status_code == 422
        errors = [(one["pointer"], one["detail"]) for one in answered.json()["errors"]]
        texts = [f"{pointer}: {detail}" if pointer else detail for pointer, detail in errors]
        assert (code, out, err) == (2, "", f"Error: {'; '.join(texts)}\n")


@pytest.mark.parametrize("arguments", [["TEST_JOB", "{"], ["TEST_JOB", "NaN"], ["TEST_JOB", "--delay", "soon"], []])
def test_enqueue_refuses_what_is_not_json(arguments: list[str]) -> None:
    ended = cli("enqueue", *arguments)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in ended.stderr


def test_enqueue_refuses_more_than_a_body_may_have() -> None:
    payload = json.dumps({"result": "x" * 1024})
    ended = cli("enqueue", "TEST_JOB", payload, env={"JOBSVC_MAX_BODY_BYTES": "1024"})
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.splitlines()[-1].endswith("has more than JOBSVC_MAX_BODY_BYTES=1024")


def test_enqueue_waits_for_the_end(service: Service) -> None:
    service.worker()
    env = env_of(service)
    done = cli("enqueue", "TEST_JOB", '{"result": {"n": 1}}', "--wait", "30", "--json", env=env)
    assert done.returncode == 0, done.stderr
    [job] = objects(done.stdout)
    assert (job["status"], job["result"]) == ("COMPLETED", {"n": 1})
    late = cli("enqueue", "TEST_JOB", "--delay", "60", "--wait", "0", env=env)
    assert (late.returncode, len(late.stdout.splitlines())) == (1, 1)
    failed = cli("enqueue", "TEST_JOB", '{"failAttempts": 1}', "--retry", '{"max": 0}', "--wait", "30", env=env)
    assert failed.returncode == 1
    assert "FAILED" in failed.stdout


def test_delete_removes_ended_jobs_alone() -> None:
    done, waits = completed_job(), submit(queue=QUEUE)
    ended = cli("delete", str(done), str(waits)[-8:])
    assert (ended.returncode, ended.stdout) == (1, "delete: 1 job\n")
    assert ended.stderr.startswith(f"Error: {str(waits)[-8:]}: the job was PENDING; only one that is ")
    assert cli("show", str(done)).returncode == 1
    assert status(waits) == "PENDING"


def test_delete_of_matching_jobs_asks_for_confirmation() -> None:
    tag = str(uuid.uuid4())
    done, waits = completed_job(tags=[tag]), submit(queue=QUEUE, tags=[tag])
    failed = failed_job(tags=[tag])
    error = jobs.get(failed).error or {}
    assert cli("delete", "--tag", tag).returncode == 1  # no terminal, so no answer
    declined = cli("delete", "--tag", tag, say="n\n")
    assert "delete 2 jobs? [y/N]" in declined.stderr
    assert (declined.returncode, status(done)) == (1, "COMPLETED")
    selected = ("--tag", tag, "--error-type", error["type"], "--error", error["message"])
    assert answer("list", *selected, "--json").count(str(failed)) == 1
    assert answer("delete", *selected, "--yes", "--json") == '{"count":1}\n'
    assert answer("delete", "--tag", tag, "--yes") == "delete: 1 job\n"
    assert answer("delete", "--tag", tag) == "delete: no job matches\n"
    assert status(waits) == "PENDING"


def test_pause_and_resume() -> None:
    assert answer("pause", QUEUE) == f"pause: {QUEUE}\n"
    try:
        assert QUEUE in jobs.paused_queues()
    finally:
        assert answer("resume", QUEUE) == f"resume: {QUEUE}\n"
    assert QUEUE not in jobs.paused_queues()
    for command in ("pause", "resume"):
        ended = cli(command, "terminall")
        assert (ended.returncode, ended.stdout) == (1, "")
        known = f"known queues: {QUEUE}, default; did you mean '{QUEUE}'?"
        assert ended.stderr == f"Error: there is no queue 'terminall'; {known}\n"


def test_workers_schedules_and_types_are_what_the_api_shows(service: Service) -> None:
    service.worker()
    schedule = {"cron": "0 3 * * *", "job": {"type": "TEST_JOB"}}
    assert service.client.put("/schedules/nightly", json=schedule).status_code == 201
    commands = {"types": "jobTypes", "schedules": "schedules", "workers": "workers"}
    for (command, field), path in zip(commands.items(), ("/job-types", "/schedules", "/workers"), strict=True):
        shown = service.client.get(path).json()[field]
        found = objects(answer(command, "--json", env=env_of(service)))
        if command == "workers":  # its heartbeat goes on
            shown, found = (
                [{**one, "lastHeartbeat": ""} for one in shown],
                [{**one, "lastHeartbeat": ""} for one in found],
            )
        assert found == shown
        table = answer(command, env=env_of(service)).splitlines()
        assert [row.split()[0] for row in table] == ["NAME", *(one["name"] for one in shown)]


def test_without_redis_or_workers_errors_and_empty_lists_are_one_line(clean: None) -> None:
    [error] = cli("workers", env={"REDIS_URL": "redis://127.0.0.1:1/0"}).stderr.splitlines()
    assert error.startswith("Error: Redis can't be used: ")
    assert answer("workers") == "No worker is registered in Redis.\n"
    assert answer("schedules") == "There are no schedules.\n"
    assert answer("workers", "--json") == ""


def test_enqueue_takes_the_options_of_workflows_and_limits() -> None:
    first, second = submit(queue=QUEUE), submit(queue=QUEUE)
    words = ["--depends-on", str(first)[-8:], "--depends-on", str(second), "--on-dependency-failure", "run"]
    words += [
        "--rate-limit",
        '{"key": "smtp", "limit": 5, "per": 60}',
        "--retry",
        '{"max": 2, "backoff": {"initial": 1}}',
    ]
    words += ["--unique-key", uuid.uuid4().hex, "--on-conflict", "reject"]
    [made] = objects(answer("enqueue", "TEST_JOB", "--queue", QUEUE, *words, "--json"))
    shown = answer("show", made["jobId"])
    assert "BLOCKED" in shown
    assert f'dependsOn       ["{first}", "{second}"]' in shown
    assert 'rateLimit       {"key": "smtp", "limit": 5, "per": 60}' in shown
    job = jobs.get(uuid.UUID(made["jobId"]))
    assert (job.on_dependency_failure, len(job.retry_intervals)) == ("run", 2)
    wrong = in_turn(
        ["enqueue", "TEST_JOB", *words],
        ["enqueue", "TEST_JOB", "--depends-on", str(uuid.uuid4())],
        ["enqueue", "TEST_JOB", "--depends-on", "00000000"],
        ["enqueue", "TEST_JOB", "--on-dependency-failure", "run"],
        ["enqueue", "TEST_JOB", "--rate-limit", '{"key": "k"}'],
        ["enqueue", "TEST_JOB", "--depends-on", "x"],
    )
    assert [code for code, _, _ in wrong] == [1, 2, 1, 2, 2, 2]
    for (_, out, err), text in zip(
        wrong, (made["jobId"], "/dependsOn/0", "00000000", "/onDep", "/rate", "'x'"), strict=True
    ):
        assert out == ""
        assert text in err


def test_jobs_are_selected_by_payload_and_dependency() -> None:
    tag = str(uuid.uuid4())
    first = submit(queue=QUEUE, payload={"to": "a", "n": 1}, tags=[tag])
    second = submit(queue=QUEUE, payload={"to": "b", "n": 1}, tags=[tag])
    sql("INSERT INTO dependencies VALUES (:first, :second, false)", first=first, second=second)
    chosen = (["--payload", '{"n": 1}', "--tag", tag], ["--payload", '{"to": "a"}'], ["--depends-on", str(first)[-8:]])
    listed = in_turn(*(["list", "--json", *options] for options in chosen), ["list", "--depends-on", "00000000"])
    assert [[job["id"] for job in objects(out)] for _, out, _ in listed] == [
        [str(second), str(first)],
        [str(first)],
        [str(second)],
        [],
    ]
    assert [code for code, _, _ in listed] == [0, 0, 0, 1]
    assert answer("cancel", "--payload", '{"to": "b"}', "--tag", tag, "--yes") == "cancel: 1 job\n"
    asked = cli("cancel", "--payload", '{"n": 1}', "--tag", tag, say="y\n")
    assert (asked.returncode, asked.stdout) == (0, "cancel: 1 job\n")
    assert "cancel 1 job? [y/N]" in asked.stderr
    assert answer("delete", "--depends-on", str(first), "--yes", "--json") == '{"count":1}\n'
    assert status(first) == "CANCELLED"
