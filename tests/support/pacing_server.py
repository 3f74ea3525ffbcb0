"""A server in a thread of its own, with one bucket per resource in a fixed window, written from Discord's documents.

It is no FakeDiscord: it shares none of the package's assumptions. It answers one call after the other.
"""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.support.servers import wait_until

__all__ = ["PacingServer"]


class PacingServer:
    """`limit` calls per `period` seconds of each channel or webhook; and 50 in any second of the server's."""

    def __init__(self, limit: int = 5, period: float = 1.0, global_limit: int = 50) -> None:
        self._limit, self._period, self._global_limit = limit, period, global_limit
        self._lock = threading.Lock()
        self._windows: dict[str, tuple[float, int]] = {}  # when one ends, and its calls
        self._seconds: dict[int, int] = defaultdict(int)
        self._may_go = threading.Event()
        self._may_go.set()
        self.paths: list[str] = []
        self.bodies: list[bytes] = []
        self.statuses: list[int] = []
        self.body = b'{"id": "1"}'
        self.status = 200
        self._http = _HTTP(self)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self.url = f"http://127.0.0.1:{self._http.server_address[1]}/api/v10"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.go_on()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()

    def hold(self) -> None:
        """Answer nothing until `go_on`."""
        self._may_go.clear()

    def go_on(self) -> None:
        self._may_go.set()

    def until_received(self, calls: int) -> None:
        wait_until(lambda: len(self.bodies) >= calls, f"{calls} calls have arrived")

    @property
    def created(self) -> list[str]:
        """The contents of the messages that exist by now."""
        with self._lock:
            received = list(zip(self.bodies, self.statuses, strict=False))
        return [json.loads(body)["content"] for body, status in received if status == 200]

    def answer(self, path: str, body: bytes) -> tuple[int, dict[str, str], bytes]:
        with self._lock:
            self.paths.append(path)
            self.bodies.append(body)
            status, headers, answer = self._judge(path)
            self.statuses.append(status)
        self._may_go.wait(30)
        return status, headers, answer

    def _judge(self, path: str) -> tuple[int, dict[str, str], bytes]:
        now = time.monotonic()
        self._seconds[int(now)] += 1
        if self._seconds[int(now)] > self._global_limit:
            return _refusal(1 - now % 1, {"X-RateLimit-Global": "true", "X-RateLimit-Scope": "global"}, is_global=True)
        end, used = self._windows.get(path, (0.0, 0))
        if now >= end:
            end, used = now + self._period, 0
        self._windows[path] = end, used + 1
        headers = {
            "X-RateLimit-Limit": str(self._limit),
            "X-RateLimit-Remaining": str(max(0, self._limit - used - 1)),
            "X-RateLimit-Reset": f"{time.time() + end - now:.3f}",
            "X-RateLimit-Reset-After": f"{end - now:.3f}",
            "X-RateLimit-Bucket": "abcd1234",
        }
        if used >= self._limit:
            return _refusal(end - now, {**headers, "X-RateLimit-Scope": "user"}, is_global=False)
        return self.status, headers, self.body


class _HTTP(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, discord: PacingServer) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.discord = discord

    def handle_error(self, *_: object) -> None:
        """A client that leaves is no error of the server's."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _HTTP
    disable_nagle_algorithm = True

    def _serve(self) -> None:
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length)
        if len(body) < length:  # the client left before the end: nothing has arrived
            self.close_connection = True
            return
        status, headers, answer = self.server.discord.answer(self.path.partition("?")[0], body)
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Via", "1.1 google")
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PATCH = do_DELETE = do_PUT = _serve  # noqa: N815

    def log_message(self, *_: Any) -> None: ...


def _refusal(seconds: float, headers: dict[str, str], *, is_global: bool) -> tuple[int, dict[str, str], bytes]:
    answer = {"message": "You are being rate limited.", "retry_after": round(seconds, 3), "global": is_global}
    return 429, {**headers, "Retry-After": str(int(seconds) + 1)}, json.dumps(answer).encode()
