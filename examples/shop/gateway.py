"""A stand-in for a payment gateway, which counts what it charges."""

import json
import threading
import time
from collections import Counter, deque
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LIMIT = 5
"""Requests in a second; more are refused."""


class Gateway(ThreadingHTTPServer):
    """It charges each key once. The reply to its third charge is lost: it closes the connection instead."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.charges: Counter[str] = Counter()
        self.times: deque[float] = deque(maxlen=LIMIT)
        self.lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Request(BaseHTTPRequestHandler):
    server: Gateway

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        key, now, gateway = self.headers["Idempotency-Key"], time.monotonic(), self.server
        with gateway.lock:
            if len(gateway.times) == LIMIT and now - gateway.times[0] < 1:
                print("  gateway: too many requests")
                return self._reply(429, "Retry-After: 1")
            gateway.times.append(now)
            if key in gateway.charges:
                print(f"  gateway: {key} once more: the same receipt")
                return self._reply(200)
            gateway.charges[key] += 1
            is_lost = len(gateway.charges) == 3
        print(f"  gateway: {key} charged{'; the connection breaks, the reply is lost' if is_lost else ''}")
        return None if is_lost else self._reply(200)

    def _reply(self, status: int, *headers: str) -> None:
        body = json.dumps({"receipt": f"R-{self.headers['Idempotency-Key']}"})
        head = (f"HTTP/1.0 {status} .", "Content-Type: application/json", *headers)
        self.wfile.write(("\r\n".join(head) + "\r\n\r\n" + body).encode())
