"""The job of every client: read it, get ready, wait for the start, make the calls and report them."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from importlib.metadata import version
from typing import Any

__all__ = ["EMOJI", "PREFIX", "TOKEN", "Connect", "Verb", "run"]

PREFIX = "/api/v10"
TOKEN = "a.token.of-nobody"
EMOJI = "👍"

Verb = Callable[[int, int], Awaitable[object]]  # of a channel and of a message
Connect = Callable[[Mapping[str, Any]], AbstractAsyncContextManager[Mapping[str, Verb]]]


def run(connect: Connect) -> None:
    """Run the job of the first line, a JSON object: `package`, `address`, `before`, `calls`, options of `connect`."""
    job = json.loads(sys.stdin.readline())
    outcomes = asyncio.run(_all(job, connect))
    print(json.dumps({"version": version(job["package"]), "outcomes": outcomes}), flush=True)


async def _all(job: Mapping[str, Any], connect: Connect) -> list[tuple[str, float]]:
    async with connect(job) as verbs:
        for call in job["before"]:
            await _one(verbs, call)
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        return await asyncio.gather(*(_one(verbs, call) for call in job["calls"]))


async def _one(verbs: Mapping[str, Verb], call: Mapping[str, Any]) -> tuple[str, float]:
    """How it ended, and after how many seconds."""
    await asyncio.sleep(call["start"])
    started = time.perf_counter()
    task = asyncio.ensure_future(verbs[call["verb"]](int(call["channel"]), int(call["name"])))
    if call["cancel"] is not None:
        asyncio.get_running_loop().call_later(call["cancel"], task.cancel)
    await asyncio.wait([task])
    seconds = time.perf_counter() - started
    if task.cancelled():
        return "cancelled", seconds
    error = task.exception()
    return ("ok" if error is None else f"{type(error).__name__}: {error}"), seconds
