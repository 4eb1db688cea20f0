"""`python -m bench`, as `make bench` calls it."""

import argparse
import os
import signal
import sys
from pathlib import Path

from bench import console, growth, jobsvc_stacks, rate, report, sleepers, sql_enqueue, workflow
from bench.competitors import Competitors
from bench.environment import BenchError, Environment
from bench.goals import GOALS
from bench.machine import describe
from bench.peers import store
from bench.results import Results
from bench.workloads import Workloads

COMPARED = ("drain", "sleep", "accept", "batch", "steady", "start")
ALONE = ("workflow", "rate", "sql", "async", "growth", "console")
"""Sections of the service alone, without its peers."""

SECTIONS = (*COMPARED, *ALONE)
HERE = Path(__file__).parent
BUSY = 0.5


def arguments() -> argparse.Namespace:
    """Parse the arguments: what to measure, how long, and the output folder."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="of every measurement but growth and console (3)")
    parser.add_argument("--seconds", type=float, default=5, help="of each measurement (5)")
    parser.add_argument("--only", default=",".join(SECTIONS), help=f"some of {','.join(SECTIONS)}, comma-separated")
    parser.add_argument("--quick", action="store_true", help="one short round, peers untuned, little growth")
    parser.add_argument("--out", type=Path, help="folder for RESULTS.md and the plots; a whole run's is bench/")
    chosen = parser.parse_args()
    chosen.only = chosen.only.split(",")
    if unknown := set(chosen.only) - set(SECTIONS):
        parser.error(f"there is no {', '.join(unknown)}")
    if chosen.quick:
        chosen.rounds, chosen.seconds = 1, min(chosen.seconds, 3)
    elif chosen.out is None and set(chosen.only) == set(SECTIONS):
        chosen.out = HERE
    return chosen


def measure(chosen: argparse.Namespace, results: Results) -> list[str]:
    """Run all workloads on servers of their own; return a description of servers and machine."""
    busy = os.getloadavg()[0]
    if busy > BUSY:
        print(
            f"bench: others keep this machine busy (load average {busy:.1f}): rates and ratios mean little", flush=True
        )
    with Environment(given=os.environ) as environment:
        jobsvc_stacks.make_tables(environment)
        environment.make("peers", lambda: environment.sql(store.TABLE))
        chosen_competitors = Competitors.untuned()
        if not set(chosen.only) <= set(ALONE) and not chosen.quick:
            print("what suits the peers", flush=True)
            chosen_competitors = Competitors.tuned(environment, min(chosen.seconds, 3))
        results.notes.append(chosen_competitors.described())
        workloads = Workloads(environment, results, chosen_competitors, chosen.seconds, chosen.rounds, chosen.quick)
        for section in chosen.only:
            print(section, flush=True)
            if section in COMPARED:
                getattr(workloads, section)()
            else:
                measure_alone(section, environment, results, chosen)
        return [*describe(environment), f"load average before the run: {busy:.1f}"]


def measure_alone(section: str, environment: Environment, results: Results, chosen: argparse.Namespace) -> None:
    """Run a section of ALONE; what was measured before is not lost over it."""
    quick, rounds = chosen.quick, chosen.rounds
    try:
        match section:
            case "workflow":
                workflow.measure(environment, results, rounds, workflow.QUICK if quick else workflow.WHOLE)
            case "rate":
                rate.measure(environment, results, rounds, rate.QUICK if quick else rate.WHOLE)
            case "sql":
                sql_enqueue.measure(environment, results, rounds, chosen.seconds)
            case "async":
                sleepers.measure(environment, results, rounds, sleepers.QUICK if quick else sleepers.WHOLE)
            case "growth":
                growth.measure(environment, results, chosen.seconds, growth.QUICK if quick else growth.WHOLE)
            case "console":
                console.measure(environment, results, console.QUICK if quick else console.WHOLE)
    except BenchError as error:
        print(f"  broken: {error}", flush=True)
        results.notes.append(f"{section}: broken before its end")


def main() -> None:
    """Measure, print what was reached, and write it down."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    chosen, results = arguments(), Results()
    try:
        seen_on = measure(chosen, results)
    except KeyboardInterrupt:
        sys.exit(130)
    except BenchError as error:
        sys.exit(f"bench: {error}")
    print(report.goals_as_text(GOALS, results))
    if chosen.out:
        command = (
            f"python -m bench --rounds {chosen.rounds} --seconds {chosen.seconds:g} --only {','.join(chosen.only)}"
        )
        report.write(chosen.out, results, GOALS, command + " --quick" * chosen.quick, seen_on)


if __name__ == "__main__":
    main()
