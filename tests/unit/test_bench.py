"""The benchmark's own arithmetic, and its load generator against a server that answers in pieces."""

import socket
import threading

import pytest

from bench import load
from bench.competitors import EXPRESS, JOBSVC
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
    assert ACCEPT.assess(results("accept.rate", [2], [2])) == ("1.00 ×", "pass")
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
