"""The estimate of Postgres' clock in a process, and ids with that time."""

import multiprocessing
import time
from array import array
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain, pairwise
from uuid import UUID

import pytest

from jobsvc import jobs
from jobsvc.db.engine import transaction
from jobsvc.jobs.ids import first_id, learn_clock, make_ids
from jobsvc.servers import pgclock


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    before = array("d", pgclock._shared)
    yield
    pgclock._shared[:] = before


def forget() -> None:
    pgclock._shared[2] = 0


def sample(offset: float, least_error: float, greatest_error: float, at: float) -> None:
    """A sample at `at` whose answer left Postgres somewhere between these errors."""
    pgclock.add_sample(at + offset, at - greatest_error, at - least_error)


def error(offset: float) -> float:
    return abs((pgclock._shared[0] + pgclock._shared[1]) / 2 - offset)


def test_host_time_is_used_before_the_first_sample() -> None:
    forget()
    assert not pgclock.is_known()
    assert pgclock.now() == pytest.approx(time.time(), abs=1)


def test_samples_narrow_the_offset() -> None:
    forget()
    sample(500, 0, 1, at=100)
    assert error(500) == pytest.approx(0.5)
    sample(500, -0.5, 0.01, at=100.1)
    assert error(500) < 0.006


def test_drifting_clock_is_followed() -> None:
    forget()
    for second in range(1000):
        sample(500 + second * 4e-4, -0.001, 0.001, at=100 + second)
        assert error(500 + second * 4e-4) < 0.002


@pytest.mark.parametrize("step", [300, -300, 1])
def test_changed_clock_is_followed_at_once(step: float) -> None:
    forget()
    sample(500, -0.001, 0.001, at=100)
    sample(500 + step, -0.01, 0.01, at=101)
    assert error(500 + step) < 0.02


def test_postgres_time_is_known_within_a_round_trip() -> None:
    forget()
    assert jobs.current_time().timestamp() == pytest.approx(time.time(), abs=1)
    assert pgclock.is_fresh()


def test_forked_processes_share_the_offset() -> None:
    sample(pgclock.now() - pgclock.seconds_since_boot() + 3600, -0.001, 0.001, at=pgclock.seconds_since_boot())
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(pgclock.now) - time.time() == pytest.approx(3600, abs=5)
        pool.apply(sample, (5000, -0.001, 0.001, pgclock.seconds_since_boot()))
    assert error(5000) < 0.01


def test_ids_rise_over_threads_and_have_version_and_variant() -> None:
    def make(_: int) -> list[str]:
        with transaction() as connection:
            return list(chain.from_iterable(make_ids(connection, count) for count in (1, 1000, 3)))

    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(make, range(8)))
    for ids in made:
        assert all(one < other for one, other in pairwise(ids))
    everything = [UUID(id_) for id_ in chain.from_iterable(made)]
    assert [str(id_) for id_ in everything] == list(chain.from_iterable(made))
    assert len(set(everything)) == len(everything)
    assert {(id_.version, id_.variant) for id_ in everything} == {(7, "specified in RFC 4122")}


def test_ids_go_back_only_if_the_clock_was_set_back() -> None:
    with transaction() as connection:
        learn_clock(connection)
        [first] = make_ids(connection, 1)
        for step, is_higher in ((-0.5, True), (-300, False)):
            forget()
            at = pgclock.seconds_since_boot()
            sample(time.time() - at + step, -0.001, 0.001, at=at)
            [second] = make_ids(connection, 1)
            assert (second > first) == is_higher
            assert is_higher or second >= str(first_id(time.time() - 301))
