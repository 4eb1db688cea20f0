"""The results of an audit."""

from collections import defaultdict
from dataclasses import dataclass, field


@dataclass
class Account:
    """The results of an audit. Each list has the ids of jobs, or the requests, that break a promise."""

    accepted: int = 0
    completed: int = 0
    failed_as_meant: int = 0
    cancelled_as_meant: int = 0
    released: int = 0
    limited: int = 0
    lost: list[str] = field(default_factory=list)
    ended_otherwise: list[str] = field(default_factory=list)
    ran_twice: list[str] = field(default_factory=list)
    wrongly_recovered: list[str] = field(default_factory=list)
    ran_early: list[str] = field(default_factory=list)
    recovered_late: list[str] = field(default_factory=list)
    delayed: list[str] = field(default_factory=list)
    ran_before_dependencies: list[str] = field(default_factory=list)
    released_twice: list[str] = field(default_factory=list)
    unreleased: list[str] = field(default_factory=list)
    over_rate: list[str] = field(default_factory=list)
    over_concurrency: list[str] = field(default_factory=list)
    ran_unchanged: list[str] = field(default_factory=list)
    stored_uncommitted: list[str] = field(default_factory=list)
    attempts_lost: int = 0
    recoveries: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def broken(self) -> dict[str, list[str]]:
        """The promises that were broken, and by which jobs."""
        promises = {
            "lost": self.lost,
            "ended otherwise than meant": self.ended_otherwise,
            "ran twice although no worker was lost": self.ran_twice,
            "recovered while its worker lived": self.wrongly_recovered,
            "ran before its time": self.ran_early,
            "recovered later than promised": self.recovered_late,
            "delayed by a client that stalls": self.delayed,
            "ran before its dependencies ended": self.ran_before_dependencies,
            "released more than once": self.released_twice,
            "left with open dependencies": self.unreleased,
            "started beyond its rate limit": self.over_rate,
            "started beyond its concurrency limit": self.over_concurrency,
            "ran as before its change": self.ran_unchanged,
            "stored although rolled back": self.stored_uncommitted,
        }
        return {promise: ids for promise, ids in promises.items() if ids}
