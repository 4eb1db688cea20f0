"""The transitions between statuses, compared with the contract's table."""

from jobsvc.states import MOVES, STARTABLE, WAITING, Status

CONTRACT = {
    "PENDING": "SCHEDULED PROCESSING CANCELLED FAILED",
    "SCHEDULED": "PENDING PROCESSING CANCELLED FAILED",
    "BLOCKED": "PENDING SCHEDULED CANCELLED FAILED",
    "RETRYING": "PROCESSING CANCELLED FAILED",
    "PROCESSING": "COMPLETED FAILED CANCELLED RETRYING SCHEDULED PENDING",
    "COMPLETED": "",
    "FAILED": "PENDING BLOCKED",
    "CANCELLED": "PENDING BLOCKED",
}


def test_transitions_match_the_contract() -> None:
    assert {status: set(moves) for status, moves in MOVES.items()} == {
        Status(status): {Status(move) for move in moves.split()} for status, moves in CONTRACT.items()
    }


def test_waiting_states_are_those_that_can_start() -> None:
    assert {str(status) for status in STARTABLE} == {"PENDING", "SCHEDULED", "RETRYING"}
    assert set(WAITING) - set(STARTABLE) == {Status.BLOCKED}
