"""The names of the buckets of limits without a name: the path template, and a number where limits would share them.

Several limits on one route, or on the methods of one path, may have the same kind and period. The first one in the
order of the routes has the path template for its name. A later one that would share its buckets has "#2" behind it, and
so on. The order is that of the code, so each process finds the same names, and a limit whose count changes keeps them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from typing import Any, NamedTuple

from starlette.types import Scope

from asgi_ratelimit.fastapi.wrapped import WrappedApp
from asgi_ratelimit.inbound.own_limit import dependency_calls, every_route, layers
from asgi_ratelimit.inbound.route_names import matched_route
from asgi_ratelimit.limits import Limit

__all__ = ["Claim", "bucket_name"]


class Claim(NamedTuple):
    """The buckets that a limit without a name lays claim to. Equal claims on several routes of a path share them."""

    source: object  # the limits, or the function that chooses them
    identities: frozenset[object] | None  # of the limits that have a bucket per path; None: not known

    @classmethod
    def of(cls, source: object, fixed: tuple[Limit, ...] | None) -> Claim:
        if fixed is None:
            return cls(source if isinstance(source, Hashable) else id(source), None)
        return cls(fixed, frozenset(limit.identity for limit in fixed if limit.scope != "global"))

    def collides(self, other: Claim) -> bool:
        """Whether some bucket would be both's."""
        if self.identities is None or other.identities is None:
            return True
        return not self.identities.isdisjoint(other.identities)


Place = tuple[Claim, int]  # a claim, and how many limits before it on the same route have an equal one


def bucket_name(limit: object, scope: Scope, template: str) -> str:
    """The name of a limit's buckets on the route that a request has matched."""
    places: list[Place] = []
    own: Place | None = None
    for route in _routes_of_path(scope):
        seen: Counter[Claim] = Counter()
        for one, claim in _claims(route):
            place = claim, seen[claim]
            seen[claim] += 1
            if place not in places:
                places.append(place)
            if one is limit and own is None:
                own = place
    if own is None:
        return template
    index = places.index(own)
    is_alone = not any(own[0].collides(claim) for claim, _ in places[:index])
    return template if is_alone else f"{template}#{index + 1}"


def _routes_of_path(scope: Scope) -> Iterator[Any]:
    """The routes of the app that have the path of the matched one."""
    matched = matched_route(scope)
    path = getattr(matched, "path", None)
    app = scope.get("app") or scope.get("router")
    if path is not None:
        yield from (route for route in every_route(getattr(app, "routes", ())) if getattr(route, "path", None) == path)


def _claims(route: Any) -> Iterator[tuple[object, Claim]]:
    """The limits of a route that have no name, each once, in the order in which they are asked."""
    found: list[object] = []
    for one in (*layers(getattr(route, "app", None)), *dependency_calls(getattr(route, "dependant", None))):
        limit = one.limit if isinstance(one, WrappedApp) else one
        claim = getattr(limit, "claim", None)
        if isinstance(claim, Claim) and not any(limit is other for other in found):
            found.append(limit)
            yield limit, claim
