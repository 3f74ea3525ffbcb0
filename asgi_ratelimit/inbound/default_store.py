"""The store of an app whose limiters were given none: the middleware and the routes of one app share it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from starlette.types import Scope

from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.store import Store

__all__ = ["store_of_app"]

_STORE = "ratelimit_store"  # its name in `app.state`, or in a router
_lock = threading.Lock()


def store_of_app(scope: Scope, make: Callable[[], Store] = MemoryStore) -> Store | None:
    """The store in the state of the app that serves this scope, made when it is first needed. None: it has no place.

    A router of Starlette that is served without an app keeps it itself.
    """
    app = scope.get("app")
    state = scope.get("router") if app is None else getattr(app, "state", None)
    store: Store | None = getattr(state, _STORE, None)
    return _store_made_once(state, make) if store is None else store


def _store_made_once(state: object, make: Callable[[], Store]) -> Store | None:
    with _lock:
        store: Store | None = getattr(state, _STORE, None)
        if store is None:
            store = make()
            try:
                setattr(state, _STORE, store)
            except AttributeError:  # there is no state, or one that cannot be changed
                return None
        return store
