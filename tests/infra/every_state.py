"""Jobs in every state, made by one deployment, and how each of them has to end in another one."""

from pathlib import Path

from tests.support.service import Service

HANDLERS = "tests.support.handlers.basic,tests.support.handlers.asynchronous"


class EveryState:
    """Jobs that one service has made: ended, running and waiting for every reason.

    Running ones end when `finish` is called, which also lets the others go on.
    """

    def __init__(self, service: Service, folder: Path) -> None:
        self._file, self.notes = folder / "finish", folder / "notes"
        until, note = {"path": str(self._file)}, {"path": str(self.notes)}
        completed, failed, cancelled = service.post("NOTE", note), service.post("DISCARD"), service.post(delay=3600)
        assert service.client.post(f"/jobs/{cancelled}/cancel").status_code == 200
        self.ended = {completed: "COMPLETED", failed: "FAILED", cancelled: "CANCELLED"}
        self.running = [
            service.post("UNTIL", until),
            service.post("UNTIL", until, concurrencyKey="one"),
            service.post("ASYNC_SLEEP", until),
        ]
        for job_id in self.running:
            service.until(job_id, "PROCESSING")
        for job_id, status in self.ended.items():
            service.until(job_id, status)
        self.retrying = service.post("NOTE", {**note, "fails": 1}, retry={"max": 3, "interval": 15})
        self.snoozed = service.post("SNOOZE", {"times": 1, "seconds": 15})
        rate = {"key": "rare", "limit": 1, "per": 6}
        assert service.client.post("/queues/low/pause").status_code == 200
        self.once = [
            service.post("NOTE", note, concurrencyKey="one"),
            *(service.post("NOTE", note, rateLimit=rate) for _ in range(3)),
            service.post("NOTE", note, delay=15),
        ]
        self.paused = [service.post("NOTE", note, queue="low") for _ in range(5)]
        self.once.append(service.post("NOTE", note, dependsOn=[self.running[0], self.once[0]]))
        self.once.append(service.post("NOTE", note, dependsOn=[self.once[-1]]))
        self.once += self.paused
        self.unique = service.post("NOTE", note, uniqueKey="only", delay=3600)
        schedule = {"cron": "0 0 1 1 *", "job": {"type": "NOTE", "payload": note}}
        assert service.client.put("/schedules/yearly", json=schedule).is_success
        service.until(self.retrying, "RETRYING")
        service.until(self.snoozed, "SCHEDULED")
        counted = dict(service.sql("SELECT status, count(*) FROM jobs GROUP BY status"))
        statuses = {"PENDING", "SCHEDULED", "RETRYING", "BLOCKED", "PROCESSING", "COMPLETED", "FAILED", "CANCELLED"}
        assert set(counted) == statuses, counted

    def finish(self, service: Service) -> None:
        """Let the running jobs end, and resume and run what waits for that."""
        self._file.touch()
        assert service.client.post("/queues/low/resume").status_code == 200
        self.once.append(service.client.post("/schedules/yearly/run").json()["jobId"])

    def check(self, service: Service) -> None:
        """Wait until every job has ended as it has to; those that had ended must be as they were."""
        for job_id in (*self.running, *self.once, self.retrying, self.snoozed):
            job = service.until(job_id, "COMPLETED", "FAILED", "CANCELLED", timeout=90)
            assert job["status"] == "COMPLETED", job
        for job_id, status in self.ended.items():
            assert service.job(job_id)["status"] == status
        same = service.client.post("/jobs", json={"type": "NOTE", "payload": {"path": "-"}, "uniqueKey": "only"})
        assert same.json()["jobId"] == self.unique
        assert service.client.post(f"/jobs/{self.unique}/cancel").json()["status"] == "CANCELLED"
