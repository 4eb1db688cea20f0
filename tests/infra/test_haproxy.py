"""HAProxy in front of Postgres and Redis, which closes connections that have been idle, as load balancers do."""

import time

from tests.infra.deployment import deployment
from tests.infra.scenario import live
from tests.infra.servers import Infrastructure

IDLE_SECONDS = 2


def test_jobs_live_behind_haproxy_and_idle_cuts_cost_no_request(servers: Infrastructure) -> None:
    postgres, redis = servers.postgres(), servers.redis()[0]
    through = servers.haproxy({"postgres": postgres, "redis": redis}, IDLE_SECONDS)
    env = {"DATABASE_URL": through["postgres"], "REDIS_URL": through["redis"]}
    with deployment({**env, "JOBSVC_SWEEP_SECONDS": "10", "JOBSVC_LEASE_SECONDS": "3"}) as service:
        live(service)
        for _ in range(4):
            time.sleep(IDLE_SECONDS + 0.5)
            service.until(service.post(), "COMPLETED")
