"""Times sweeps and their trims: runs as a process of its own and prints milliseconds as JSON."""

import json
import sys
import time

from jobsvc.dispatch.duties import Duties
from jobsvc.execution.bootstrap import bootstrap

if __name__ == "__main__":
    bootstrap()  # a sweep stores the handlers' types
    duties = Duties()
    duties.sweep()  # the first one compiles its statements
    times = []
    for _ in range(int(sys.argv[1])):
        began = time.perf_counter()
        duties.sweep()
        duties.trim()
        times.append(1000 * (time.perf_counter() - began))
    print(json.dumps(times))
