"""The call site of the caller, read off the stack: whether it is within a request, or in one worker of several."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import sys
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["inside_a_request", "several_workers"]


def several_workers() -> bool:
    """Whether this process is one of several that serve the same app, as far as the process can see."""
    return _workers_option() or any(
        frame.f_globals.get("__name__") == "uvicorn.supervisors.multiprocess" for frame in _main_thread_frames()
    )


def _workers_option() -> bool:
    arguments = [part for argument in sys.argv for part in argument.split("=", 1)]
    numbers = [after for option, after in itertools.pairwise(arguments) if option in ("--workers", "-w")]
    return any(number.isdigit() and int(number) > 1 for number in [*numbers, os.environ.get("WEB_CONCURRENCY", "")])


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
