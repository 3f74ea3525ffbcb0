"""Which route a request has matched: its path template with the prefixes of routers and mounts."""

from __future__ import annotations

from typing import Any

from starlette.routing import Mount

from asgi_ratelimit.inbound.own_limit import every_route

__all__ = ["matched_route", "route_template"]


def matched_route(scope: Any) -> Any:
    """The matched route, with the prefix and the dependencies of the routers that include it. None: none is known."""
    route, fastapi = scope.get("route"), scope.get("fastapi")
    context = fastapi and fastapi.get("effective_route_context")
    if context is not None:
        effective = getattr(context, "starlette_route", None) or context
        if route is effective or route is getattr(context, "original_route", None):
            return effective
    return _route_of_endpoint(scope) if route is None and "endpoint" in scope else route


def _route_of_endpoint(scope: Any) -> Any:
    """The matched route of Starlette in an app of FastAPI, which does not note it in the scope. None: it is a mount."""
    endpoint, app = scope["endpoint"], scope.get("app")
    for route in getattr(app, "routes", ()):
        if getattr(route, "endpoint", None) is endpoint and route.matches(scope)[0].name == "FULL":
            return route
    return None


def route_template(scope: Any) -> str:
    """The path template of the matched route, with the prefixes of its routers and mounts; never a concrete URL."""
    path = getattr(matched_route(scope), "path", "/{path}")
    outer = scope.get("app_root_path")
    prefix = "" if outer is None else scope.get("root_path", "")[len(outer) :]
    return f"{_mount_template(scope, prefix)}{path}" if prefix else path


def _mount_template(scope: Any, prefix: str) -> str:
    if not scope.get("path_params"):
        return prefix
    return _walk(getattr(scope.get("router"), "routes", ()), prefix) or "/{mount}"


def _walk(routes: Any, prefix: str) -> str:
    """The templates of the mounts that a concrete prefix runs through, in the order in which they match."""
    for route in every_route(routes):
        if isinstance(getattr(route, "original_route", route), Mount):
            match = route.path_regex.match(f"{prefix}/")
            if match is None:
                continue
            rest = match.group("path").rstrip("/")
            inner = _walk(route.routes, f"/{rest}") if rest else ""
            if inner or not rest:
                return f"{route.path}{inner}"
    return ""
