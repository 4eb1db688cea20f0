"""Converts a response's body to a job's result: JSON, or text decoded with the response's charset."""

import codecs
import io
import json
import re
from typing import Any

import urllib3

from jobsvc.strict_json import clean, unique_keys, unstorable

MAX_BODY = 64 * 1024
"""Maximum bytes kept of a body; a longer one is cut and returned as text."""

_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([A-Za-z0-9._:+-]{1,40})["']?\s*(?:;|$)""", re.IGNORECASE)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
# Codecs of Python that are not charsets.
_NOT_CHARSETS = {"idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape"}


def read_body(response: urllib3.BaseHTTPResponse) -> Any:
    """Read the response's body: parsed if it is JSON, else as text without characters that Postgres can't store."""
    raw = _content(response)
    is_cut = len(raw) > MAX_BODY
    media_type = response.headers.get("content-type", "")
    kind = media_type.partition(";")[0].strip().lower()
    is_json = "json" in kind
    text = _decode(raw[:MAX_BODY], media_type, kind, is_json, is_cut)
    if is_json and not is_cut:
        try:
            decoded = json.loads(text, object_pairs_hook=unique_keys)
            if not any(unstorable(decoded)):
                return decoded
        except (ValueError, RecursionError):
            pass
    return clean(text)


def _content(response: urllib3.BaseHTTPResponse) -> bytes:
    """Return the first MAX_BODY + 1 bytes without their content coding; raw bytes if they can't be decoded.

    The target has processed the request, so a body that can't be decoded must not cause a retry.
    """
    coding = response.headers.get("content-encoding")
    # Twice MAX_BODY bytes always contain MAX_BODY decoded ones, however badly they were compressed.
    raw = response.read(2 * MAX_BODY if coding else MAX_BODY + 1, decode_content=False) or b""
    if not coding or not raw:
        return raw
    coded = urllib3.HTTPResponse(io.BytesIO(raw), {"content-encoding": coding}, preload_content=False)
    try:
        return coded.read(MAX_BODY + 1, decode_content=True) or b""
    except urllib3.exceptions.DecodeError:
        return raw


def _decode(raw: bytes, media_type: str, kind: str, is_json: bool, is_cut: bool) -> str:
    """Return the bytes as text; if they were cut, without an incomplete character at the end."""
    charset = "utf-8"
    if found := _CHARSET.search(media_type):
        charset = found[1].lower().replace("_", "-")
    elif is_json:
        charset = json.detect_encoding(raw)
    if is_json or kind.startswith("text/") or found:
        # A byte order mark takes precedence over the header (WHATWG Encoding §6).
        for mark, marked in _BOMS:
            if raw.startswith(mark):
                raw, charset = raw[len(mark) :], marked
                break
    return _decoder("utf-8" if charset in _NOT_CHARSETS else charset).decode(raw, final=not is_cut)


_ALIASES = {"windows-31j": "cp932", "x-sjis": "cp932", "x-euc-jp": "euc-jp", "x-gbk": "gbk", "x-cp1252": "cp1252"}
"""Charset labels (WHATWG Encoding §4.2) unknown to Python."""


def _decoder(charset: str) -> codecs.IncrementalDecoder:
    charset = _ALIASES.get(charset, charset)
    try:
        # bytes.decode() refuses codecs that don't make text, such as base64.
        b"a".decode(charset, "replace")
        return codecs.getincrementaldecoder(charset)("replace")
    except (LookupError, UnicodeError):
        return codecs.getincrementaldecoder("utf-8")("replace")
