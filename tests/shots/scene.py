"""A shop's service that has been busy for an hour: real jobs, run in waves, whose times are then moved apart."""

from pathlib import Path
from random import Random
from typing import Any

from tests.faults.conftest import Ground
from tests.shots.handlers import END
from tests.support.service import eventually

WAVES = 58
"""Number of waves of jobs; each becomes a minute of the last hour."""

# What the jobs of a wave are, is not changed: their times alone, so that an hour need not take an hour.
MOVE = """
UPDATE tallies SET minute = minute - interval '1 min' WHERE minute IS NOT NULL;
UPDATE counter_history SET minute = minute - interval '1 min';
UPDATE attempts SET started_at = started_at - interval '1 min', finished_at = finished_at - interval '1 min';
UPDATE jobs SET created_at = created_at - interval '1 min', started_at = started_at - interval '1 min',
                finished_at = finished_at - interval '1 min'
 WHERE finished_at IS NOT NULL;
"""


class Scene:
    """The service on servers of its own, with two workers; `imported` is the running job of the picture of a job."""

    def __init__(self, folder: Path) -> None:
        self.end = folder / "end"
        self._ground = Ground(folder, JOBSVC_HANDLERS="tests.shots.handlers", **{END: str(self.end)})
        self.service = self._ground.service
        self.url = self.service.url
        self._random = Random(14)
        self.imported = ""

    def play(self) -> None:
        """Run the jobs, and stop in the middle: some run, some wait, some retry."""
        self.service.worker(JOBSVC_WORKERS="2", JOBSVC_CONCURRENCY="4")
        for number in range(WAVES):
            self._post(self._wave(number))
            eventually(self._has_ended, 60)
            self._ground.sql(MOVE)
        self._set_up_schedules()
        self._post([("SYNC_STOCK", {"warehouse": "oslo", "reachable": False}, {"tags": ["stock"]})] * 2)
        self._post([("SEND_EMAIL", {"to": "ann@mail.example", "subject": "Happy birthday"}, {"delay": 7200})] * 3)
        [running, self.imported] = self._post(
            [
                ("IMPORT_ORDERS", {"file": f"orders-2026-11-{day}.csv"}, {"tags": ["import", "nightly"]})
                for day in (24, 25)
            ]
        )
        for job_id in (running, self.imported):
            eventually(lambda job_id=job_id: self.service.job(job_id)["progress"], 30)
        reply = self.service.client.post("/queues/low/pause")
        assert reply.is_success, reply.text
        self._post([("RESIZE_IMAGE", {"path": f"{number}.png"}, {}) for number in range(14)])
        eventually(lambda: self._count("RETRYING") == 2, 30)

    def _wave(self, number: int) -> list[tuple[str, dict[str, Any], dict[str, Any]]]:
        """The jobs of a minute: more around the middle of the hour, some that fail, some retried."""
        chance = self._random
        size = 5 + chance.randrange(6) + (8 if 25 <= number <= 38 else 0)
        jobs: list[tuple[str, dict[str, Any], dict[str, Any]]] = []
        for order in range(4100 + 10 * number, 4100 + 10 * number + size):
            which = chance.random()
            if which < 0.5:
                invalid = chance.random() < 0.05
                to = "bob@example.invalid" if invalid else f"customer{order}@mail.example"
                jobs.append(("SEND_EMAIL", {"to": to, "subject": f"Your order {order}"}, {"tags": ["mail"]}))
            elif which < 0.75:
                kind = "psd" if chance.random() < 0.06 else "png"
                jobs.append(("RESIZE_IMAGE", {"path": f"{order}.{kind}", "width": chance.choice((160, 320))}, {}))
            else:
                [card] = chance.choices(("ok", "slow", "declined", "expired"), (80, 10, 7, 3))
                charge = {"order": order, "cents": chance.randrange(500, 25_000), "card": card}
                jobs.append(("CHARGE_CARD", charge, {"tags": [f"order:{order}"]}))
        return jobs

    def _post(self, jobs: list[tuple[str, dict[str, Any], dict[str, Any]]]) -> list[str]:
        body = {"jobs": [{"type": name, "payload": payload, **options} for name, payload, options in jobs]}
        reply = self.service.client.post("/jobs/batch", json=body)
        assert reply.is_success, reply.text
        return [str(job_id) for job_id in reply.json()["jobIds"]]

    def _has_ended(self) -> bool:
        return not self._ground.sql("SELECT 1 FROM jobs WHERE finished_at IS NULL LIMIT 1")

    def _count(self, status: str) -> int:
        return int(self._ground.sql("SELECT count(*) FROM jobs WHERE status = %s", status)[0][0])

    def _set_up_schedules(self) -> None:
        for name, cron, job in (
            ("stock-sync", "*/15 * * * *", {"type": "SYNC_STOCK", "payload": {"warehouse": "oslo"}}),
            ("order-import", "30 3 * * 1-5", {"type": "IMPORT_ORDERS", "payload": {"file": "orders.csv"}}),
        ):
            reply = self.service.client.put(f"/schedules/{name}", json={"cron": cron, "job": job})
            assert reply.is_success, reply.text

    def stop(self) -> None:
        self.end.touch()
        self._ground.stop()
