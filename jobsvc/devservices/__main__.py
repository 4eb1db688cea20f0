"""`python -m jobsvc.devservices start|stop|up`, as the Makefile calls it."""

import sys

from jobsvc.devservices import ServiceError, start, stop
from jobsvc.devservices.up import Up
from jobsvc.errors import JobsvcError


def main() -> None:
    """`start` prints the URLs as shell exports, `stop` stops the servers, `up` runs it all until Ctrl-C."""
    try:
        match sys.argv[1:]:
            case ["start"]:
                urls, started = start()
                for server in started:
                    print(
                        f"{server.name}: started, its data in {server.data}; `make services-down` stops it",
                        file=sys.stderr,
                    )
                for variable, url in urls.items():
                    print(f"export {variable}='{url}'")
            case ["stop"]:
                print("stopped: " + (", ".join(stop()) or "nothing ran"), file=sys.stderr)
            case ["up"]:
                sys.exit(Up().run())
            case _:
                sys.exit("usage: python -m jobsvc.devservices start|stop|up")
    except (ServiceError, JobsvcError) as error:
        sys.exit(f"jobsvc: {error}")


if __name__ == "__main__":
    main()
