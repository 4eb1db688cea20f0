"""The audit of limits, by what Postgres recorded: when jobs started and ended under each key."""

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tests.chaos.moves import Move


def find_rate_breaches(moves: Iterable[Move]) -> list[str]:
    """Return the jobs that started although as many as their limit had started within their period."""
    breaches = []
    starts: dict[str, list[Move]] = defaultdict(list)
    for move in moves:
        if move.is_start and move.rate_key:
            starts[move.rate_key].append(move)
    for of_key in starts.values():
        of_key.sort(key=lambda move: move.at)
        for number, move in enumerate(of_key):
            before = of_key[max(number - move.rate_limit, 0) : number]
            if len(before) == move.rate_limit and before[0].at > move.at - move.rate_per:
                breaches.append(move.job_id)
    return breaches


def find_concurrency_breaches(moves: Sequence[Move]) -> list[str]:
    """Return the jobs that started while as many as their limit were running."""
    breaches = []
    ends: dict[str, list[float]] = defaultdict(list)
    for move in moves:
        if move.is_end:
            ends[move.job_id].append(move.at)
    running: dict[str, list[float]] = defaultdict(list)  # when each run of a key ends
    starts: dict[str, int] = defaultdict(int)  # of each job
    for move in sorted(moves, key=lambda move: move.at):
        if not (move.is_start and move.concurrency_key):
            continue
        of_key = running[move.concurrency_key] = [end for end in running[move.concurrency_key] if end > move.at]
        if len(of_key) >= move.concurrency_limit:
            breaches.append(move.job_id)
        nth = starts[move.job_id]
        starts[move.job_id] += 1
        of_key.append(ends[move.job_id][nth] if nth < len(ends[move.job_id]) else float("inf"))
    return breaches
