"""The pages of the console, and hostile jobs to fill them."""

from urllib.parse import quote

from playwright.sync_api import Page
from rq import Queue, Worker
from rq.serializers import JSONSerializer

from tests.support.handlers.console import NAME, SCRIPTS
from tests.support.service import Service

LONG = (SCRIPTS + "W" * 300 + " ") * 100
LONG = LONG[: 64 * 1024]
TYPE = quote(NAME, safe="")

PAGES = {
    "overview": "",
    "jobs": "jobs",
    "failed jobs": "jobs?status=FAILED",
    "older jobs": "jobs?limit=2&cursor={completed}",
    "no jobs": "jobs?tag=none",
    "completed job": "jobs/{completed}",
    "failed job": "jobs/{failed}",
    "running job": "jobs/{running}",
    "scheduled job": "jobs/{scheduled}",
    "job of a workflow": "jobs/{middle}",
    "dependents": "jobs?dependsOn={middle}&payload={{}}",
    "failures": "failures",
    "queues": "queues",
    "queue": "queues/default",
    "type": f"types/{TYPE}",
    "type of a model": "types/PARCEL",
    "schedules": "schedules",
    "schedule": "schedules/daily",
    "workers": "workers",
    "new job": "new",
    "new job of a model": "new?type=PARCEL",
    "new hostile job": f"new?type={TYPE}",
    "copy of a job": "new?like={failed}",
    "webhooks": "webhooks",
    "ticks": "ticks?/cron=*/5+*+*+*+*&/timezone=Europe/Paris",
    "unknown page": "nope",
    "unknown job": "jobs/01900000-0000-7000-8000-000000000000",
}


def assert_no_element_of_a_job(page: Page) -> None:
    found = page.locator("[data-from], main img, main iframe, main script, main [onload], a[href^=javascript]")
    assert found.evaluate_all("all => all.map(one => one.outerHTML.slice(0, 300))") == []


def hostile_worker(console: Service) -> None:
    connection = console.redis()
    queue = Queue("jobsvc.default", connection=connection, serializer=JSONSerializer)
    name = "w<b/data-from><script>pwned()</script>"
    worker = Worker([queue], name=name, connection=connection, serializer=JSONSerializer)
    worker.register_birth()
    connection.hset(worker.key, mapping={"hostname": SCRIPTS, "state": SCRIPTS, "version": SCRIPTS})
    connection.expire(worker.key, 3600)
