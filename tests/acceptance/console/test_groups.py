"""The links and buttons of a group of failures name its jobs, also if their error is an odd text."""

import html
import re
from urllib.parse import parse_qsl, urlsplit

import pytest

from tests.support.service import Service

MESSAGES = {
    "nothing": "",
    "a space": " ",
    "spaces around": "  in the middle  ",
    "an empty first line": "\nsecond",
    "several lines": "first\nsecond",
    "a carriage return": "one\rtwo\r\nthree",
    "a line separator": "one\u2028two\x85three",
    "a long line": "long " * 80,
    "markup": "<b>&amp;\"'",
    "a query": "a=b&status=COMPLETED#top%20?+",
    "not ASCII": "é \U0001f600 ﷽",
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=MESSAGES)
def test_link_of_a_group_lists_its_jobs_and_its_button_retries_them(console: Service, message: str) -> None:
    console.client.post("/jobs/delete?type=BROKEN").raise_for_status()
    job_id = console.post("BROKEN", {"message": message})
    console.until(job_id, "FAILED")
    text = console.client.get("/ui/types/BROKEN").text
    [link] = [html.unescape(one) for one in re.findall(r'<a class="bad" href="(/ui/jobs[^"]*)"', text)]
    listed = console.client.get(link).text
    assert re.findall(r'<tr id="job-([^"]+)"', listed) == [job_id]
    parameters = [one for one in parse_qsl(urlsplit(link).query, keep_blank_values=True) if one[0] != "limit"]
    assert [one["id"] for one in console.client.get("/jobs", params=parameters).json()["jobs"]] == [job_id]
    [retry] = [html.unescape(one) for one in re.findall(r'hx-post="(/jobs/retry[^"]*)"', text)]
    assert console.client.post(retry).json() == {"count": 1}
    console.until(job_id, "COMPLETED")
