"""Which requests a limit counts: by method, by path, or by a function of the connection."""

from __future__ import annotations

import re
from collections.abc import Iterable
from inspect import isawaitable

from starlette.requests import HTTPConnection
from starlette.types import Scope

from asgi_ratelimit.inbound.options import ExemptSource
from asgi_ratelimit.inbound.own_limit import has_own_limit
from asgi_ratelimit.inbound.request_state import app_path

__all__ = ["RequestFilter", "request_filter"]


class RequestFilter:
    """The requests that are counted.

    exempt: paths that are not counted, or a function of the connection
    methods: the methods that are counted; empty: all. A WebSocket has none, and is counted
    default: whether a route with a limit of its own is left to that
    """

    def __init__(self, exempt: ExemptSource, methods: Iterable[str], default: bool) -> None:
        self._exempt = exempt if callable(exempt) else _path_pattern(exempt)
        self._methods = _checked_methods(methods)
        self._default = default

    async def counts(self, scope: Scope) -> bool:
        """Whether a request is counted."""
        if not self.counts_method(scope):
            return False
        if self._default and has_own_limit(scope):
            return False
        if callable(self._exempt):
            exempt = self._exempt(HTTPConnection(scope))
            return not (await exempt if isawaitable(exempt) else exempt)
        return self._exempt is None or self._exempt.fullmatch(app_path(scope)) is None

    def counts_method(self, scope: Scope) -> bool:
        """Whether requests of this method are counted."""
        return not self._methods or scope.get("method", "") in self._methods


def request_filter(
    exempt: ExemptSource = (), methods: Iterable[str] = (), *, default: bool = False
) -> RequestFilter | None:
    """The filter of these options; None: every request is counted. Raises ValueError if one is out of range."""
    made = RequestFilter(exempt, methods, default)
    return None if not exempt and not methods and not default else made


def _checked_methods(methods: Iterable[str]) -> frozenset[str]:
    if isinstance(methods, str) or not all(isinstance(method, str) and method.isalpha() for method in methods):
        raise ValueError(f'methods is a list of HTTP methods such as ("POST", "PUT"), not {methods!r}')
    names = frozenset(method.upper() for method in methods)
    return names | {""} if names else names


def _path_pattern(paths: Iterable[str]) -> re.Pattern[str] | None:
    paths = tuple(paths) if not isinstance(paths, str) else (paths,)
    for path in paths:
        if not isinstance(path, str) or not path.startswith(("/", "*")):
            raise ValueError(f'an exempt path looks like "/health" or "/static/*", not {path!r}')
    return re.compile("|".join(re.escape(path).replace(r"\*", ".*") for path in paths), re.DOTALL) if paths else None
