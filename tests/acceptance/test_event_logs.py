"""Lines of a job's log on its event stream, and streams for which there is no place; in a browser, too."""

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from jobsvc.jobs.serialize import LineShown
from tests.conftest import empty
from tests.support.browser import chromium
from tests.support.http import refused
from tests.support.service import Service, eventually
from tests.support.sse import Event, collect, follow

LOGS = "?logs=true"


@pytest.fixture(scope="module")
def talking() -> Iterator[Service]:
    """A service with room for three streams, and a worker."""
    empty()
    service = Service(
        {"JOBSVC_HANDLERS": "tests.support.handlers.live", "JOBSVC_CONCURRENCY": "3"}, tune="serve.WAITERS = 3"
    )
    service.worker()
    yield service
    service.close()


def report(service: Service, *attempts: list[list[Any]], **body: Any) -> str:
    return service.post("REPORT", {"attempts": attempts}, **{"retry": {"max": 1, "interval": 0.3}, **body})


def shape(events: list[Event]) -> list[str]:
    """Return the message or the job's status of each event."""
    return [event["data"]["message" if event["event"] == "log" else "status"] for event in events]


@pytest.fixture(scope="module")
def ended(talking: Service) -> str:
    """A job of two attempts, with lines that were stored before and with the end of each."""
    first = [["lines", 1, 2], ["sleep", 1.6], ["progress", 50], ["lines", 3, 3], ["fail", "no"]]
    return report(talking, first, [["lines", 4, 5]])


def test_log_lines_come_once_in_order_before_their_attempt_finishes(talking: Service, ended: str) -> None:
    events = collect(talking, ended, query=LOGS)
    assert [event["event"] for event in events if event["event"] not in ("status", "progress")] == ["log"] * 5
    reported = [one for event, one in zip(events, shape(events), strict=True) if event["event"] != "progress"]
    lines = [one for one in reported if one.startswith("line")]
    assert lines == [f"line {number}" for number in range(1, 6)]
    assert reported.index("line 3") < reported.index("RETRYING") < reported.index("line 4")
    assert reported[-1] == "COMPLETED"
    assert [event["data"]["attempt"] for event in events if event["event"] == "log"] == [1, 1, 1, 2, 2]
    logs = [line for attempt in talking.attempts(ended) for line in attempt["logs"]]
    assert [{**event["data"], "attempt": None} for event in events if event["event"] == "log"] == [
        {"attempt": None, **line} for line in logs
    ]
    first = next(event["data"] for event in events if event["event"] == "log")
    assert list(first) == ["attempt", *LineShown.__annotations__]
    ids = [event["id"] for event in events]
    assert len(ids) == len(set(ids))
    # The client continues after the last event that it has seen.
    for number, event in enumerate(events[:-1]):
        rest = [one for one in events[number + 1 :] if one["event"] == "log" or one is events[-1]]
        assert shape(collect(talking, ended, event["id"], LOGS)) == shape(rest)
    with follow(talking, ended, events[-1]["id"], LOGS) as (reply, _):
        assert reply.status_code == 204


def test_stream_of_a_finished_job_has_all_lines(talking: Service, ended: str) -> None:
    talking.until(ended, "COMPLETED")
    events = collect(talking, ended, query=LOGS)
    assert shape(events) == [*(f"line {number}" for number in range(1, 6)), "COMPLETED"]
    for number, event in enumerate(events[:-1]):
        assert collect(talking, ended, event["id"], LOGS) == events[number + 1 :]


@pytest.mark.parametrize(
    "last", ["999.1.1", "1.99.1", "1.1.99", "1.0.5", "1.1", "1.1.1.1", "-1.0.0", "1.1.x", "1.1.-1", "x", "", "1 .1.1"]
)
def test_unknown_last_event_id_hides_no_line(talking: Service, ended: str, last: str) -> None:
    talking.until(ended, "COMPLETED")
    assert len(collect(talking, ended, last, LOGS)) == 6


def test_event_ids_with_and_without_lines_are_interchangeable(talking: Service, ended: str) -> None:
    talking.until(ended, "COMPLETED")
    [plain] = collect(talking, ended)
    assert plain["id"].isdecimal()
    with_lines = collect(talking, ended, query=LOGS)
    for query, last in ((LOGS, plain["id"]), ("", with_lines[-1]["id"]), ("?logs=false", with_lines[-1]["id"])):
        with follow(talking, ended, last, query) as (reply, _):
            assert reply.status_code == 204
    assert len(collect(talking, ended, "1", LOGS)) == 6


def test_reconnect_during_an_attempt_sends_only_newer_lines(talking: Service, tmp_path: Path) -> None:
    signal_files = [str(tmp_path / name) for name in "ab"]
    job_id = report(talking, [["lines", 1, 2], ["wait", signal_files[0]], ["lines", 3, 4], ["wait", signal_files[1]]])
    since = time.monotonic()
    with follow(talking, job_id, query=LOGS) as (_, stream):
        seen: list[Event] = []
        while "line 2" not in shape(seen):
            seen += filter(None, [next(stream)])
    Path(signal_files[0]).touch()
    with follow(talking, job_id, seen[-1]["id"], LOGS) as (_, stream):
        assert time.monotonic() - since < 10  # not with the next heartbeat
        more: list[Event] = []
        while "line 4" not in shape(more):
            more += filter(None, [next(stream)])
        Path(signal_files[1]).touch()
        more += filter(None, stream)
    assert shape(more) == ["line 3", "line 4", "COMPLETED"]


def test_dropped_lines_are_counted(talking: Service) -> None:
    job_id = report(talking, [["lines", 1, 2000]])
    talking.until(job_id, "COMPLETED")
    reported = shape(collect(talking, job_id, query=LOGS))
    assert reported == ["1000 earlier lines dropped", *(f"line {number}" for number in range(1001, 2001)), "COMPLETED"]


def test_lines_are_sent_only_on_request(talking: Service, ended: str) -> None:
    talking.until(ended, "COMPLETED")
    for query in ("", "?logs=false"):
        assert shape(collect(talking, ended, query=query)) == ["COMPLETED"]
    for query in ("logs=1", "logs=TRUE", "logs=", "logs=true&logs=true", "log=true"):
        refused(talking.client.get(f"/jobs/{ended}/events?{query}"), 422)


@contextmanager
def full(service: Service, job_id: str) -> Iterator[None]:
    """While streams of this job take all places; to be left when it has ended, so that they end as well."""
    kept = []  # a stream without references is closed
    with ExitStack() as streams:
        while True:
            reply, events = streams.enter_context(follow(service, job_id))
            if reply.status_code == 503:
                break
            assert next(events)
            kept.append(events)
        yield


def test_full_server_asks_an_event_client_to_reconnect(talking: Service) -> None:
    job_id = talking.post("REPORT", {"attempts": [[]]}, delay=600)
    with full(talking, job_id):
        for accept in ("text/event-stream", "Text/Event-Stream;q=0.9", "application/json, text/event-stream"):
            reply = talking.client.get(f"/jobs/{job_id}/events", headers={"Accept": accept})
            assert (reply.status_code, reply.headers["Content-Type"]) == (200, "text/event-stream; charset=utf-8")
            name, _, pause = reply.text.removesuffix("\n\n").partition(": ")
            assert name == "retry"
            assert 1000 <= int(pause) <= 10_000
        for accept in ("*/*", "text/*", "application/json", ""):
            reply = talking.client.get(f"/jobs/{job_id}/events", headers={"Accept": accept})
            refused(reply, 503)
            assert int(reply.headers["Retry-After"]) > 0
        talking.client.post(f"/jobs/{job_id}/cancel")
        talking.until(job_id, "CANCELLED")


FOLLOW = """(path) => {
    window.received = [];
    const source = new EventSource(path);
    for (const kind of ["status", "progress", "log"])
        source.addEventListener(kind, (event) => window.received.push({event: kind, data: JSON.parse(event.data)}));
    source.addEventListener("error", () => {
        window.received.push({event: "error", data: {status: source.readyState}});
        if (source.readyState == EventSource.CLOSED) window.isOver = true;
    });
}"""


def test_event_source_reconnects_until_a_slot_is_free(talking: Service, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    signal_file = tmp_path / "go on"
    job_id = report(talking, [["lines", 1, 2], ["wait", str(signal_file)], ["lines", 3, 3]])
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        page = browser.new_context(bypass_csp=True).new_page()
        page.goto(f"{talking.url}/healthz")
        with full(talking, job_id):
            page.evaluate(FOLLOW, f"/jobs/{job_id}/events?logs=true")
            eventually(lambda: page.evaluate("window.received.length"), 10)
            assert page.evaluate("window.received[0]") == {"event": "error", "data": {"status": 0}}  # it connects again
            signal_file.touch()
            talking.until(job_id, "COMPLETED")
        eventually(lambda: page.evaluate("window.isOver"), 30)  # by the 204 after the end
        reported = [one for one in page.evaluate("window.received") if one["event"] != "error"]
        browser.close()
    assert [one for one in shape(reported) if one.startswith("line")] == ["line 1", "line 2", "line 3"]
    assert shape(reported)[-1] == "COMPLETED"
