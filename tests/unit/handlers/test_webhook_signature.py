"""The signature, by the library that receivers use."""

import time
from base64 import b64encode

from standardwebhooks.webhooks import Webhook

from jobsvc.handlers.builtin.webhook import sign


def test_each_secret_adds_a_signature() -> None:
    secrets = [bytes(range(24)), bytes(64)]
    now, body = int(time.time()), '{"ü":1}'.encode()
    headers = {"webhook-id": "a", "webhook-timestamp": str(now), "webhook-signature": sign(secrets, "a", now, body)}
    for secret in secrets:
        assert Webhook(f"whsec_{b64encode(secret).decode()}").verify(body, headers) == {"ü": 1}
