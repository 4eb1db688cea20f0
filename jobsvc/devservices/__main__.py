"""`python -m jobsvc.devservices start|stop|up [PARENT]`, used by the Makefile."""

import sys
from shlex import quote

from jobsvc.devservices import ServiceError, data_dir, start, stop
from jobsvc.devservices.folder import Folder
from jobsvc.devservices.up import run_up
from jobsvc.errors import JobsvcError
from jobsvc.processes.refusal import refuse_start


def main() -> None:
    """Run the command of the first argument.

    `start` prints the URLs as `export` lines of a shell; `stop` stops the servers; `up` does the same as `jobsvc up`,
    until the process PARENT has exited.
    """
    try:
        match sys.argv[1:]:
            case ["start"]:
                Folder(data_dir()).wait_for_watcher()
                urls, started = start()
                for server in started:
                    text = f"{server.name}: started, its data in {server.data}; `make services-down` stops it"
                    print(text, file=sys.stderr)
                for variable, url in urls.items():
                    print(f"export {variable}={quote(url)}")
            case ["stop"]:
                Folder(data_dir()).check_unused()
                print("stopped: " + (", ".join(stop()) or "no server was running"), file=sys.stderr)
            case ["up", *parent]:
                run_up(*map(int, parent))
            case _:
                sys.exit("usage: python -m jobsvc.devservices start|stop|up [PARENT]")
    except (ServiceError, JobsvcError) as error:
        refuse_start(str(error))


if __name__ == "__main__":
    main()
