"""`python -m bench.scaling cores sizes rows pruning passing workers`: prints tables in Markdown.

The machine should do nothing else. `--data FOLDER` keeps the filled databases, so that a second run does not fill them.
"""

import argparse
import os
import platform
import signal
import sys
from pathlib import Path

from bench import jobsvc_stacks
from bench.environment import BenchError
from bench.scaling import cores, retention, rows, sizes, workers
from bench.scaling.servers import ScalingEnvironment

SECTIONS = ("cores", "sizes", "rows", "pruning", "passing", "workers")


def _numbers(text: str) -> list[int]:
    return [int(part.replace("_", "")) for part in text.split(",")]


def arguments() -> argparse.Namespace:
    """Parse the arguments: sections, and their sizes."""
    parser = argparse.ArgumentParser(prog="python -m bench.scaling", description=__doc__)
    parser.add_argument("sections", nargs="+", choices=SECTIONS)
    parser.add_argument("--data", type=Path, help="folder that keeps the servers' data, so also the filled databases")
    parser.add_argument("--seconds", type=float, default=8, help="cores: of each measurement (8)")
    parser.add_argument("--jobs", type=int, default=50_000, help="sizes, workers: jobs of each measurement (50,000)")
    parser.add_argument(
        "--rows", type=_numbers, default=[10_000, 1_000_000, 10_000_000], help="rows: sizes of the table"
    )
    parser.add_argument("--pruned", type=int, default=1_000_000, help="pruning: rows, half of them old (1,000,000)")
    parser.add_argument("--passing", type=int, default=10_000_000, help="passing: jobs (10,000,000)")
    parser.add_argument("--keep", type=float, default=60, help="passing: retention in seconds (60)")
    parser.add_argument("--storage", default="", help="passing: storage parameters of the table jobs")
    parser.add_argument("--workers", type=_numbers, default=[1, 10, 100], help="workers: worker processes (1,10,100)")
    parser.add_argument("--postgres", action="append", default=[], help="a setting of Postgres: name=value")
    return parser.parse_args()


def measure(chosen: argparse.Namespace) -> None:
    """Run the sections."""
    print(f"load average before: {os.getloadavg()[0]:.1f}; {os.cpu_count()} cores, Python {platform.python_version()}")
    with ScalingEnvironment(chosen.data, chosen.postgres) as environment:
        environment.keep(jobsvc_stacks.TEMPLATE, lambda: jobsvc_stacks.migrate(environment), "template1")
        for section in chosen.sections:
            print(f"\n## {section}", flush=True)
            match section:
                case "cores":
                    cores.measure(environment, chosen.seconds)
                case "sizes":
                    sizes.measure(environment, chosen.jobs)
                case "rows":
                    rows.measure(environment, chosen.rows)
                case "pruning":
                    retention.measure_pruning(environment, chosen.pruned)
                case "passing":
                    retention.measure(environment, chosen.passing, chosen.keep, chosen.storage)
                case "workers":
                    workers.measure(environment, chosen.workers, chosen.jobs)


def main() -> None:
    """Measure what the command line names."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: sys.exit(1))
    try:
        measure(arguments())
    except KeyboardInterrupt:
        sys.exit(130)
    except BenchError as error:
        sys.exit(f"bench.scaling: {error}")


if __name__ == "__main__":
    main()
