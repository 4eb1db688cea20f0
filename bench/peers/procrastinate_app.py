"""Procrastinate: the queue is in Postgres, tasks are coroutines."""

import asyncio
import os
import sys

import procrastinate
from psycopg_pool import AsyncConnectionPool

from bench.peers import store

SIZE = int(os.environ.get("POOL", "10"))
app = procrastinate.App(connector=procrastinate.PsycopgConnector(conninfo=os.environ["DATABASE_URL"], max_size=SIZE))
_pool: AsyncConnectionPool | None = None


async def _set_status(job_id: str, status: str) -> None:
    global _pool
    if _pool is None:
        _pool = AsyncConnectionPool(
            os.environ["DATABASE_URL"], min_size=1, max_size=SIZE, open=False, kwargs={"autocommit": True}
        )
        await _pool.open()
    async with _pool.connection() as connection:
        await connection.execute(store.SET_STATUS, (status, job_id))


@app.task(name="work")
async def work(job_id: str, duration_ms: int) -> None:
    await _set_status(job_id, "PROCESSING")
    if duration_ms:
        await asyncio.sleep(duration_ms / 1000)
    await _set_status(job_id, "COMPLETED")


async def fill(number: int, duration_ms: int) -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        ids = store.insert(number)
        for start in range(0, number, 1000):
            batch = ids[start : start + 1000]
            await work.batch_defer_async(*({"job_id": one, "duration_ms": duration_ms} for one in batch))


if __name__ == "__main__":
    asyncio.run(fill(int(sys.argv[1]), int(sys.argv[2])))
