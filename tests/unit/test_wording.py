"""Code, documents and texts use one plain word for one thing: names are searched as well as sentences."""

import re
from pathlib import Path

import pytest

from tests.support.launcher import ROOT

SAY = {
    "stillborn": "a child process that crashes as it starts",
    "horses?": "child process",
    "doorbells?|bells?|rings?|rang|rung|ringing": "wake up, notify",
    "bur(y|ies|ied)": "handle the child's exit",
    "verdicts?": "transition, result, outcome",
    "tall(y|ies|ied)": "counter, count",
    "tells?|told|telling": "log, record, notify, request, return",
    "call(s|ed|ing)? off": "cancel, cancel requested",
    "last words": "partial result",
    "begun|unbegun": "started, has started",
    "hand(s|ed|ing)? over": "enqueue, dispatch",
    "hand(s|ed|ing)? back|put(s|ting)? back": "return uncounted",
    "find missing|rescued?": "re-dispatch, recover",
    "le(ft|aves?|aving) behind": "remain, are not removed",
    "looks?|looked|looking": "check, poll, read, search",
    "taken? ahead": "prefetch",
    "is back|away|gone": "available again, unavailable, ended, deleted",
    "g[ai]ves? up|giv(ing|en) up": "abandon, stop trying",
    "held": "running, withheld",
    "free places?": "free slot",
    "patience|patient": "wait",
    "door|gates?|hub": "fast path, limit, watcher",
    "hears?|heard|unheard|deaf|heed(ed)?": "receive, notice, unconfirmed",
    "haste|hurry|hurried": "at once, without waiting",
    "wish(es|ed)?": "request",
    "stumbled?|str(ike|ikes|uck)|errand": "fail, fault, task",
    "whoever|whatever|somebody|nobody|anothers": "name the person, process or thing",
    "lest|shall|amid|amidst|meanwhile|hence|thereof|ere|whilst": "so that ... not, must, during, while",
    "over and done|comes? to nothing|the end of (it|them) all": "finished, has no effect",
}
"""Words that are not used, each with what to say instead. Names are divided at `_` and capitals."""

ALLOWED = {
    r"look[-_ ]?ups?": "a standard term",
    r"kill[-_]horse|work[-_ ]horse|horse_pid|_horse_": "names of RQ",
    r"handed[-_]back": "a published name: the outcome of an attempt, and a label of a metric",
    r"\btallies\b": "the name of a table",
    r"(?-i:\b410 Gone\b|\bGONE\b)": "the name of an HTTP status",
    r"(lock|lease)\w* (is |are )?(still )?held|held \w+ (lock|lease)": "locks and leases are held",
}
"""Where a word is used after all, and why."""

SUFFIXES = {".css", ".html", ".js", ".lua", ".md", ".py", ".svg"}
FILES = [
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*"), *ROOT.glob("jobsvc/**/*")]
    if path.suffix in SUFFIXES and path.is_file()
]
"""The product and its documents. Tests and benchmarks are free to use other words."""

_BANNED = re.compile("|".join(rf"\b(?P<w{number}>{words})\b" for number, words in enumerate(SAY)), re.IGNORECASE)
_ALLOWED = re.compile("|".join(ALLOWED), re.IGNORECASE)
_PART_OF_NAME = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|_")


def banned_words(text: str) -> list[str]:
    """Return the banned words of a text, each with its line number and what to say instead."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        for match in _BANNED.finditer(_PART_OF_NAME.sub(" ", _ALLOWED.sub("", line))):
            instead = list(SAY.values())[int((match.lastgroup or "w0")[1:])]
            found.append(f"{number}: {match[0]!r}: say {instead}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_banned_word_is_used(path: Path) -> None:
    assert banned_words(path.read_text()) == []


@pytest.mark.parametrize(
    "text", ["the relay was told", "LookAhead", "is_held", "a job that is\nhanded over", "JOBS_HELD", "Nobody waits"]
)
def test_banned_word_is_found_in_names_and_texts(text: str) -> None:
    assert banned_words(text)


@pytest.mark.parametrize(
    "text", ["look_up(key)", "a lookup", "withheld", "outlook", "handed-back", "kill-horse", "the lease is still held"]
)
def test_allowed_word_is_not_reported(text: str) -> None:
    assert not banned_words(text)
