"""The limits of the fake API: buckets under hashes, on routes, per top-level resource."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass
from hashlib import blake2b
from typing import Any, Literal, get_args

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.inbound.headers import RawHeaders, discord_headers
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.limits import FixedWindow, Limit, SlidingWindow, TokenBucket
from asgi_ratelimit.store import Store
from asgi_ratelimit.testing.fake_discord.options import in_us
from asgi_ratelimit.testing.fake_discord.responses import seconds_of
from asgi_ratelimit.testing.fake_discord.routes import Routes, Template

__all__ = ["Asked", "FakeBucket", "FakeBuckets", "GlobalWindow", "Refusal", "RouteBucket", "Verdict", "global_limit_of"]

Body = Mapping[str, Any]
Owner = Literal["token", "address"]
Window = Literal["sliding", "fixed"]
GlobalWindow = Literal["calendar", "fixed", "sliding"]
BucketScope = Literal["user", "shared"]


@dataclass(frozen=True, slots=True)
class FakeBucket:
    """One limit of a route, as FakeDiscord keeps it.

    limit: a string, e.g. "5/2s"
    window: "sliding" refills one by one, as most of Discord's buckets do; "fixed" all at once, at the end of the window
        that its first request opened
    hash: its X-RateLimit-Bucket, by default made from the route; routes with the same hash share the bucket
    hidden: True: only its 429s show it
    scope: "user", or "shared" for one bucket of all tokens, with Discord's other kind of 429: some remain, and
        X-RateLimit-Reset-After is not the wait
    per: the parameters of the path that have buckets of their own, by default the top-level resource
    only_if: a function of the JSON body that makes it a sub-limit: its 429 shows the route's other bucket
    older_than: seconds; a sub-limit, too, for messages of that age, e.g. 3600 for edits and code=30046
    gone: True: it counts only requests about messages that are deleted already, as its 404s; False: only the others
    by: "token" (without one, the address), or "address" for one count of everybody there
    own: True: it shows its hash, but counts for itself, though another route shows that hash as well
    code: the `code` in the body of its 429s

    Raises ValueError if an option is out of range.
    """

    limit: str
    _: KW_ONLY
    window: Window = "sliding"
    hash: str | None = None
    hidden: bool = False
    scope: BucketScope = "user"
    per: Sequence[str] | None = None
    only_if: Callable[[Body], bool] | None = None
    older_than: float | None = None
    gone: bool | None = None
    by: Owner = "token"
    own: bool = False
    code: int | None = None

    def __post_init__(self) -> None:
        if self.window not in get_args(Window):
            raise ValueError(f'the window of a FakeBucket is "sliding" or "fixed", not {self.window!r}')
        if self.scope not in get_args(BucketScope):
            raise ValueError(f'the scope of a FakeBucket is "user" or "shared", not {self.scope!r}')
        if self.hash is not None and not (isinstance(self.hash, str) and self.hash):
            raise ValueError(f'the hash of a FakeBucket is a string, e.g. "{_derived("abc")}", not {self.hash!r}')
        if isinstance(self.per, str):
            raise ValueError(f'per lists parameters, e.g. per=("channel_id",), not {self.per!r}')
        if self.only_if is not None and not callable(self.only_if):
            raise ValueError(
                f'only_if is a function of the body, e.g. lambda body: "name" in body, not {self.only_if!r}'
            )
        if self.by not in get_args(Owner):
            raise ValueError(f'a FakeBucket counts by "token" or "address", not {self.by!r}')
        self._check_what_it_concerns()
        self.as_limit()

    def _check_what_it_concerns(self) -> None:
        if self.older_than is not None:
            in_us("older_than", self.older_than)
        if not (self.gone is None or isinstance(self.gone, bool)):
            raise ValueError(f"a FakeBucket takes gone=True, False or None, not {self.gone!r}")
        if not isinstance(self.own, bool):
            raise ValueError(f"a FakeBucket takes own=True or False, not {self.own!r}")
        if self.code is not None and (isinstance(self.code, bool) or not isinstance(self.code, int)):
            raise ValueError(f"the code of a FakeBucket is a number, e.g. code=30046, not {self.code!r}")

    @property
    def is_sub_limit(self) -> bool:
        return self.only_if is not None or self.older_than is not None

    def as_limit(self) -> Limit:
        kind = TokenBucket if self.window == "sliding" else FixedWindow
        return kind(self.limit, scope=self.scope)


@dataclass(frozen=True, slots=True)
class Verdict:
    """The decision of a route's buckets about one request: the headers of one of them, and the wait."""

    headers: RawHeaders
    hash: str | None = None
    scope: BucketScope = "user"
    refuses: bool = False
    retry_after: float | None = None  # of a refusal, in seconds
    code: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """A 429 that was ordered for the next request to a route."""

    retry_after: float | None
    scope: Literal["user", "shared", "global"]
    remaining: int | None
    bucket: str | None

    @property
    def wait_us(self) -> int:
        return max(0, round(1e6 * (self.retry_after or 0.0)))


@dataclass(frozen=True, slots=True)
class Asked:
    """What the buckets know of a request. `age` and `is_gone` are those of the message that it names."""

    token: str
    address: str
    parameters: Mapping[str, str]
    body: Callable[[], Body]
    age: float
    is_gone: bool
    wall: float


@dataclass(slots=True)
class _Bucket:
    """The limiter that routes with one hash share."""

    hash: str
    limiter: Limiter


@dataclass(slots=True)
class RouteBucket:
    """A bucket where it stands on a route."""

    spec: FakeBucket
    per: tuple[str, ...]
    bucket: _Bucket

    @property
    def is_plain(self) -> bool:
        """Whether a success shows it, and the 429 of a sub-limit beside it."""
        return not (self.spec.hidden or self.spec.is_sub_limit or self.spec.scope == "shared")

    def concerns(self, asked: Asked) -> bool:
        spec = self.spec
        if spec.gone is not None and spec.gone != asked.is_gone:
            return False
        if spec.older_than is not None and asked.age <= spec.older_than:
            return False
        return spec.only_if is None or bool(spec.only_if(asked.body()))

    async def take(self, asked: Asked) -> Decision:
        return await self.bucket.limiter.try_acquire(self._owner(asked), per=self._resource(asked))

    async def peek(self, asked: Asked) -> Decision:
        return await self.bucket.limiter.peek(self._owner(asked), per=self._resource(asked))

    def _owner(self, asked: Asked) -> str:
        return asked.address if self.spec.by == "address" else asked.token

    def _resource(self, asked: Asked) -> str:
        return "/".join(asked.parameters[name] for name in self.per)

    def headers(self, decision: Decision, wall: float) -> RawHeaders:
        shown = self.bucket.hash.encode("utf-8")
        headers = discord_headers(decision, wall, refused=False)
        return [(name, shown if name == b"x-ratelimit-bucket" else value) for name, value in headers]


class FakeBuckets:
    """All buckets of the fake API. ValueError for a mapping that makes no sense."""

    def __init__(self, limits: Mapping[str, str | FakeBucket | Iterable[str | FakeBucket]], store: Store) -> None:
        if not isinstance(limits, Mapping):
            raise ValueError(
                f'limits map routes to buckets: {{"POST /channels/{{channel_id}}/messages": "5/5s"}}, not {limits!r}'
            )
        self._store = store
        self._made = 0
        self._buckets: dict[str, _Bucket] = {}
        self.routes: Routes[list[RouteBucket]] = Routes()
        for name, specs in limits.items():
            template = Template(name)
            self.routes.add(template, [self._place(template, spec, i) for i, spec in enumerate(_specs(name, specs))])

    def change_hash(self, name: str, new: str) -> None:
        """Another hash for the bucket that a route shows. Its use stays, unless other routes share the former hash."""
        places = next((places for template, places in self.routes if template.name == name), None)
        if places is None:
            names = ", ".join(repr(template.name) for template, _ in self.routes)
            raise ValueError(f"change_hash takes a route that has a bucket, one of {names}; not {name!r}")
        place = next((place for place in places if place.is_plain), places[0])
        others = [other for _, places in self.routes for other in places if other is not place]
        if new in self._buckets:
            place.bucket = self._buckets[new]
        elif any(other.bucket is place.bucket for other in others):
            place.bucket = self._bucket(new, place.spec.as_limit())
        else:
            self._buckets[new] = self._buckets.pop(place.bucket.hash, place.bucket)
            place.bucket.hash = new

    async def decide(self, route: Sequence[RouteBucket], asked: Asked) -> Verdict:
        """Charge every bucket of the route that the request concerns, or none."""
        charged: list[tuple[RouteBucket, Decision]] = []
        places = [place for place in route if place.concerns(asked)]
        for place in places:
            decision = await place.take(asked)
            if not decision.allowed:
                for earlier, charge in charged:
                    await earlier.bucket.limiter.refund(charge)
                return await self._refused(place, decision, places, asked)
            charged.append((place, decision))
        shown = [entry for entry in charged if entry[0].is_plain] or [e for e in charged if e[0].spec.scope == "shared"]
        if not shown or shown[0][0].spec.hidden:
            return Verdict([])
        place, decision = shown[0]
        return Verdict(place.headers(decision, asked.wall), place.bucket.hash)

    async def refuse(self, order: Refusal, route: Sequence[RouteBucket], name: str, asked: Asked) -> Verdict:
        """The refusal that was ordered, in the words of the bucket that the route shows."""
        place = next((place for place in route if place.is_plain), None) or self._stand_in(name)
        decision = await place.peek(asked)
        scope: BucketScope = "shared" if order.scope == "shared" else "user"
        left = order.remaining
        if left is None:
            left = 0 if scope == "user" else max(1, decision.limit - 1)
        reset_us = order.wait_us if left == 0 else _slot_us(decision)
        decision = _measured(decision, left, reset_us, order.wait_us)
        shown = order.bucket or place.bucket.hash
        headers = place.headers(decision, asked.wall)
        headers = [(key, shown.encode() if key == b"x-ratelimit-bucket" else value) for key, value in headers]
        return Verdict(headers, shown, scope, refuses=True, retry_after=order.retry_after)

    async def _refused(
        self, place: RouteBucket, decision: Decision, places: Sequence[RouteBucket], asked: Asked
    ) -> Verdict:
        wait_us, scope, code = decision.retry_us, place.spec.scope, place.spec.code
        outer = next((other for other in places if other.is_plain), None)
        if outer is not None and not (place.is_plain or place.spec.hidden):
            place, decision = outer, await outer.peek(asked)
        elif scope == "shared":
            # As if the bucket were the client's own and this were the first request.
            decision = _measured(decision, max(1, decision.limit - 1), _slot_us(decision), wait_us)
        headers, shown = place.headers(decision, asked.wall), place.bucket.hash
        return Verdict(headers, shown, scope, refuses=True, retry_after=seconds_of(wait_us), code=code)

    def _place(self, template: Template, spec: FakeBucket, number: int) -> RouteBucket:
        per = template.major if spec.per is None else tuple(spec.per)
        unknown = [name for name in per if name not in template.parameters]
        if unknown:
            raise ValueError(f"{template.name!r} has no parameter {unknown[0]!r}; per= may name {template.parameters}")
        key = spec.hash or _derived(template.name if number == 0 else f"{template.name} {number}")
        if spec.own:
            return RouteBucket(spec, per, self._new_bucket(key, spec.as_limit()))
        bucket = self._buckets.get(key) or self._bucket(key, spec.as_limit())
        if bucket.limiter.limits != (spec.as_limit(),):
            raise ValueError(
                f"routes with one hash share one bucket, but {key!r} is {bucket.limiter.limits[0]!r}"
                f" and {spec.as_limit()!r}; write the same limit for both, or own=True"
            )
        return RouteBucket(spec, per, bucket)

    def _bucket(self, key: str, limit: Limit) -> _Bucket:
        bucket = self._buckets[key] = self._new_bucket(key, limit)
        return bucket

    def _new_bucket(self, key: str, limit: Limit) -> _Bucket:
        self._made += 1
        return _Bucket(key, Limiter(limit, store=self._store, name=f"{self._made} {key}"))

    def _stand_in(self, name: str) -> RouteBucket:
        """For a route without a bucket of its own."""
        return RouteBucket(FakeBucket("1/s"), (), _Bucket(_derived(name), Limiter("1/s", store=self._store, name=name)))


class _CalendarWindow(FixedWindow):
    """`count` in each whole period of the clock, whenever the first request comes."""

    __slots__ = ()

    def fresh(self, now_us: int) -> tuple[int, int, int, int]:
        return (now_us - now_us % self.rate.period_us + self.rate.period_us, 0, 0, 0)


def global_limit_of(count: object, window: object) -> Limit | None:
    """The limit on everything that one token asks for in a second; None: there is none."""
    if window not in get_args(GlobalWindow):
        raise ValueError(f'global_window must be "calendar", "fixed" or "sliding", not {window!r}')
    if count is None:
        return None
    if isinstance(count, bool) or not isinstance(count, int) or count < 1:
        raise ValueError(f"global_limit must be requests per second, e.g. 50, or None, not {count!r}")
    kinds: dict[object, type[FixedWindow] | type[SlidingWindow]] = {"fixed": FixedWindow, "sliding": SlidingWindow}
    return kinds.get(window, _CalendarWindow)(f"{count}/s")


def _specs(name: str, specs: object) -> list[FakeBucket]:
    """The buckets of one route, sub-limits last: the bucket that they show is charged first."""
    listed = [specs] if isinstance(specs, (str, FakeBucket)) else specs
    buckets = [
        FakeBucket(spec) if isinstance(spec, str) else spec for spec in (listed if isinstance(listed, Iterable) else ())
    ]
    if not buckets or not all(isinstance(spec, FakeBucket) for spec in buckets):
        raise ValueError(f'{name!r} needs a limit like "5/5s", a FakeBucket or a list of them, not {specs!r}')
    return sorted(buckets, key=lambda spec: spec.is_sub_limit)


def _measured(decision: Decision, *measure: int) -> Decision:
    """The decision with other numbers: remaining, µs until full, µs to wait."""
    remaining, reset_us, retry_us = measure
    return Decision(
        decision.policy,
        decision.cost,
        decision.state,
        decision.now_us,
        decision.allowed,
        measure=(remaining, reset_us, retry_us),
    )


def _slot_us(decision: Decision) -> int:
    return -(-decision.policy.limit.window_us // decision.limit)


def _derived(text: str) -> str:
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
