"""The moves between statuses, held against the contract's table."""

from jobsvc.states import MOVES, WAITING, Status

CONTRACT = {
    "PENDING": "PROCESSING CANCELLED FAILED",
    "SCHEDULED": "PROCESSING CANCELLED FAILED",
    "RETRYING": "PROCESSING CANCELLED FAILED",
    "PROCESSING": "COMPLETED FAILED CANCELLED RETRYING SCHEDULED PENDING",
    "COMPLETED": "",
    "FAILED": "PENDING",
    "CANCELLED": "PENDING",
}


def test_the_moves_are_the_contracts() -> None:
    assert {status: set(moves) for status, moves in MOVES.items()} == {
        Status(status): {Status(move) for move in moves.split()} for status, moves in CONTRACT.items()
    }


def test_what_waits_is_what_can_be_started() -> None:
    assert {str(status) for status in WAITING} == {"PENDING", "SCHEDULED", "RETRYING"}
