"""The call site of the caller, read off the stack: whether it is within a request, or in one worker of several."""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterator, Mapping
from types import FrameType

__all__ = ["inside_a_request", "several_workers"]

_CHILDREN = {  # a module on the stack of a server's child process: its variable that has the number of workers
    "granian.server.common": "self.workers",  # of a forked worker
    "granian.server.mp": "worker_id",  # of a spawned one
    "hypercorn.asyncio.run": "config.workers",
    "hypercorn.trio.run": "config.workers",
    "uvicorn._subprocess": "1",  # with --reload; with several workers its supervisor is there, too
    "uvicorn.supervisors.multiprocess": "self.config.workers",
}
_OTHERS = {"gunicorn.arbiter": "self.num_workers", "uvicorn.main": "1"}  # the same of a process that is no such child
_OPTIONS = ("--workers", "-w")
_VARIABLES = ("WEB_CONCURRENCY", "GRANIAN_WORKERS")


def several_workers() -> bool:
    """Whether this process is one of several that serve the same app, as far as the process can see.

    Servers run their event loop in the main thread. It reads the stack of the calling thread alone: the frames of
    another one may be freed while they are read, which is a crash.
    """
    places = _CHILDREN if _is_child() else _OTHERS
    numbers = [number for frame in _outward(sys._getframe(1)) if (number := _workers_in(frame, places))]
    return max(numbers) > 1 if numbers else _guessed_from_options()


def _is_child() -> bool:
    """Whether multiprocessing has made this process. A child has the module, and its import takes long."""
    multiprocessing = sys.modules.get("multiprocessing")
    return multiprocessing is not None and multiprocessing.parent_process() is not None


def _workers_in(frame: FrameType, places: Mapping[str, str]) -> int:
    """The number of workers that a server's frame reveals; 0: none, or it is no server's."""
    place = places.get(frame.f_globals.get("__name__", ""), "0")
    if place.isdigit():
        return int(place)
    variable, *attributes = place.split(".")
    value = frame.f_locals.get(variable)
    for attribute in attributes:
        value = getattr(value, attribute, None)
    return value if isinstance(value, int) else 0


def _guessed_from_options() -> bool:
    """Whether the options of a server that is not known ask for several workers. Those of a test run do not count."""
    if "PYTEST_VERSION" in os.environ:
        return False
    arguments = [part for argument in sys.argv for part in argument.split("=", 1)]
    numbers = [after for option, after in itertools.pairwise(arguments) if option in _OPTIONS]
    numbers += [os.environ.get(variable, "") for variable in _VARIABLES]
    return any(number.isdigit() and int(number) > 1 for number in numbers)


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
