"""`python -m jobsvc.devservices start|stop|up [PARENT]|api`, as the Makefile and the demo call it."""

import sys

from jobsvc.devservices import ServiceError, check_settings, data_dir, start, stop
from jobsvc.devservices.folder import Folder
from jobsvc.devservices.up import Up
from jobsvc.errors import JobsvcError
from jobsvc.processes.pid_one import leave_pid_one
from jobsvc.processes.refusal import refuse_start


def main() -> None:
    """Do what the argument says.

    `start` prints the URLs as shell exports, `stop` stops the servers, `up` runs it all until Ctrl-C, or until the
    process PARENT has gone, `api` prints where the API is, and a key that may write, as shell assignments.
    """
    try:
        match sys.argv[1:]:
            case ["start"]:
                Folder(data_dir()).wait_for_watcher()
                urls, started = start()
                for server in started:
                    print(
                        f"{server.name}: started, its data in {server.data}; `make services-down` stops it",
                        file=sys.stderr,
                    )
                for variable, url in urls.items():
                    print(f"export {variable}={_quoted(url)}")
            case ["stop"]:
                Folder(data_dir()).check_unused()
                print("stopped: " + (", ".join(stop()) or "nothing ran"), file=sys.stderr)
            case ["up", *parent]:
                leave_pid_one()
                sys.exit(Up().run(*map(int, parent)))
            case ["api"]:
                settings = check_settings()
                keys = [one.secret for one in settings.JOBSVC_API_KEYS if one.scope != "read"]
                bare = [key for key in keys if not key.startswith("sha256:")]
                print(f"url={_quoted(settings.address)} key={_quoted(bare[0] if bare else '')}")
            case _:
                sys.exit("usage: python -m jobsvc.devservices start|stop|up [PARENT]|api")
    except (ServiceError, JobsvcError) as error:
        refuse_start(str(error))


def _quoted(value: str) -> str:
    """Return the value as one word of a shell, whatever is in it."""
    inside = value.replace("'", "'\"'\"'")
    return f"'{inside}'"


if __name__ == "__main__":
    main()
