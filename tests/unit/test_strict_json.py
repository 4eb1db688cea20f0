"""JSON: what is refused, and where it stands."""

import pytest

from jobsvc.strict_json import MAX_DEPTH, NotJson, clean, parse, unstorable


@pytest.mark.parametrize(
    "text", ["{}", "[]", "null", "1", '"\\u0000"', '"\\ud800"', '{"a": {"a": 1}}', '"\\ud83d\\ude00"']
)
def test_valid_json_is_parsed(text: str) -> None:
    parse(text.encode())


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        (b"", "line 1, column 1"),
        (b"{'a': 1}", "line 1, column 2"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"[NaN]", "NaN is not valid JSON"),
        (b"[-Infinity]", "-Infinity is not valid JSON"),
        (b'{"a": 1, "b": {"c": 1, "c": 2}}', "the key 'c' appears more than once"),
        (b'{"\\ud800": 1, "\\ud800": 2}', "the key '\\ud800' appears more than once"),
        (b"[" * 100_000, "nested"),
    ],
)
def test_invalid_json_is_refused(raw: bytes, says: str) -> None:
    with pytest.raises(NotJson) as caught:
        parse(raw)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("value", "pointer"),
    [
        ("a\x00", ""),
        ({"a": ["x", "\ud800"]}, "/a/1"),
        ({"a/b": {"~": float("inf")}}, "/a~1b/~0"),
        ({"\x00": 1}, "/\ufffd"),
        ({"\udfff": 1}, "/\ufffd"),
    ],
)
def test_json_that_jsonb_cannot_store_is_refused(value: object, pointer: str) -> None:
    [problem] = unstorable(value)
    assert problem.pointer == pointer


@pytest.mark.parametrize("raw", [b"9" * 5000, b"-" + b"9" * 4301, b"1e400", b"1" + b"0" * 400 + b".0"])
def test_too_large_number_cannot_be_stored(raw: bytes) -> None:
    [problem] = unstorable(parse(b'{"a": [0, ' + raw + b"]}"))
    assert (problem.pointer, problem.detail) == ("/a/1", "is a number too large")


def test_largest_integers_are_kept() -> None:
    assert parse(b"-" + b"9" * 4300) == 1 - 10**4300
    with pytest.raises(NotJson, match="'limit' appears more than once"):
        parse(b'{"limit": 1, "limit": 2}')


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "ü\U0001f600", {"": []}, 10**4000])
def test_json_that_jsonb_can_store_is_accepted(value: object) -> None:
    assert list(unstorable(value)) == []


def test_depth_is_limited() -> None:
    value: list[object] = []
    for _ in range(MAX_DEPTH - 1):
        value = [value]
    assert list(unstorable(value)) == []
    assert next(unstorable([value])).detail == "is nested more than 100 levels deep"


@pytest.mark.parametrize(
    ("dirty", "cleaned"),
    [("a\x00b", "a\ufffdb"), ("\ud800", "\ufffd"), ("x\udfffy", "x\ufffdy"), ("\U0001f600", "\U0001f600"), ("", "")],
)
def test_nul_and_surrogates_are_replaced(dirty: str, cleaned: str) -> None:
    assert clean(dirty) == cleaned
    clean(dirty).encode()
