"""Events of routes: named after their path template, or their own name."""

from __future__ import annotations

from collections import Counter
from typing import Annotated

import pytest
from fastapi import Depends, FastAPI

from asgi_ratelimit import Decision, MemoryStore, RateLimitMiddleware
from asgi_ratelimit.events import Event
from asgi_ratelimit.fastapi import RateLimit
from tests.support.asgi import ask

pytestmark = pytest.mark.anyio


ITEMS = RateLimit("2/60s", exempt=("/items/free",))


def app_of(store: MemoryStore) -> FastAPI:
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, limit=None, store=store)

    @app.get("/items/{item_id}")
    def read(item_id: str, decision: Annotated[Decision | None, Depends(ITEMS)]) -> str:
        return item_id

    @app.get("/search", dependencies=[Depends(RateLimit("1/60s", name="search", enforce=False))])
    def search() -> str:
        return "found"

    return app


async def test_routes_are_told_apart_by_template_and_name(store: MemoryStore) -> None:
    events: list[Event] = []
    store.observers.add(events.append)
    app = app_of(store)
    for path in ["/items/1", "/items/2", "/items/3", "/items/free", "/search", "/search", "/search"]:
        await ask(app, path)
    counts = Counter((event.limiter, event.kind) for event in events if event.kind != "near")
    assert counts == {
        ("/items/{item_id}", "allowed"): 2,
        ("/items/{item_id}", "limited"): 1,
        ("/items/{item_id}", "exempt"): 1,
        ("search", "allowed"): 1,
        ("search", "shadow"): 2,
    }


async def test_no_event_names_a_path_or_an_address(store: MemoryStore) -> None:
    events: list[Event] = []
    store.observers.add(events.append)
    await ask(app_of(store), "/items/secret-path")
    assert events
    assert "secret-path" not in repr(events)
    assert "203.0.113.7" not in repr(events)
