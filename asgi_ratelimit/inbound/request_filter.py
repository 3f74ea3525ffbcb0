"""Which requests a limit counts: by method, by path, or by a function of the connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from http import HTTPMethod
from inspect import isawaitable
from typing import Any, Final

from starlette.types import Scope

from asgi_ratelimit.inbound.network_file import NetworkFile
from asgi_ratelimit.inbound.network_set import parse_network
from asgi_ratelimit.inbound.options import Choice, ExemptSource, check_call, connection
from asgi_ratelimit.inbound.own_limit import has_own_limit
from asgi_ratelimit.inbound.path_patterns import PathPredicate, app_path, exempting, limiting

__all__ = ["NOTHING", "RequestFilter", "request_filter"]

_SIMILAR = 0.75  # "PSOT" is a POST, "PROPPATCH" is no PATCH
Selection = Callable[[Any], bool | Awaitable[bool]]


class RequestFilter:
    """The requests that are counted.

    exempt: paths that are not counted, functions of the connection, or a list of both
    only: the only paths that are counted, functions, or both; `exempt` makes exceptions from them
    methods: the methods that are counted; empty: all. GET includes HEAD. A WebSocket has none, and is counted
    default: whether a route with a limit of its own is left to that
    app: the app behind the limit
    """

    def __init__(
        self,
        exempt: ExemptSource = (),
        only: ExemptSource | None = None,
        methods: Iterable[str] = (),
        *,
        default: bool = False,
        app: object = None,
    ) -> None:
        exempt_paths, exempt_choices = _split("exempt", exempt)
        only_paths, only_choices = _split("only", () if only is None else only)
        self._exempt_paths = exempting(exempt_paths) if exempt_paths or not exempt_choices else _anything
        is_limited = _nothing if only is None or (only_choices and not only_paths) else limiting(only_paths)
        self._only_paths = _anything if only is None or only_choices else is_limited
        self._exempt = _selection(_nothing if not exempt_paths else self._exempt_paths, exempt_choices)
        self._only = None if only is None else _selection(is_limited, only_choices)
        self._only_is_function = bool(only_choices)
        self._methods = _checked_methods(methods)
        self.default, self._app = default, app

    async def counts(self, scope: Scope) -> bool:
        """Whether a request is counted."""
        if not self.counts_method(scope) or (self.default and has_own_limit(scope, self._app)):
            return False
        for select, selected in ((self._only, False), (self._exempt, True)):
            if select is not None:
                chosen = select(scope)
                if (chosen if isinstance(chosen, bool) else await _truth(chosen)) is selected:
                    return False
        return True

    def may_count(self, method: str, path: str) -> bool:
        """Whether requests of this method and path are counted, unless a function of the user's decides otherwise."""
        if self._methods and method.upper() not in self._methods:
            return False
        return self._only_paths(path) and (self._exempt_paths is _anything or not self._exempt_paths(path))

    def counts_method(self, scope: Scope) -> bool:
        """Whether requests of this method are counted. Some frameworks take `post` for POST."""
        return not self._methods or scope.get("method", "").upper() in self._methods

    def replaces_default(self, scope: Scope) -> bool:
        """Whether a default limit leaves a request to the limit of its route: `exempt` makes exceptions from both.

        It does not if a function as `only` may leave it, too.
        """
        return not self._only_is_function and self.counts_method(scope) and self._only_paths(app_path(scope))


def request_filter(
    exempt: ExemptSource = (),
    only: ExemptSource | None = None,
    methods: Iterable[str] = (),
    *,
    default: bool = False,
    app: object = None,
) -> RequestFilter | None:
    """The filter of these options; None: every request is counted. Raises ValueError if one is out of range."""
    if exempt in ((), []) and only is None and methods in ((), []) and not default:
        return None
    return RequestFilter(exempt, only, methods, default=default, app=app)


def _checked_methods(methods: Iterable[str]) -> frozenset[str]:
    listed = not isinstance(methods, str) and isinstance(methods, Iterable)
    names = tuple(methods) if listed else ()
    if not listed or not all(isinstance(name, str) and name.replace("-", "").isalpha() for name in names):
        raise ValueError(f'methods is a list of HTTP methods such as ("POST", "PUT"), not {methods!r}')
    for name in names:
        if name.upper() not in HTTPMethod.__members__ and (meant := _similar_method(name)):
            raise ValueError(f'methods has {name!r}, which no client sends; write methods=("{meant}",)')
    counted = {name.upper() for name in names}
    if "GET" in counted:  # Starlette's routes answer a HEAD as they do a GET
        counted.add("HEAD")
    return frozenset((*counted, "")) if counted else frozenset()


def _similar_method(name: str) -> str | None:
    from difflib import get_close_matches  # for mistakes only

    return next(iter(get_close_matches(name.upper(), HTTPMethod, 1, _SIMILAR)), None)


def _split(option: str, source: ExemptSource) -> tuple[list[str], list[Choice]]:
    """The paths and the functions of an option."""
    if isinstance(source, (str, NetworkFile)) or callable(source):
        source = [source]
    listed = [*source]
    choices = [each for each in listed if callable(each)]
    for each in listed:
        _check_no_network(option, each)
    for choice in choices:
        check_call(option, choice, "conn")
    return [each for each in listed if not callable(each)], choices


def _check_no_network(option: str, source: object) -> None:
    """Raises ValueError for an address, a network or a file of them: whose address it is has to be said."""
    is_network = isinstance(source, NetworkFile)
    if isinstance(source, str) and not source.startswith(("/", "*")):
        with suppress(ValueError):
            is_network = bool(parse_network(source, option))
    if is_network:
        raise ValueError(
            f"{option} lists paths and functions of the connection: write {option}=by_ip.within({source!r}), or behind "
            f"proxies ClientIP(trusted_proxies=[...]).within({source!r})"
        )


def _selection(is_listed: PathPredicate, choices: Sequence[Choice]) -> Selection:
    """The function of the scope that is true for these paths, and where a function of the user's is."""
    if not choices:
        return lambda scope: is_listed(app_path(scope))
    if len(choices) == 1 and is_listed is _nothing:
        choose = choices[0]
        return lambda scope: choose(connection(scope))

    async def select(scope: Scope) -> bool:
        if is_listed(app_path(scope)):
            return True
        conn = connection(scope)
        for choose in choices:
            if await _truth(choose(conn)):
                return True
        return False

    return select


def _anything(path: str) -> bool:
    return True


def _nothing(path: str) -> bool:
    return False


async def _truth(value: Any) -> bool:
    return bool(await value if isawaitable(value) else value)


class _Nothing(RequestFilter):
    async def counts(self, scope: Scope) -> bool:
        return False


NOTHING: Final = _Nothing()  # what a limit of None counts
