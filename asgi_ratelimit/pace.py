"""Bulk work at a steady pace: any async callable, over any number of items."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable, Sized
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import LimitSpec
from asgi_ratelimit.store import Store

__all__ = ["Outcome", "pace"]

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class Outcome(Generic[Item, Result]):
    """The outcome of one item: a `result`, or the `error` that its operation raised."""

    item: Item
    result: Result | None = None
    error: Exception | None = None

    @property
    def ok(self) -> bool:
        """Whether the operation returned."""
        return self.error is None


async def pace(
    items: Iterable[Item] | AsyncIterable[Item],
    operation: Callable[[Item], Awaitable[Result]],
    *,
    limit: LimitSpec | Limiter | None,
    concurrency: int = 1,
    progress: bool = False,
    key: str | Callable[[Item], str] = "pace",
    store: Store | None = None,
) -> AsyncGenerator[Outcome[Item, Result], None]:
    """Run `operation(item)` for every item, no faster than `limit`, up to `concurrency` at a time.

    items: taken one by one, so they may be endless
    operation: any async callable; an item that fails is an outcome, not the end of the run
    limit: a limit, a list of them, or a Limiter to share; None for an operation that paces itself, e.g. a call of a
        DiscordClient
    concurrency: how many items are under way at a time, those that wait for their bucket included
    progress: True draws a tqdm bar (extra: progress)
    key: the key of the bucket, or a function of the item, e.g. for a bucket per channel
    store: a MemoryStore of its own by default

    Yields an Outcome as each item is done. Leaving the loop cancels the items under way. Raises ValueError for a
    concurrency below 1, or a limit that cannot be parsed.
    """
    if isinstance(concurrency, bool) or not isinstance(concurrency, int) or concurrency < 1:
        raise ValueError(f"concurrency must be a whole number of at least 1, not {concurrency!r}")
    limiter = limit if limit is None or isinstance(limit, Limiter) else Limiter(limit, store=store, name="pace")
    source = _each(items)
    bar = _bar(items) if progress else None
    running: set[asyncio.Task[Outcome[Item, Result]]] = set()
    try:
        async for item in source:
            running.add(asyncio.ensure_future(_attempt(item, operation, limiter, key)))
            while len(running) >= concurrency:
                async for outcome in _finished(running, bar):
                    yield outcome
        while running:
            async for outcome in _finished(running, bar):
                yield outcome
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if bar is not None:
            bar.close()


async def _attempt(
    item: Item,
    operation: Callable[[Item], Awaitable[Result]],
    limiter: Limiter | None,
    key: str | Callable[[Item], str],
) -> Outcome[Item, Result]:
    try:
        bucket = key(item) if callable(key) else key
    except Exception as error:
        return Outcome(item, error=error)
    if limiter is not None:
        await limiter.acquire(bucket)  # a store that fails ends the run
    try:
        return Outcome(item, result=await operation(item))
    except Exception as error:
        return Outcome(item, error=error)


async def _finished(
    running: set[asyncio.Task[Outcome[Item, Result]]], bar: Any
) -> AsyncIterator[Outcome[Item, Result]]:
    done, _ = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
    for task in done:
        running.discard(task)
        if bar is not None:
            bar.update()
        yield task.result()


async def _each(items: Iterable[Item] | AsyncIterable[Item]) -> AsyncIterator[Item]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item


def _bar(items: object) -> Any:
    try:
        from tqdm import tqdm
    except ImportError as error:
        raise ImportError("progress=True needs tqdm: pip install 'asgi-ratelimit-discord[progress]'") from error
    return tqdm(total=len(items) if isinstance(items, Sized) else None)
