"""The benchmark's own arithmetic, and its load generator against a server that answers in pieces."""

import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from bench import load, rate, sleepers, sql_enqueue, workflow
from bench.competitors import EXPRESS, JOBSVC
from bench.environment import BenchError, Environment, query
from bench.goals import GOALS
from bench.results import Results

ACCEPT = next(goal for goal in GOALS if "20 connections" in goal.what)
P99 = GOALS[GOALS.index(ACCEPT) + 1]


def results(figure: str, ours: list[float], theirs: list[float]) -> Results:
    made = Results()
    for name, values in ((JOBSVC, ours), (EXPRESS, theirs)):
        for value in values:
            made.write(figure, name, value)
    return made


def test_ratio_is_taken_within_each_round() -> None:
    assert results("accept.rate", [10, 100, 30], [10, 50, 10]).ratio("accept.rate", JOBSVC, EXPRESS) == 2


def test_goal_is_passed_or_short() -> None:
    assert ACCEPT.assess(results("accept.rate", [3], [2])) == ("1.50 ×", "pass")
    assert ACCEPT.assess(results("accept.rate", [1], [2])) == ("0.50 ×", "short")
    assert P99.assess(results("accept.p99", [1], [2])) == ("0.50 ×", "pass")
    assert P99.assess(results("accept.p99", [3], [2])) == ("1.50 ×", "short")


def test_unmeasured_goal_is_not_passed() -> None:
    assert ACCEPT.assess(results("accept.rate", [2], []))[1] == "not measured"


def answering(listener: socket.socket, pieces: list[bytes]) -> None:
    connection, _ = listener.accept()
    with connection:
        while connection.recv(65536):
            for piece in pieces:
                connection.sendall(piece)


@pytest.mark.parametrize(
    ("pieces", "refused"),
    [
        ([b"HTTP/1.1 202 Accepted\r\nContent-Le", b"ngth: 4\r\n\r\n{", b"  }"], False),
        ([b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"], True),
    ],
)
def test_load_counts_complete_202_responses_only(pieces: list[bytes], refused: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=answering, args=(listener, pieces))
        server.start()
        if refused:
            with pytest.raises(load.Refused):
                load.post(listener.getsockname()[1], "/jobs", b"{}", connections=1, number=3)
        else:
            assert len(load.post(listener.getsockname()[1], "/jobs", b"{}", connections=1, number=3).times) == 3
        server.join()


def test_jobs_are_posted_at_their_times() -> None:
    times: list[float] = []

    def body(at: float) -> bytes:
        times.append(at)
        assert at <= time.time() < at + load.LATE
        return b"{}"

    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=answering, args=(listener, [b"HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n"]))
        server.start()
        began = time.time()
        assert load.post_at(listener.getsockname()[1], 100, 0.5, connections=1, body=body) == 50
        assert time.time() - began >= 0.49
        server.join()
    assert [round(100 * (at - times[0])) for at in times] == list(range(50))


def test_late_jobs_are_not_posted(monkeypatch: pytest.MonkeyPatch) -> None:
    def answer_slowly(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            while connection.recv(65536):
                time.sleep(0.05)
                connection.sendall(b"HTTP/1.1 202 OK\r\nContent-Length: 0\r\n\r\n")

    monkeypatch.setattr(load, "LATE", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=answer_slowly, args=(listener,))
        server.start()
        assert load.post_at(listener.getsockname()[1], 100, 5, connections=1, body=lambda _: b"{}") < 20
        server.join()


@pytest.fixture
def signals() -> Iterator[None]:
    """Restore the signal handlers, which the end of a run changes."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals")
def test_run_on_given_servers_leaves_nothing_there_and_deletes_no_key() -> None:
    given = {"DATABASE_URL": os.environ["DATABASE_URL"], "REDIS_URL": f"{os.environ['REDIS_URL'].rpartition('/')[0]}/9"}
    with Environment(given=given) as environment:
        environment.make("filled", lambda: environment.sql("CREATE TABLE job ()"))
        environment.fresh("filled")
        assert environment.sql("SELECT current_database(), count(*) FROM job") == [("jobsvc_bench_bench", 0)]
        assert set(environment.servers()) == {"postgres", "valkey"}
    names = query(given["DATABASE_URL"], "SELECT datname FROM pg_database WHERE datname LIKE 'jobsvc_bench%'")
    assert names == []
    with redis.Redis.from_url(given["REDIS_URL"]) as client:
        client.set("key", "value")
        try:
            with pytest.raises(BenchError, match="has keys"), Environment(given=given):
                pass
            assert client.get("key") == b"value"
        finally:
            client.delete("key")


def test_batches_are_posted_in_requests_of_a_thousand() -> None:
    numbers: list[int] = []

    def answer(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection, connection.makefile("rb") as wire:
            while wire.readline():
                length = 0
                while (line := wire.readline().strip()) != b"":
                    name, _, value = line.partition(b":")
                    length = int(value) if name.lower() == b"content-length" else length
                jobs = json.loads(wire.read(length))["jobs"]
                numbers.append(len(jobs))
                body = json.dumps({"jobIds": [job["tags"][0] for job in jobs]}).encode()
                connection.sendall(b"HTTP/1.1 202 Accepted\r\nContent-Length: %d\r\n\r\n" % len(body) + body)

    names = [str(number) for number in range(2500)]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=answer, args=(listener,))
        server.start()
        client = load.Client(listener.getsockname()[1])
        assert load.post_all(client, [{"tags": [name]} for name in names]) == names
        client.socket.close()
        server.join()
    assert numbers == [1000, 1000, 500]


def test_workflow_fans_out_twice() -> None:
    posted: list[dict[str, Any]] = []

    def post(jobs: list[dict[str, Any]]) -> list[str]:
        posted.extend(jobs)
        return [str(number) for number in range(len(posted) - len(jobs), len(posted))]

    workflow.fan_out(10_000, post)
    dependents = Counter(name for job in posted for name in job.get("dependsOn", []))
    assert len(posted) == 10_000
    assert dependents.pop("root") == 100
    assert set(dependents) == {str(number) for number in range(1, 101)}
    assert set(dependents.values()) == {98, 99}


def test_rate_is_compared_with_the_limit() -> None:
    ideal = [float(second) for second in range(11) for _ in range(100)]
    assert rate.share_of_ideal(ideal, 100, 1) == 1
    assert rate.share_of_ideal([2 * time for time in ideal], 100, 1) == 0.5
    late = [time - 0.5 if number < 50 else time for number, time in enumerate(ideal)]
    assert rate.share_of_ideal(late, 100, 1) == 1
    assert rate.most_within(ideal, 1) == 100
    assert rate.most_within([*ideal, 3.5], 1) == 101


def test_ideal_of_sleepers_is_a_second_for_each_thousand() -> None:
    assert sleepers.ideal_seconds(1000) == 1
    assert sleepers.ideal_seconds(1001) == 2


def test_statements_of_all_connections_are_counted() -> None:
    url = os.environ["DATABASE_URL"]
    statement = sql_enqueue.Statement("SELECT count(*) FROM pg_stat_activity", 1, 3)
    assert sql_enqueue.execute(url, statement, 0.1) >= 3
    with pytest.raises(BenchError):
        sql_enqueue.execute(url, sql_enqueue.Statement("SELECT 1 / 0", 1, 2), 0.1)
