"""The indexes of jobs on a table that is partitioned by the id, as docs/scaling.md has it."""

from sqlalchemy import text
from sqlalchemy.exc import NotSupportedError

from jobsvc.db.engine import engine

PARTITIONED = "CREATE TABLE parts (LIKE jobs INCLUDING DEFAULTS INCLUDING CONSTRAINTS) PARTITION BY RANGE (id)"
INDEXES = "SELECT indexname AS name, indexdef AS definition FROM pg_indexes WHERE tablename = 'jobs'"


def test_only_the_unique_key_forbids_partitions_by_id() -> None:
    refused = []
    with engine().connect() as connection:
        indexes = connection.execute(text(INDEXES)).all()
        connection.exec_driver_sql(PARTITIONED)
        for index in indexes:
            definition = index.definition.replace(f"INDEX {index.name} ON public.jobs", "INDEX ON parts", 1)
            try:
                with connection.begin_nested():
                    connection.exec_driver_sql(definition.replace("INDEX ON", f"INDEX parts_{index.name} ON"))
            except NotSupportedError:  # it lacks the id
                refused.append(index.name)
        connection.rollback()
    assert len(indexes) > 10
    assert refused == ["jobs_unique_key"]
