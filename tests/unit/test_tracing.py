"""traceparent, by the grammar of W3C Trace Context."""

from uuid import UUID

import pytest

from jobsvc import tracing

TRACE, PARENT = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
VALID = f"00-{TRACE}-{PARENT}-01"
JOB = "01a20d9d-383b-755a-b743-f0ceb23ca29d"


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (VALID, VALID),
        (f" {VALID}\t", VALID),
        (f"00-{TRACE}-{PARENT}-ff", f"00-{TRACE}-{PARENT}-03"),  # flags that are not known here
        (f"cc-{TRACE}-{PARENT}-01", VALID),  # a later version, as far as it is known here
        (f"cc-{TRACE}-{PARENT}-01-what-the-future-will-be", VALID),
    ],
)
def test_valid_traceparent_is_accepted(header: str, expected: str) -> None:
    assert tracing.parse_traceparent(header) == expected


@pytest.mark.parametrize(
    "header",
    [
        *(None, "", "x", VALID.upper(), f"{VALID}-more", f"{VALID}, {VALID}", VALID[:-1], f"{VALID}.", f"{VALID}1"),
        f"ff-{TRACE}-{PARENT}-01",
        f"00-{'0' * 32}-{PARENT}-01",
        f"00-{TRACE}-{'0' * 16}-01",
        f"cc-{TRACE}-{PARENT}-01.more",
    ],
)
def test_invalid_traceparent_is_refused(header: str | None) -> None:
    assert tracing.parse_traceparent(header) is None


def test_traceparent_is_sent_on() -> None:
    first, second = tracing.outgoing_traceparent(JOB, VALID), tracing.outgoing_traceparent(JOB, VALID)
    assert tracing.parse_traceparent(first) == first
    assert (first[:36], first[-3:]) == (VALID[:36], VALID[-3:])
    assert len({first[36:52], second[36:52], PARENT}) == 3
    alone = tracing.outgoing_traceparent(JOB, None)
    assert tracing.parse_traceparent(alone) == alone
    assert (alone[3:35], alone[-2:]) == (UUID(JOB).hex, "00")
