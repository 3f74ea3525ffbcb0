"""What can be done to a FakeDiscord at any time: stop it, break it, slow it down, hold its answers, change it."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack
from random import Random
from typing import Literal, get_args

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.testing.fake_discord.buckets import FakeBuckets, Refusal
from asgi_ratelimit.testing.fake_discord.endpoints import World
from asgi_ratelimit.testing.fake_discord.faults import ORDERS, Fault, Held, Order, When, WhenDropped
from asgi_ratelimit.testing.fake_discord.options import in_us, retry_after_of, template_of
from asgi_ratelimit.testing.fake_discord.responses import DROPPED, FakeResponse, broken

__all__ = ["Orders"]


class Orders:
    """The verbs of a FakeDiscord that change it, and what they have ordered."""

    def __init__(self, clock: Clock, buckets: FakeBuckets, world: World, random: Random) -> None:
        self.clock = clock
        self.order: Order = "arrival"  # in which held answers are released: also "reverse" or "shuffled"
        self._buckets, self._world = buckets, world
        self._stopped_until_us = self._banned_until_us = 0
        self._stops_interactions = False
        self._faults: list[Fault[FakeResponse]] = []
        self._orders: list[Fault[Refusal]] = []
        self._delays: list[Fault[float]] = []
        self._held = Held(random)

    def change_hash(self, route: str, new: str) -> None:
        """Another hash for the bucket of a route in `limits`. What is used of it stays used, unless other routes share
        the old hash (then it gets a new bucket) or the new one (then it joins their bucket)."""
        self._buckets.change_hash(route, new)

    def stop(self, seconds: float, *, interactions: bool = False) -> None:
        """Refuse everything with a global 429 for so long; 0 ends it.

        Callbacks and follow-ups of interactions pass; with `interactions` they are refused, too, as Discord may do.
        """
        self._stopped_until_us = self._us_from_now(seconds)
        self._stops_interactions = interactions

    def ban(self, seconds: float) -> None:
        """Refuse everything as Cloudflare does (no Via, HTML, "error code: 1015") for so long; 0 ends it."""
        self._banned_until_us = self._us_from_now(seconds)

    def fail(
        self, status: int = 503, *, times: int = 1, html: bool = False, when: When = "before", route: str | None = None
    ) -> None:
        """Answer the next requests (those to `route` only) with an error instead.

        "before": nothing was carried out or counted. "after": it was, but the client does not learn of it. Only
        requests that would have succeeded count.
        """
        if isinstance(status, bool) or not isinstance(status, int) or not 400 <= status <= 599 or status == 429:
            raise ValueError(f"a request fails with 400 to 599, e.g. fail(503); for a 429 use refuse(), not {status!r}")
        if when not in get_args(When):
            raise ValueError(f'a failure comes when="before" or "after" the request is carried out, not {when!r}')
        self._faults.append(Fault(broken(status, html=html), times, when, template_of(route)))

    def drop(self, *, times: int = 1, when: WhenDropped = "before", route: str | None = None) -> None:
        """Break the connection of the next requests instead of answering, before or after they are carried out.

        "within": after they are, and with the headers and half of the body on their way. The client sees a reset under
        uvicorn ("within": an answer that is too short), and a ConnectionResetError through httpx.ASGITransport.
        """
        self._faults.append(Fault(FakeResponse(DROPPED, []), times, when, template_of(route)))

    def slow(self, seconds: float, *, times: int = 1, route: str | None = None) -> None:
        """Answer the next requests so many seconds later. They take effect when they arrive, as always."""
        self._delays.append(Fault(in_us("seconds", seconds) / 1e6, times, "after", template_of(route)))

    def refuse(
        self,
        route: str | None,
        retry_after: float | None,
        *,
        scope: Literal["user", "shared", "global"] = "user",
        remaining: int | None = None,
        bucket: str | None = None,
        times: int = 1,
    ) -> None:
        """Answer the next request to this route (None: to any) with a 429 that asks for `retry_after` seconds.

        They are written as they are, also 0, -1 and 0.001; None: the 429 names no time. Its bucket does not matter, and
        nothing is charged. `remaining` and `bucket` appear in the headers.
        """
        if scope not in ("user", "shared", "global"):
            raise ValueError(f'scope must be "user", "shared" or "global", not {scope!r}')
        order = Refusal(retry_after_of(retry_after), scope, remaining, bucket)
        self._orders.append(Fault(order, times, "before", template_of(route)))

    def hold(self, order: Order | None = None) -> AbstractContextManager[object]:
        """From now on answers wait, though their requests are carried out, until `release` or the end of a `with`."""
        self.order = self.order if order is None else order
        self._held.closed = True
        holding = ExitStack()
        holding.callback(self.release)
        return holding

    def release(self, count: int | None = None, *, order: Order | None = None) -> None:
        """Let so many of the held answers go; None: all of them, and hold no more.

        `order` (else `fake.order`) is "arrival", "reverse" or "shuffled".
        """
        chosen = self.order if order is None else order
        if chosen not in ORDERS:
            raise ValueError(f'the order of answers is "arrival", "reverse" or "shuffled", not {chosen!r}')
        self._held.closed = self._held.closed and count is not None
        self._held.release(count, chosen)

    def delete_message(self, message_id: str | int) -> None:
        """From now on it is unknown, as if somebody else had deleted it: 404 with code 10008."""
        self._world.gone.add(str(message_id))

    def kill_webhook(self, webhook_id: str | int) -> None:
        """From now on it is unknown: 404 with code 10015."""
        self._world.kill_webhook(str(webhook_id))

    def _us_from_now(self, seconds: float) -> int:
        return self.clock.now_us() + in_us("seconds", seconds)
