"""The moves between statuses, held against the contract's table."""

from jobsvc.models import ENDED, MOVES, WAITING, Status

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


def test_every_status_waits_runs_or_has_ended() -> None:
    assert sorted([*WAITING, Status.PROCESSING, *ENDED]) == sorted(Status)
