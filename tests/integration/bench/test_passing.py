"""Jobs that the benchmark passes through Postgres end as those of a worker do."""

from bench.scaling.passing import BATCH, FAILED_EVERY, pass_jobs
from tests.integration.factories import sql


def test_passed_jobs_have_ended() -> None:
    pass_jobs(2 * BATCH)
    statuses = {row.status: row.count for row in sql("SELECT status, count(*) FROM jobs GROUP BY status")}
    failed = 2 * BATCH // FAILED_EVERY
    assert statuses == {"COMPLETED": 2 * BATCH - failed, "FAILED": failed}
    assert [row.count for row in sql("SELECT count(*) FROM attempts")] == [failed]
