"""The tables of counters in Postgres.

UNLOGGED: counters may restart from zero after a crash of Postgres, so they need no WAL.
"""

from sqlalchemy import BigInteger, Column, Double, Index, Integer, Table, Text
from sqlalchemy.dialects.postgresql import ARRAY

from jobsvc.db.models import Base, Moment

counters = Table(
    "tallies",
    Base.metadata,
    Column("event", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("status", Text, comment="the job's new status"),
    Column("le", Double, comment="upper bound of the histogram bucket, in seconds"),
    Column("number", BigInteger, nullable=False),
    Column("seconds", Double, comment="sum of the durations"),
    Column("minute", Moment, comment="start of the minute; null: the row is in counter_history, or has no time"),
    prefixes=["UNLOGGED"],
    comment="counters of /metrics; rows with equal labels are added up",
)

counter_history = Table(
    "counter_history",
    Base.metadata,
    Column("minute", Moment, nullable=False, comment="start of the minute, or of the 15 minutes"),
    Column("type", Text, nullable=False),
    Column("queue", Text, nullable=False),
    Column("accepted", Integer, nullable=False),
    Column("started", Integer, nullable=False),
    Column("completed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("retried", Integer, nullable=False),
    Column("wait", ARRAY(Integer), nullable=False, comment="number of starts per histogram bucket"),
    Column("wait_seconds", Double, nullable=False, comment="sum of the durations"),
    Column("run", ARRAY(Integer), nullable=False, comment="number of ended attempts per histogram bucket"),
    Column("run_seconds", Double, nullable=False, comment="sum of the durations"),
    Index("counter_history_minute", "minute"),
    prefixes=["UNLOGGED"],
    comment="counters over time, for /stats; rows of the same time, type and queue are added up",
)
