"""`make run`: the API under granian, as the settings say."""

import socket
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
    if _is_taken(host, port):
        sys.exit(f"jobsvc: PORT: {port} is taken on {host}")
    print(f"jobsvc serves {settings().address}", flush=True)
    Granian(
        "wsgi:app",
        address=host,
        port=port,
        interface=Interfaces.WSGI,
        blocking_threads=THREADS,
        log_level=LogLevels.error,
    ).serve()


def _is_taken(host: str, port: int) -> bool:
    # granian would share the port with whoever has it, or try for ever.
    try:
        with socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET):
            return False
    except OSError:
        return True


if __name__ == "__main__":
    main()
