"""`Prefer: wait=N`, by RFC 7240."""

import pytest

from jobsvc.api.prefer_wait import seconds_preferred


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=5", 5),
        ("wait=0", 0),
        ("WAIT = 5", 5),
        ('wait="5"', 5),
        ("wait=007", 7),
        ("wait=60", 60),
        ("wait=61", 60),
        ("wait=" + "9" * 5000, 60),
        ("respond-async, wait=5", 5),
        ('foo="a, wait=9", wait=5', 5),
        (r'foo="a\", wait=9", wait=5', 5),
        ("return=minimal; x=y,wait=5;foo=bar", 5),
        (",, wait=5,", 5),
        ("wait=5, wait=6", 5),
        ("wait=x, wait=6", None),
        ("", None),
        ("waiting=5", None),
        ("foo; wait=5", None),
        ("wait", None),
        ("wait=", None),
        ('wait=""', None),
        ("wait=-1", None),
        ("wait=+1", None),
        ("wait=1.5", None),
        ("wait=5 s", None),
        ("wait=5=6", None),
        ("wait=٣", None),
        ('wait="5', None),
        ("wait='5'", None),
    ],
)
def test_prefer_header_is_parsed(header: str, seconds: int | None) -> None:
    assert seconds_preferred(header) == seconds
