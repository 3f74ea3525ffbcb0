"""Limits with a key of their own: per address and per account in one list."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import islice
from typing import Any, Final, Literal, NamedTuple

from starlette.requests import Request

from asgi_ratelimit.inbound.client_ip import ClientIP
from asgi_ratelimit.inbound.keys import by_user_or, check_key
from asgi_ratelimit.inbound.options import Key
from asgi_ratelimit.limits import Limit, LimitSpec, as_limits
from asgi_ratelimit.shown import shown

__all__ = ["ChosenLimit", "KeyedLimits", "KeyedSpec", "LimitSource", "by", "keyed_limits"]

_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_TAKEN: Final = ("header", "host", "key", "user", "visitor")  # with which other keys begin
_EXAMPLE: Final = 'by(account_of, "5/15 minutes", name="account")'
_DEEPEST: Final = 10  # lists within each other
_MOST: Final = 100  # limits in one list, as everywhere


class by:  # noqa: N801 - with a key function it reads as the key functions do
    """Limits with a key of their own: `limit=["100/minute", by(account_of, "5/15 minutes")]`.

    key: a function of the connection, sync or async; for a RateLimit also `Depends(account)`, for an InteractionLimit a
        function of the interaction
    limit: a string, a limit, or a list of them
    name: the beginning of its keys, as in "account:alice", and the name of its limits in headers; by default that of
        the function
    optional: whether these limits leave out a request without such a key. Otherwise all of those share one bucket,
        and a warning says so

    All limits of the list are decided and charged together, or none. The key of a block or a reset is the whole text,
    "account:alice". Raises ValueError if an option is out of range.
    """

    __slots__ = ("key", "limits", "name", "optional")

    def __init__(
        self,
        key: Callable[[Any], Key | Awaitable[Key]],
        limit: LimitSpec,
        *,
        name: str | None = None,
        optional: bool = False,
    ) -> None:
        self.key = key
        if not self.is_dependency:
            check_key(key, "by takes")
        if not isinstance(optional, bool):
            raise ValueError(f"optional is True or False, not {optional!r}")
        self.name, self.optional = _checked_name(_name_of(key) if name is None else name, key), optional
        self.limits = tuple([_own(limit, self.name) for limit in as_limits(limit)])

    def __repr__(self) -> str:
        return f"by({self.name}, {[str(limit) for limit in self.limits]})"

    @property
    def is_dependency(self) -> bool:
        """Whether the key is a dependency of FastAPI's, as in `by(Depends(account), "5/minute")`."""
        return not callable(self.key) and hasattr(self.key, "dependency")

    def text(self, key: str) -> str:
        """The key of a bucket. It is no key of another function; "" stays that of requests without any identity."""
        return key and f"{self.name}:{key}"


KeyedSpec = str | Limit | by | Iterable[str | Limit | by]  # one limit or several, some with a key of their own
ChosenLimit = KeyedSpec | Literal[0, False] | None  # 0 and False allow nothing, None anything
LimitSource = KeyedSpec | Callable[[Request], ChosenLimit | Awaitable[ChosenLimit]] | None


class KeyedLimits(NamedTuple):
    """The limits of a list, and the `by` of each; None for one that has the key of the door."""

    limits: tuple[Limit, ...]
    sources: tuple[by | None, ...] | None  # None: all of them have the key of the door


def keyed_limits(value: object) -> KeyedLimits:
    """One limit or several, some of them with a key of their own. Raises ValueError for anything else."""
    if isinstance(value, KeyedLimits):
        return value
    if isinstance(value, (str, Limit)):
        return KeyedLimits(as_limits(value), None)
    pairs = [*islice(_each(value, _DEEPEST), _MOST + 1)]
    sources = tuple([source for _, source in pairs])
    used = {source.name: source for source in sources if source is not None}
    for source in sources:
        if source is not None and source.key is not used[source.name].key:
            raise ValueError(f"two key functions of one list have the name {source.name!r}; name one: {_EXAMPLE}")
    return KeyedLimits(as_limits([limit for limit, _ in pairs]), sources if used else None)


def _each(value: object, depth: int) -> Iterator[tuple[object, by | None]]:
    if isinstance(value, by):
        yield from ((limit, value) for limit in value.limits)
    elif isinstance(value, (str, Limit)) or not isinstance(value, Iterable) or isinstance(value, (bytes, dict)):
        yield value, None
    elif not depth:
        raise ValueError(f'a limit is a string such as "5/5s", a limit, or a list of them, not {shown(value)}')
    else:
        for item in value:
            yield from _each(item, depth - 1)


def _own(limit: Limit, name: str) -> Limit:
    if limit.scope != "user":
        raise ValueError(f"by(...) is for limits with a bucket for each key; {limit!r} has none, so write it beside by")
    return limit.named(name)


def _name_of(key: Any) -> object:
    if isinstance(key, ClientIP):
        return "by_ip"
    if isinstance(key, by_user_or):
        return "by_user_or"
    return getattr(key if callable(key) else key.dependency, "__name__", None)


def _checked_name(name: object, key: object) -> str:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise ValueError(f"by needs a name of letters and digits, which begins its keys, e.g. {_EXAMPLE}, not {name!r}")
    if name in _TAKEN:
        raise ValueError(f"other keys begin with {name!r}; give by another name, e.g. {_EXAMPLE}, not {key!r:.80}")
    return name
