"""Whether the route of a request has a limit of its own, before the request is routed.

A limit of its own is a dependency, or a middleware of the route, whose `replaces_default(scope)` is true.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from starlette.types import Scope

__all__ = ["dependency_calls", "every_route", "has_own_limit", "layers"]

_MOST_LAYERS = 100  # of middleware


def has_own_limit(scope: Scope, wrapped: object) -> bool:
    """Whether the route that the app will choose has a limit of its own.

    wrapped: the app behind the middleware, for a middleware that is around the whole app, which is not in the scope yet
    """
    app = scope.get("app") or next((one for one in layers(wrapped) if hasattr(one, "routes")), None)
    return _found_in(getattr(app, "routes", None) or (), dict(scope))


def _found_in(routes: Iterable[Any], scope: Scope) -> bool:
    """As Starlette's router: the first full match decides. Another method is a 405, before any limit of the route."""
    for route in every_route(routes):
        match, child = route.matches(scope)
        if match.name == "FULL":  # starlette.routing.Match, which an app without Starlette's router need not import
            return _has_limit(route, scope | child)
    return False


def every_route(routes: Iterable[Any]) -> Iterator[Any]:
    """The routes, and those of FastAPI's included routers, which since 0.137 are not copied into the including one."""
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is None:
            yield route
            continue
        for context in contexts():
            yield getattr(context, "starlette_route", None) or context


def _has_limit(route: Any, scope: Scope) -> bool:
    if any(
        _replaces(call, scope)
        for call in (*layers(getattr(route, "app", None)), *dependency_calls(getattr(route, "dependant", None)))
    ):
        return True
    return _found_in(getattr(route, "routes", None) or (), scope)  # of a mount


def layers(app: Any) -> Iterator[Any]:
    """An app and those inside it, from its outermost middleware inwards."""
    for _ in range(_MOST_LAYERS):
        if app is None:
            return
        yield app
        app = getattr(app, "app", None)


def dependency_calls(dependant: Any) -> Iterator[Any]:
    """The functions of all of a route's dependencies."""
    for inner in getattr(dependant, "dependencies", ()):
        yield inner.call
        yield from dependency_calls(inner)


def _replaces(call: Any, scope: Scope) -> bool:
    replaces = getattr(call, "replaces_default", None)
    return replaces is not None and bool(replaces(scope))
