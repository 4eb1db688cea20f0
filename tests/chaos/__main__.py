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

from tests.chaos.account import Account
from tests.chaos.audit import audit, read_jobs, read_journal
from tests.chaos.changes import changed
from tests.chaos.deployment import LEASE, SWEEP, Deployment
from tests.chaos.faults import FAULTS, Injection, Probe, injection
from tests.chaos.load import Accepted, Load, Request, single, some_job
from tests.chaos.moves import read_moves
from tests.chaos.transactions import Application
from tests.chaos.workflows import fan_out, workflow
from tests.support.servers import sql
from tests.support.service import eventually

BOUND = LEASE + SWEEP + 5
"""Promise 3: seconds until what a killed worker ran is given to others."""

JOBS_A_SECOND = 30
BETWEEN_FAULTS = 1.2
MAX_WAIT_SECONDS = 60.0
"""Seconds without any job ending, after which those that have not ended count as lost."""


PENDING = "SELECT job_id FROM pending_releases"

UNFINISHED = """
SELECT (SELECT count(*) FROM jobs WHERE status NOT IN ('COMPLETED', 'FAILED', 'CANCELLED'))
    + (SELECT count(*) FROM pending_releases)
"""

SHARES = {"single": 80, "workflow": 7, "SQL": 8, "changed": 5}
"""Kinds of requests, and how many in a hundred."""


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
    """Run once, print the table, and return True if every promise was kept."""
    print(f"chaos: seed {seed}, {count} jobs", flush=True)
    random = Random(seed)
    deployment = Deployment()
    kept = False
    try:
        eventually(deployment.accepts, 60, 0.05)
        began = time.monotonic()
        application = Application(deployment.env["DATABASE_URL"])
        load = Load(deployment.url, requests(random, application, count), count / JOBS_A_SECOND)
        injections, probes = inject_faults(deployment, random, load, count / JOBS_A_SECOND)
        accepted = [*load.accepted, *settle(deployment, load, probes)]
        accepted += [job for one in injections for job in one.accepted]
        jobs, attempts = read_jobs(deployment.env["DATABASE_URL"])
        account = audit(
            accepted,
            jobs,
            attempts,
            read_journal(deployment.journal),
            injections,
            BOUND,
            moves=read_moves(deployment.env["DATABASE_URL"]),
            rolled_back=application.rolled_back,
        )
        account.unreleased = [str(job_id) for (job_id,) in sql(deployment.env["DATABASE_URL"], PENDING)]
        print(table(account, injections, len(jobs), load.refused, time.monotonic() - began), flush=True)
        kept = not account.broken
    finally:
        deployment.stop()
        if kept:
            shutil.rmtree(deployment.folder)
        else:
            print(f"chaos: `make chaos SEED={seed} JOBS={count}` tries it again; logs and data: {deployment.folder}")
    return kept


def requests(random: Random, application: Application, count: int) -> list[Request]:
    """Return the requests of a run. Most make one job each; two in 1,000 make very many dependents."""
    made: list[Request] = []
    for kind in random.choices([*SHARES], [*SHARES.values()], k=count):
        match kind:
            case "workflow":
                made.append(workflow(random))
            case "SQL":
                made.append(application.request(random))
            case "changed":
                made.append(changed(random))
            case _:
                made.append(single(*some_job(random)))
    for _ in range(max(count // 1000, 1)):
        for is_failing in (True, False):
            made.insert(random.randrange(len(made)), fan_out(is_failing))
    return made


def inject_faults(
    deployment: Deployment, random: Random, load: Load, seconds: float
) -> tuple[list[Injection], list[Probe]]:
    """Inject faults at random times while the load lasts, each kind as often as the others."""
    injections: list[Injection] = []
    probes: list[Probe] = []
    bag: list[str] = []
    end = time.monotonic() + seconds
    next_injection = time.monotonic() + 1
    while time.monotonic() < end or not load.wait(0):
        for one in [one for one in injections if one.healed_at is None]:
            if time.time() >= one.at + one.heal_after:
                one.healed()
                probes.append(Probe(deployment.url, one))
        if time.monotonic() >= next_injection:
            next_injection += random.expovariate(1 / BETWEEN_FAULTS)
            bag = bag or random.sample(sorted(FAULTS), len(FAULTS))
            if one := injection(bag[-1], deployment, random):
                bag.pop()
                injections.append(one)
            else:
                bag.insert(0, bag.pop())
        time.sleep(0.01)
    for one in injections:
        if one.healed_at is None:
            one.healed()
            probes.append(Probe(deployment.url, one))
    return injections, probes


def settle(deployment: Deployment, load: Load, probes: Sequence[Probe]) -> list[Accepted]:
    """Wait until everything that can end has ended; returns the jobs of the probes that were accepted."""
    deployment.heal()
    before, deadline = -1, time.monotonic() + MAX_WAIT_SECONDS
    while time.monotonic() < deadline:
        [(unfinished,)] = sql(deployment.env["DATABASE_URL"], UNFINISHED)
        if unfinished != before:
            before, deadline = unfinished, time.monotonic() + MAX_WAIT_SECONDS
        if not unfinished and load.wait(0) and all(not probe.thread.is_alive() for probe in probes):
            break
        time.sleep(0.2)
    return [Accepted(probe.job_id, "probe", {"retry": {"interval": 1}}) for probe in probes if probe.job_id]


def table(account: Account, injections: Sequence[Injection], stored: int, refused: int, seconds: float) -> str:
    """Format the results: the outcomes of jobs, and how long each kind of fault had an effect."""
    lines = [
        f"  accepted {account.accepted}, of {stored} stored; not accepted, and posted again: {refused}",
        f"  completed {account.completed}, failed as meant {account.failed_as_meant}, "
        f"cancelled by a failed dependency {account.cancelled_as_meant}",
        f"  lost {len(account.lost)}",
        f"  ran twice although no worker was lost {len(account.ran_twice)}",
        f"  dependents released {account.released}, started under a limit {account.limited}; "
        f"beyond one {len(account.over_rate) + len(account.over_concurrency)}",
        f"  ended otherwise than meant {len(account.ended_otherwise)}, ran before its time {len(account.ran_early)}",
        f"  attempts lost with their worker {account.attempts_lost}, "
        f"recovered later than {BOUND:g} s: {len(account.recovered_late)}",
        f"  {seconds:.0f} s in all; seconds until, median / worst:",
        f"  {'fault':<30}{'times':>6}{'jobs accepted':>18}{'jobs run':>18}{'attempts recovered':>22}",
    ]
    for kind in FAULTS:
        these = [one for one in injections if one.kind == kind]
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
