"""`python -m jobsvc.devservices start|stop|up [PARENT]|api`, used by the Makefile and the demo."""

import sys
from shlex import quote

from jobsvc.devservices import ServiceError, check_settings, data_dir, start, stop
from jobsvc.devservices.folder import Folder
from jobsvc.devservices.up import Up
from jobsvc.errors import JobsvcError
from jobsvc.processes.pid_one import leave_pid_one
from jobsvc.processes.refusal import refuse_start


def main() -> None:
    """Run the command of the first argument.

    `start` prints the URLs as `export` lines of a shell; `stop` stops the servers; `up` runs everything until Ctrl-C,
    or until the process PARENT has exited; `api` prints the API's URL and a key with scope `write` as shell variables.
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
                leave_pid_one()
                sys.exit(Up().run(*map(int, parent)))
            case ["api"]:
                settings = check_settings()
                keys = [one.secret for one in settings.JOBSVC_API_KEYS if one.scope != "read"]
                key = next((key for key in keys if not key.startswith("sha256:")), "")
                print(f"url={quote(settings.address)} key={quote(key)}")
            case _:
                sys.exit("usage: python -m jobsvc.devservices start|stop|up [PARENT]|api")
    except (ServiceError, JobsvcError) as error:
        refuse_start(str(error))


if __name__ == "__main__":
    main()
