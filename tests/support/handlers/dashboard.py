"""Handlers whose jobs bring text along that would be a script where a page does not escape it."""

from typing import Any

from jobsvc import Context, handler


@handler("BRING", retry={"max": 0})
def bring(payload: dict[str, Any], ctx: Context) -> dict[str, Any]:
    """Say the text in every way that a handler has; fail with it on the first `fails` attempts."""
    text = payload["text"]
    ctx.log(text)
    ctx.progress(50, text)
    if ctx.attempt <= payload.get("fails", 0):
        raise type(text, (Exception,), {})(text)
    return {"text": text, text: [text]}
