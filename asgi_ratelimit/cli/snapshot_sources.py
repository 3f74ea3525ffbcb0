"""Where the counts of an app come from: the Redis on which its processes share them, or its operator's page."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol

import httpx

from asgi_ratelimit.cli.http_headers import without_user
from asgi_ratelimit.cli.redis_limiter import open_store
from asgi_ratelimit.cli.running import NoAnswer, cause_of
from asgi_ratelimit.observe import Snapshot, shared_snapshot

__all__ = ["Source", "page_source", "redis_source"]

_SECONDS = 10.0  # for one answer of the page


class Source(Protocol):
    """The counts of all processes, as they are now."""

    async def __call__(self) -> Snapshot:
        """Raises StoreUnavailable or NoAnswer if they cannot be had."""
        ...


@asynccontextmanager
async def redis_source(url: str, *, prefix: str, secret: bytes | None, timeout: float) -> AsyncIterator[Source]:
    """What the processes share on a Redis."""
    async with open_store(url, prefix=prefix, secret=secret, timeout=timeout) as store:

        async def read() -> Snapshot:
            return await shared_snapshot(store)

        yield read


@asynccontextmanager
async def page_source(
    url: str, headers: Sequence[tuple[str, str]], *, seconds: float = _SECONDS
) -> AsyncIterator[Source]:
    """What an operator's page shows. Raises ValueError if it is no URL."""
    address = _state_of_page(url)
    shown = str(address.copy_with(username=None, password=None, query=None))
    fixed = httpx.Headers([("user-agent", "asgi-ratelimit top"), *headers])
    async with httpx.AsyncClient(headers=fixed, timeout=seconds) as client:

        async def read() -> Snapshot:
            try:
                async with asyncio.timeout(seconds):  # httpx waits so long for each piece of an answer
                    response = await client.get(without_user(address, fixed))
            except (TimeoutError, httpx.TimeoutException):
                raise NoAnswer(f"{shown} does not answer: it took too long.") from None
            except httpx.HTTPError as error:
                raise NoAnswer(f"{shown} does not answer: {cause_of(error)}.") from None
            return _snapshot_in(response, shown)

        yield read


def _state_of_page(url: str) -> httpx.URL:
    try:
        page = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        page = httpx.URL("")
    if page.scheme not in ("http", "https") or not page.host:
        raise ValueError("--url is the address of an operator's page, such as https://example.com/operator")
    path = page.path.rstrip("/")
    return page.copy_with(path=path if path.endswith("/state") else f"{path}/state")


def _snapshot_in(response: httpx.Response, shown: str) -> Snapshot:
    status = response.status_code
    if status in (401, 403) or response.is_redirect:
        raise NoAnswer(f"{shown} does not let us in (status {status}): give --header with a log-in or a cookie.")
    if status != 200:
        raise NoAnswer(f"{shown} has no counts (status {status}): --url is where the operator's page is.")
    try:
        return Snapshot.from_dict(_as_shared(json.loads(response.content)))
    except (ValueError, RecursionError):
        raise NoAnswer(f"{shown} does not answer as an operator's page does.") from None


def _as_shared(state: Any) -> Any:
    """The state of the page in the form of `Snapshot.to_dict`: it has periods as columns, for its charts."""
    if not isinstance(state, Mapping) or not isinstance(state.get("limiters"), list):
        raise ValueError("it has no limiters")
    return {**state, "limiters": [_limiter(one) for one in state["limiters"]]}


def _limiter(counts: Any) -> Any:
    if not isinstance(counts, Mapping):
        return counts
    periods = {name: _rows(counts.get(name, [])) for name in ("minutes", "hours")}
    busiest = counts.get("busiest")
    if isinstance(busiest, Mapping) and "total" in busiest:
        busiest = {"start": busiest.get("start"), "allowed": busiest["total"]}
    return {**counts, **periods, "busiest": busiest}


def _rows(columns: Any) -> Any:
    if not isinstance(columns, Mapping):
        return columns
    names = ("start", "allowed", "refused")
    return [dict(zip(names, row, strict=True)) for row in zip(*(columns.get(name, []) for name in names), strict=False)]
