"""A table with a million jobs as a busy service has it, for the pages of the console."""

from collections.abc import Callable
from typing import Any

# Of the last twenty days, eight types in three queues: one in 40 failed, one in 100 cancelled, one in 50 is a webhook,
# one in 100 has a tag; the newest 4 % wait in a paused queue, the newest 0.1 % for tomorrow.
JOBS = """
INSERT INTO jobs (id, type, queue, payload, status, created_at, tags, timeout, retry_intervals, max_attempts, attempts,
                  due_at, dispatched_at, fence, worker, started_at, finished_at, version, result, error)
SELECT uuidv7(at - now()),
       CASE WHEN n %% 50 = 7 AND NOT waits THEN 'WEBHOOK'
            ELSE (ARRAY['TEST_JOB', 'SEND_EMAIL', 'RESIZE_IMAGE', 'CHARGE_CARD', 'SYNC_STOCK', 'IMPORT_ORDERS',
                        'INDEX_PAGE', 'RENDER_PDF'])[1 + n %% 8] END,
       CASE WHEN waits THEN 'low' ELSE (ARRAY['high', 'default', 'low'])[1 + n %% 3] END,
       CASE WHEN n %% 50 = 7 AND NOT waits
            THEN jsonb_build_object('url', 'https://shop.example/hooks', 'body', jsonb_build_object(
                 'type', 'job.completed', 'data', jsonb_build_object('id', uuidv7(at - now()))))
            ELSE jsonb_build_object('order', n, 'to', 'customer' || n || '@mail.example') END,
       CASE WHEN waits THEN CASE WHEN n > %(rows)s * 0.999 THEN 'SCHEDULED' ELSE 'PENDING' END
            WHEN n %% 40 = 0 THEN 'FAILED' WHEN n %% 100 = 1 THEN 'CANCELLED' ELSE 'COMPLETED' END,
       at, CASE WHEN n %% 100 = 2 THEN ARRAY['rare', 'order:' || n] END, 180, '{1,5,25}', 4,
       CASE WHEN waits THEN 0 ELSE 1 END,
       CASE WHEN n > %(rows)s * 0.999 THEN now() + interval '1 day' ELSE at END,
       CASE WHEN NOT waits THEN at WHEN n <= %(rows)s * 0.999 THEN 'infinity' END,
       CASE WHEN waits THEN 0 ELSE 1 END, CASE WHEN NOT waits THEN 'worker' END,
       CASE WHEN NOT waits THEN at END, CASE WHEN NOT waits THEN at + interval '1 s' END, 3,
       CASE WHEN NOT waits AND n %% 40 <> 0 THEN '{"status": 200}'::jsonb END,
       CASE WHEN n %% 40 = 0 AND NOT waits THEN jsonb_build_object(
            'type', (ARRAY['TimeoutError', 'ConnectionError', 'ValueError', 'CardDeclined'])[1 + n / 40 %% 4],
            'message', 'the answer for ' || n / 40 %% 30 || ' was not understood' || chr(10) || repeat('detail ', 30),
            'attempt', 1) END
FROM (SELECT n, n > %(rows)s * 0.96 AS waits, now() - interval '20 days' * (1 - n / %(rows)s::float) AS at
      FROM generate_series(%(first)s::bigint, %(last)s) AS n)
"""
ATTEMPTS = """
INSERT INTO attempts (job_id, fence, number, worker, started_at, finished_at, outcome, error_type, error_message,
                      traceback, logs)
SELECT id, 1, 1, 'worker', started_at, finished_at, 'failed', error ->> 'type', error ->> 'message',
       repeat('  File "work.py", line 7, in work' || chr(10), 20),
       jsonb_build_array(jsonb_build_object('time', '2026-01-01T00:00:00.000Z', 'level', 'INFO', 'message', 'starts'))
FROM jobs WHERE status = 'FAILED'
"""
# Each minute of two hours, then each quarter of an hour of a week.
HISTORY = """
INSERT INTO counter_history (minute, type, queue, accepted, started, completed, failed, retried, wait, wait_seconds,
                             run, run_seconds)
SELECT at, type, queue, 40, 40, 36, 2, 2, counts, 12.5, counts, 31.5
FROM (SELECT date_bin('1 min', now(), 'epoch') - n * interval '1 min' AS at FROM generate_series(0, 119) AS n
      UNION ALL
      SELECT date_bin('15 min', now(), 'epoch') - n * interval '15 min' FROM generate_series(9, 671) AS n) AS times,
     unnest(ARRAY['TEST_JOB', 'SEND_EMAIL', 'RESIZE_IMAGE', 'CHARGE_CARD', 'SYNC_STOCK', 'IMPORT_ORDERS', 'INDEX_PAGE',
                  'RENDER_PDF']) AS type,
     unnest(ARRAY['high', 'default', 'low']) AS queue,
     (SELECT array_agg(CASE WHEN k BETWEEN 4 AND 8 THEN 8 ELSE 0 END)::bigint[] AS counts
      FROM generate_series(1, 17) AS k)
"""
QUEUE = "INSERT INTO queues (name, paused_at) VALUES ('low', now())"
ANALYZE = "VACUUM ANALYZE jobs, attempts, counter_history"


BATCH = 500_000


def fill(execute: Callable[..., Any], number: int) -> None:
    """Fill the empty tables. `execute` takes a statement, and its parameters by their names."""
    execute(QUEUE)
    for first in range(1, number + 1, BATCH):
        execute(JOBS, rows=number, first=first, last=min(first + BATCH - 1, number))
    execute(ATTEMPTS)
    execute(HISTORY)
    execute(ANALYZE)
