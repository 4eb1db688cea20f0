"""Property tests of the state machine. `make properties STEPS=10000` runs more steps, with a new seed each time."""

import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from jobsvc.db.engine import disconnect
from jobsvc.states import MOVES
from tests.properties.checks import Ledger
from tests.properties.machine import Machine
from tests.properties.sessions import Sessions
from tests.properties.trail import Trail, recording

STEPS = int(os.environ.get("STEPS", "0"))
"""Number of steps, at random; 0 for the few of `make test`, which are always the same."""

STEPS_PER_EXAMPLE = 50
EXAMPLES = max(30, STEPS // 30)
"""Number of examples; many end before STEPS_PER_EXAMPLE."""

ALLOWED = {(before, after) for before, allowed in MOVES.items() for after in allowed}

_DEADLOCKS = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"


@pytest.fixture(scope="module")
def trail() -> Iterator[Trail]:
    with recording(os.environ["DATABASE_URL"]) as trail:
        yield trail
        trail.empty()


def test_no_sequence_of_actions_breaks_a_promise(trail: Trail, capsys: pytest.CaptureFixture[str]) -> None:
    how = settings(
        max_examples=EXAMPLES,
        stateful_step_count=STEPS_PER_EXAMPLE,
        derandomize=not STEPS,
        deadline=None,
        phases=[Phase.generate, Phase.shrink] if STEPS else [Phase.generate],  # shrinking takes minutes
        database=None,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
    Machine.steps = 0
    deadlocks = trail.fetch(_DEADLOCKS)  # of earlier tests
    with ThreadPoolExecutor(4) as pool:
        while Machine.steps < max(STEPS, 1):
            run_state_machine_as_test(lambda: Machine(trail, Sessions(trail, pool)), settings=how)
    with capsys.disabled():
        missing = ", ".join(sorted(f"{before} to {after}" for before, after in ALLOWED - Ledger.moves))
        print(f"\n{Machine.steps} steps; allowed moves not seen: {missing}", end=" ")
    disconnect()
    assert trail.fetch(_DEADLOCKS) == deadlocks
