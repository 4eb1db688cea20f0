"""Secrets in what is shown of a job: passwords in URLs."""

import re

MASK = "***"

_PASSWORD = re.compile(r"(//[^/?#\s:@]*:)[^/?#\s]*@")


def mask_passwords(text: str) -> str:
    """Return the text with *** in place of the password of each URL in it."""
    return _PASSWORD.sub(rf"\1{MASK}@", text)
