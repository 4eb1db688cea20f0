"""`python -m tests.chaos --jobs 5000 --seed 7 --runs 20`, as `make chaos` calls it."""

import argparse
import secrets
import shutil
import signal
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from random import Random

from tests.chaos.audit import Account, audit, read_jobs, read_journal
from tests.chaos.deployment import LEASE, SWEEP, Site
from tests.chaos.faults import FAULTS, Probe, Strike, strike
from tests.chaos.load import Accepted, Load
from tests.support.servers import sql
from tests.support.service import eventually

BOUND = LEASE + SWEEP + 5
"""Promise 3: seconds until what a killed worker ran is given to others."""

JOBS_A_SECOND = 30
BETWEEN_STRIKES = 1.2
PATIENCE = 60.0
"""Seconds without any job ending, after which those that have not ended count as lost."""


UNFINISHED = "SELECT count(*) FROM jobs WHERE status NOT IN ('COMPLETED', 'FAILED', 'CANCELLED')"


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # what was started is ended then, too
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--jobs", type=int, default=5000, help="how many jobs each run posts")
    parser.add_argument("--seed", type=int, help="of the first run; the next takes the next number")
    parser.add_argument("--runs", type=int, default=1)
    asked = parser.parse_args()
    seed = secrets.randbelow(10**6) if asked.seed is None else asked.seed
    for number in range(seed, seed + asked.runs):
        if not run(number, asked.jobs):
            sys.exit(1)


def run(seed: int, count: int) -> bool:
    """One run; prints its table, and returns whether every promise was kept."""
    print(f"chaos: seed {seed}, {count} jobs", flush=True)
    random = Random(seed)
    site = Site()
    kept = False
    try:
        eventually(site.accepts, 60, 0.05)
        begun = time.monotonic()
        load = Load(site.url, random, count, count / JOBS_A_SECOND)
        strikes, probes = wreak(site, random, load, count / JOBS_A_SECOND)
        accepted = [*load.accepted, *settle(site, load, probes)]
        accepted += [job for one in strikes for job in one.accepted]
        jobs, attempts = read_jobs(site.env["DATABASE_URL"])
        account = audit(accepted, jobs, attempts, read_journal(site.journal), strikes, BOUND)
        print(table(account, strikes, len(jobs), load.refused, time.monotonic() - begun), flush=True)
        kept = not account.broken
    finally:
        site.stop()
        if kept:
            shutil.rmtree(site.folder)
        else:
            print(f"chaos: `make chaos SEED={seed} JOBS={count}` tries it again; logs and data: {site.folder}")
    return kept


def wreak(site: Site, random: Random, load: Load, seconds: float) -> tuple[list[Strike], list[Probe]]:
    """Strike at random times while the load lasts, each kind of fault as often as the others."""
    strikes: list[Strike] = []
    probes: list[Probe] = []
    bag: list[str] = []
    end = time.monotonic() + seconds
    next_strike = time.monotonic() + 1
    while time.monotonic() < end or not load.wait(0):
        for one in [one for one in strikes if one.healed_at is None]:
            if time.time() >= one.at + one.heal_after:
                one.healed()
                probes.append(Probe(site.url, one))
        if time.monotonic() >= next_strike:
            next_strike += random.expovariate(1 / BETWEEN_STRIKES)
            bag = bag or random.sample(sorted(FAULTS), len(FAULTS))
            if one := strike(bag[-1], site, random):
                bag.pop()
                strikes.append(one)
            else:
                bag.insert(0, bag.pop())
        time.sleep(0.01)
    for one in strikes:
        if one.healed_at is None:
            one.healed()
            probes.append(Probe(site.url, one))
    return strikes, probes


def settle(site: Site, load: Load, probes: Sequence[Probe]) -> list[Accepted]:
    """Wait until everything that can end has ended; returns the jobs of the probes that were accepted."""
    site.heal()
    before, deadline = -1, time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        [(unfinished,)] = sql(site.env["DATABASE_URL"], UNFINISHED)
        if unfinished != before:
            before, deadline = unfinished, time.monotonic() + PATIENCE
        if not unfinished and load.wait(0) and all(not probe.thread.is_alive() for probe in probes):
            break
        time.sleep(0.2)
    return [Accepted(probe.job_id, "probe", {"retry": {"interval": 1}}) for probe in probes if probe.job_id]


def table(account: Account, strikes: Sequence[Strike], stored: int, refused: int, seconds: float) -> str:
    """What became of the jobs, and how long each kind of fault was felt."""
    lines = [
        f"  accepted {account.accepted}, of {stored} stored; not accepted, and posted again: {refused}",
        f"  completed {account.completed}, failed as meant {account.failed_as_meant}",
        f"  lost {len(account.lost)}",
        f"  ran twice although no worker was lost {len(account.ran_twice)}",
        f"  ended otherwise than meant {len(account.ended_otherwise)}, ran before its time {len(account.ran_early)}",
        f"  attempts lost with their worker {account.attempts_lost}, "
        f"recovered later than {BOUND:g} s: {len(account.recovered_late)}",
        f"  {seconds:.0f} s in all; seconds until, median / worst:",
        f"  {'fault':<30}{'times':>6}{'jobs accepted':>18}{'jobs run':>18}{'attempts recovered':>22}",
    ]
    for kind in FAULTS:
        these = [one for one in strikes if one.kind == kind]
        accepting = [one.accepting_at - one.healed_at for one in these if one.accepting_at and one.healed_at]
        running = [one.running_at - one.healed_at for one in these if one.running_at and one.healed_at]
        recovered = account.recoveries.get(kind, [])
        lines.append(f"  {kind:<30}{len(these):>6}{spread(accepting):>18}{spread(running):>18}{spread(recovered):>22}")
    for promise, ids in account.broken.items():
        lines.append(f"BROKEN: {promise}: {len(ids)}, such as {', '.join(ids[:3])}")
    return "\n".join(lines)


def spread(times: Iterable[float]) -> str:
    times = list(times)
    return f"{statistics.median(times):.1f} / {max(times):.1f}" if times else "-"


if __name__ == "__main__":
    main()
