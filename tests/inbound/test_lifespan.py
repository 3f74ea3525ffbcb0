"""The lifespan of an app with a store: whatever the store does, the server learns of it, and the app ends well."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest
from starlette.applications import Starlette
from starlette.types import ASGIApp, Receive, Scope, Send

from asgi_ratelimit import MemoryStore, RateLimitMiddleware, StoreUnavailable
from tests.support.asgi import Exchange

pytestmark = pytest.mark.anyio

COMPLETE = ["lifespan.startup.complete", "lifespan.shutdown.complete"]


class TroubledStore(MemoryStore):
    """A store with a start and an end of its own, either of which may fail. It records what happens to it."""

    def __init__(self, events: list[str], *, start: Exception | None = None, aclose: Exception | None = None) -> None:
        super().__init__()
        self._events, self._start, self._aclose = events, start, aclose

    async def start(self) -> None:
        self._events.append("store starts")
        if self._start is not None:
            raise self._start

    async def aclose(self) -> None:
        self._events.append("store closed")
        if self._aclose is not None:
            raise self._aclose


def app_of(events: list[str], *, start: Exception | None = None, end: Exception | None = None) -> Starlette:
    """An app that records its life. Either end of it may fail."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        events.append("app starts")
        if start is not None:
            raise start
        yield
        events.append("app ends")
        if end is not None:
            raise end

    return Starlette(lifespan=lifespan)


async def life(app: ASGIApp) -> Exchange:
    """The exchange of a server that starts the app, and ends it."""
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    exchange = Exchange(app, scope, {"type": "lifespan.startup"}, {"type": "lifespan.shutdown"})
    await asyncio.wait([exchange.task])
    return exchange


async def test_a_store_starts_before_the_app_and_is_closed_after_it() -> None:
    events: list[str] = []
    exchange = await life(RateLimitMiddleware(app_of(events), limit="5/s", store=TroubledStore(events)))
    assert exchange.types == COMPLETE
    assert events == ["store starts", "app starts", "app ends", "store closed"]


@pytest.mark.parametrize("around", [True, False], ids=["around the app", "within the app"])
@pytest.mark.parametrize(
    "error",
    [RuntimeError("no credentials"), TypeError("no credentials"), StoreUnavailable("no credentials")],
    ids=lambda error: type(error).__name__,
)
async def test_a_store_that_does_not_start_fails_the_start_of_the_app(error: Exception, around: bool) -> None:
    events: list[str] = []
    app, store = app_of(events), TroubledStore(events, start=error)
    if around:
        exchange = await life(RateLimitMiddleware(app, limit="5/s", store=store))
    else:
        app.add_middleware(RateLimitMiddleware, limit="5/s", store=store)
        exchange = await life(app)
    assert exchange.types == ["lifespan.startup.failed"]
    assert "no credentials" in exchange.sent[0]["message"]
    assert ("Traceback" in exchange.sent[0]["message"]) is not isinstance(error, StoreUnavailable)
    assert exchange.task.exception() is error
    assert events == ["store starts", "store closed"]


async def test_a_store_without_a_start_fails_the_start_of_the_app() -> None:
    store = TroubledStore([])
    store.start = lambda: None  # type: ignore[method-assign, assignment, return-value]
    exchange = await life(RateLimitMiddleware(app_of([]), limit="5/s", store=store))
    assert exchange.types == ["lifespan.startup.failed"]


async def test_an_app_that_passes_on_the_failure_itself_does_not_do_it_twice() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
        except RuntimeError:
            await send({"type": "lifespan.startup.failed"})

    exchange = await life(
        RateLimitMiddleware(app, limit="5/s", store=TroubledStore([], start=RuntimeError("no credentials")))
    )
    assert exchange.types == ["lifespan.startup.failed"]
    assert "no credentials" in exchange.sent[0]["message"]


async def test_a_store_that_cannot_be_closed_is_logged_and_the_app_ends_well(caplog: pytest.LogCaptureFixture) -> None:
    events: list[str] = []
    store = TroubledStore(events, aclose=RuntimeError("no good-bye"))
    exchange = await life(RateLimitMiddleware(app_of(events), limit="5/s", store=store))
    assert exchange.types == COMPLETE
    assert exchange.task.exception() is None
    assert "no good-bye" in caplog.text


async def test_a_store_that_can_neither_start_nor_be_closed_names_its_first_trouble() -> None:
    store = TroubledStore([], start=RuntimeError("no credentials"), aclose=RuntimeError("no good-bye"))
    exchange = await life(RateLimitMiddleware(app_of([]), limit="5/s", store=store))
    assert exchange.types == ["lifespan.startup.failed"]
    assert "no credentials" in exchange.sent[0]["message"]


async def test_a_store_is_closed_once_if_the_app_does_not_start_or_does_not_end_well() -> None:
    for trouble in ("start", "end"):
        events: list[str] = []
        app = app_of(events, **{trouble: ValueError("of the app")})
        exchange = await life(RateLimitMiddleware(app, limit="5/s", store=TroubledStore(events)))
        assert exchange.types[-1] == ("lifespan.startup.failed" if trouble == "start" else "lifespan.shutdown.failed")
        assert events.count("store closed") == 1


async def test_a_store_is_closed_if_the_server_gives_up_on_the_app() -> None:
    events: list[str] = []
    app = RateLimitMiddleware(app_of(events), limit="5/s", store=TroubledStore(events))
    exchange = Exchange(app, {"type": "lifespan", "state": {}}, {"type": "lifespan.startup"})
    await exchange.settled()
    exchange.task.cancel()
    with suppress(asyncio.CancelledError):
        await exchange.task
    assert events[-1] == "store closed"


async def test_the_store_of_an_app_without_a_lifespan_is_left_alone() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        raise ValueError("only HTTP here")  # as Django does

    events: list[str] = []
    exchange = await life(RateLimitMiddleware(app, limit="5/s", store=TroubledStore(events)))
    assert exchange.types == events == []
    assert isinstance(exchange.task.exception(), ValueError)
