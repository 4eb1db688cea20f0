"""A module that can't be loaded: its handler's name is taken."""

from jobsvc import handler


@handler("TEST_JOB")
def another(payload: dict) -> None:  # type: ignore[type-arg]
    raise AssertionError
