"""`make run`: the API under granian, as the settings say."""

import sys

from granian import Granian
from granian.constants import Interfaces
from granian.log import LogLevels

from jobsvc.config import settings
from jobsvc.errors import ConfigError

THREADS = 8


def main() -> None:
    """Serve until SIGTERM or Ctrl-C."""
    try:
        host, port = settings().HOST, settings().PORT
    except ConfigError as error:
        sys.exit(f"jobsvc: {error}")
    print(f"jobsvc listens on http://{'localhost' if host == '127.0.0.1' else host}:{port}", flush=True)
    Granian(
        "wsgi:app",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        blocking_threads=THREADS,
        log_level=LogLevels.error,
    ).serve()


if __name__ == "__main__":
    main()
