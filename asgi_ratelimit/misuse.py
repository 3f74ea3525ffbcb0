"""Misconfiguration is loud: one warning of each kind, each with a stable code that the README explains."""

from __future__ import annotations

import itertools
import logging
import multiprocessing
import os
import sys
import threading
import warnings
from collections.abc import Iterator
from types import FrameType

from asgi_ratelimit.errors import RateLimitWarning

__all__ = ["CODES", "Notices", "inside_a_request", "several_workers"]

logger = logging.getLogger("asgi_ratelimit")

CODES = {
    "ARL101": "two doors share a name but not their limits",
    "ARL102": "the same bucket is charged twice in one request",
    "ARL103": "a request without any identity",
    "ARL104": "X-Forwarded-For from a peer that is not trusted",
    "ARL105": "an in-memory store under several workers",
    "ARL106": "a limiter made anew for each request",
    "ARL107": "the user is known only after the limiter has run",
    "ARL108": "a limiter outside CORSMiddleware",
    "ARL109": "per= names a path parameter that the route does not have",
    "ARL110": "a Redis that may forget buckets",
    "ARL201": "a key function returned what is no key",
    "ARL202": "a limit function returned what is no limit",
    "ARL203": "a cost function returned what is no cost",
    "ARL204": "on_limited returned what is no response",
}


class Notices:
    """What has been warned about already, e.g. by one door: everything is said once."""

    def __init__(self) -> None:
        self._said: set[str] = set()

    def say(self, code: str, text: str) -> None:
        """Warn once. A filter that makes errors of warnings must not make a 500 of a request: then it is logged."""
        if code in self._said:
            return
        self._said.add(code)
        message = f"{code} {CODES[code]}: {text}"
        try:
            warnings.warn(message, RateLimitWarning, stacklevel=4)
        except RateLimitWarning:
            logger.warning(message)


def several_workers() -> bool:
    """Whether this process is one of several that serve the same app, as far as can be told."""
    return _asked_for_workers() or any(
        frame.f_globals.get("__name__") == "uvicorn.supervisors.multiprocess" for frame in _main_thread_frames()
    )


def _asked_for_workers() -> bool:
    arguments = [part for argument in sys.argv for part in argument.split("=", 1)]
    asked = [after for option, after in itertools.pairwise(arguments) if option in ("--workers", "-w")]
    return any(number.isdigit() and int(number) > 1 for number in [*asked, os.environ.get("WEB_CONCURRENCY", "")])


def _main_thread_frames() -> Iterator[FrameType]:
    if multiprocessing.parent_process() is None:
        return iter(())
    return _outward(sys._current_frames().get(threading.main_thread().ident or 0))


def inside_a_request() -> bool:
    """Whether the caller runs on behalf of a request, in the event loop or in a worker thread."""
    return any(_serves_a_request(frame) for frame in _outward(sys._getframe(1)))


def _serves_a_request(frame: FrameType) -> bool:
    module, name = frame.f_globals.get("__name__", ""), frame.f_code.co_qualname
    if module in ("starlette.routing", "fastapi.routing"):
        return name.startswith(("request_response.", "websocket_session."))
    return module == "anyio._backends._asyncio" and name == "WorkerThread.run"


def _outward(frame: FrameType | None) -> Iterator[FrameType]:
    while frame is not None:
        yield frame
        frame = frame.f_back
