"""Cron expressions in words."""

import random
import re

import pytest

from jobsvc.jobs import cron
from jobsvc.jobs.cron_words import MOST_TIMES, describe_cron


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("@hourly", "every hour"),
        ("@Daily", "every day at 00:00"),
        ("@midnight", "every day at 00:00"),
        ("@weekly", "at 00:00 on Sunday"),
        ("@monthly", "at 00:00 on day 1 of the month"),
        ("@yearly", "at 00:00 on day 1 of the month in January"),
        ("@annually", "at 00:00 on day 1 of the month in January"),
        ("* * * * *", "every minute"),
        ("*/1 */1 */1 */1 */1", "every minute"),
        ("*/15 * * * *", "every 15 minutes"),
        ("* 8 * * *", "every minute of hour 8"),
        ("*/5 22-23 * * *", "every 5 minutes of hour 22 to 23"),
        ("*/5 */2 * * *", "every 5 minutes of every 2nd hour"),
        ("*/5,7 * * * *", "at every 5th minute and 7 of every hour"),
        ("0 * * * *", "every hour"),
        ("00 * * * *", "every hour"),
        ("5 * * * *", "at minute 5 of every hour"),
        ("05,35 * * * *", "at minute 5 and 35 of every hour"),
        ("5/10 * * * *", "at every 10th minute from 5 of every hour"),
        ("1-30/3 9 * * *", "at every 3rd minute from 1 to 30 of hour 9"),
        ("1-5/1 * * * *", "at every minute from 1 to 5 of every hour"),
        ("0 8-18/2 * * 1-5", "at minute 0 of every 2nd hour from 8 to 18 on Monday to Friday"),
        ("30 4 * * *", "every day at 04:30"),
        ("0\t8  * * *", "every day at 08:00"),
        ("0,30 8,20 * * *", "every day at 08:00, 08:30, 20:00 and 20:30"),
        ("0 1,2,3,4,5,6,7 * * *", "at minute 0 of hour 1, 2, 3, 4, 5, 6 and 7"),
        ("0 0 1,15 * *", "at 00:00 on day 1 and 15 of the month"),
        ("0 0 1-7 * *", "at 00:00 on day 1 to 7 of the month"),
        ("0 0 */10 * *", "at 00:00 on every 10th day of the month"),
        ("0 0 1-10/3 * *", "at 00:00 on every 3rd day from 1 to 10 of the month"),
        ("0 0 13 * 5", "at 00:00 on day 13 of the month or on Friday"),
        ("0 0 */13 * 5", "at 00:00 on every 13th day of the month and on Friday"),
        ("0 0 13 * */2", "at 00:00 on day 13 of the month and on every 2nd day of the week"),
        ("0 0 * * 0", "at 00:00 on Sunday"),
        ("0 0 * * 7", "at 00:00 on Sunday"),
        ("0 0 * * 0,7", "at 00:00 on Sunday"),
        ("0 0 * * 5-7", "at 00:00 on Friday to Sunday"),
        ("0 0 * * MON-fri", "at 00:00 on Monday to Friday"),
        ("0 0 * * sun,Wed", "at 00:00 on Sunday and Wednesday"),
        ("0 9 * 1,7 *", "every day at 09:00 in January and July"),
        ("0 9 * JAN-mar *", "every day at 09:00 in January to March"),
        ("0 9 * */3 *", "every day at 09:00 in every 3rd month"),
        ("0 9 24 dec *", "at 09:00 on day 24 of the month in December"),
        ("0 9 1 05 *", "at 09:00 on day 1 of the month in May"),
        ("0 0 */11 * *", "at 00:00 on every 11th day of the month"),
        ("0 0 */22 * *", "at 00:00 on every 22nd day of the month"),
    ],
)
def test_expression_has_its_words(expression: str, words: str) -> None:
    cron.check(expression)
    assert describe_cron(expression) == words


def test_only_so_many_times_are_listed_one_by_one() -> None:
    hours = ",".join(map(str, range(MOST_TIMES)))
    assert "05:00" in describe_cron(f"0 {hours} * * *")
    assert ":" not in describe_cron(f"0 {hours},23 * * *")


def test_names_are_found_by_their_first_letters() -> None:
    for names, field in (("sun mon tue wed thu fri sat", "0 0 * * {}"), (
        "jan feb mar apr may jun jul aug sep oct nov dec", "0 0 * {} *"
    )):  # fmt: skip
        words = [describe_cron(field.format(name)).rpartition(" ")[2].lower()[:3] for name in names.split()]
        assert words == names.split()


FIELDS = (
    (0, 59, ()),
    (0, 23, ()),
    (1, 31, ()),
    (1, 12, ("jan", "FEB", "Mar", "apr", "dec")),
    (0, 7, ("sun", "MON", "Tue", "wed", "thu", "fri", "sat")),
)


def _item(chance: random.Random, low: int, high: int, names: tuple[str, ...]) -> str:
    value = chance.choice((str(chance.randint(low, high)), f"{chance.randint(low, high):02}", *names[:2]))
    first = chance.randint(low, high - 1)
    item = chance.choice(("*", "*", value, f"{first}-{chance.randint(first + 1, high)}"))
    return f"{item}/{chance.randint(1, high)}" if chance.random() < 0.4 else item


def test_each_valid_expression_has_words() -> None:
    chance = random.Random(14)
    described = 0
    for _ in range(6000):
        parts = [",".join(_item(chance, *field) for _ in range(chance.choice((1, 1, 2, 3)))) for field in FIELDS]
        expression = " ".join(part if chance.random() < 0.7 else "*" for part in parts)
        try:
            cron.check(expression)
        except ValueError:
            continue
        words = describe_cron(expression)
        assert re.fullmatch(r"(every|at|on|in) [A-Za-z0-9:, ]+", words), expression
        assert not re.search(r"  | ,|every every|\b[123]th|None| (of|on|in|from|to)$", words), (expression, words)
        described += 1
    assert described > 3000
