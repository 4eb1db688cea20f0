"""The connections to Postgres that README counts for each kind of process, with twenty workers under load."""

import sys
from concurrent.futures import ThreadPoolExecutor

from tests.infra.servers import Infrastructure
from tests.support.servers import sql, upgrade
from tests.support.service import Service, eventually

WORKERS, CONNECTIONS = 20, 4
SUM = CONNECTIONS + WORKERS * 3 + 3
"""The API, the workers, and the relay beside them."""


def test_twenty_workers_stay_within_the_documented_sum(servers: Infrastructure) -> None:
    url = servers.postgres("max_connections=120")
    env = {"DATABASE_URL": url, "REDIS_URL": servers.redis()[0], "JOBSVC_DB_CONNECTIONS": str(CONNECTIONS)}
    upgrade(env)
    service = Service(env)
    try:
        service.run(sys.executable, "worker.py", env={"JOBSVC_WORKERS": str(WORKERS)})
        with ThreadPoolExecutor(16) as pool:
            posted = list(pool.map(lambda _: service.post(payload={"durationMs": 20}, retry={"max": 0}), range(300)))
        seen = []

        def are_done() -> bool:
            count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'jobsvc'"
            seen.append(sql(url, count)[0][0])
            return sql(url, "SELECT count(*) FROM jobs WHERE status = 'COMPLETED'") == [(len(posted),)]

        eventually(are_done, 120, 0.1)
        assert max(seen) <= SUM
        assert "unavailable" not in service.api.output
    finally:
        service.close()
