"""FakeDiscord: an ASGI app that limits as Discord does, for tests of clients of Discord's API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from email.utils import formatdate
from random import Random
from typing import Any, Literal

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from asgi_ratelimit.clock import Clock, SystemClock
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.testing.fake_discord.buckets import FakeBucket, FakeBuckets, GlobalWindow, Refusal, global_limit_of
from asgi_ratelimit.testing.fake_discord.endpoints import UNKNOWN_WEBHOOK, EndpointCall, World, needs_token
from asgi_ratelimit.testing.fake_discord.faults import ORDERS, Fault, Held, Order, When, break_connection, next_of
from asgi_ratelimit.testing.fake_discord.options import (
    Latency,
    body_of,
    in_us,
    invalid_window,
    latency_of,
    live,
    template_of,
)
from asgi_ratelimit.testing.fake_discord.record import LoggedRequest, RequestLog, json_of
from asgi_ratelimit.testing.fake_discord.responses import (
    DROPPED,
    FakeResponse,
    banned,
    broken,
    error_response,
    limited,
    success,
)
from asgi_ratelimit.testing.fake_discord.routes import Segments, plain_name, segments_of

__all__ = ["FakeDiscord"]


@dataclass(slots=True)
class FakeRequest:
    """A request that has arrived."""

    method: str
    segments: Segments
    query: str
    headers: Headers
    body: bytes
    client: str
    route: str

    @property
    def owner(self) -> str:
        """The owner of its limits: the token, or without one the address."""
        return self.headers.get("authorization") or f"address {self.client}"

    def json(self) -> Mapping[str, Any]:
        content = json_of(self.headers, self.body)
        return content if isinstance(content, Mapping) else {}


class FakeDiscord:
    """Discord's API as far as its limits go: an ASGI app, for `httpx.ASGITransport(app=fake)` or any server.

    limits: routes with a limit, a FakeBucket or a list of them; any other route is only counted globally
    token: the bot's token, else 401; None accepts any
    global_limit: requests of one token (without one, of one address) per second; None: no limit
    global_window: "calendar" (the clock's own whole seconds, as Discord), "fixed" (a second that opens with its first
        request) or "sliding" (any second)
    application_id: its follow-ups of interactions are exempt from the global limit, as callbacks always are
    invalid_limit: 401s, 403s and 429s (except `shared` ones) that one address may cause in 10 minutes; then Cloudflare
        bans it until they are over
    clock: the clock of the limits, e.g. a ManualClock
    wall_skew: seconds by which X-RateLimit-Reset and Date are ahead of the clock
    latency: seconds, (least, most) or a function; half of it passes before a request is counted, half after
    seed: of the random numbers
    record: False keeps counts only

    There is no gateway: a WebSocket is closed. Servers write a Date of their own as well; turn that off if it matters
    (uvicorn: `date_header=False`). Raises ValueError if an option is out of range.
    """

    def __init__(
        self,
        limits: Mapping[str, str | FakeBucket | Iterable[str | FakeBucket]] | None = None,
        *,
        token: str | None = None,
        global_limit: int | None = 50,
        global_window: GlobalWindow = "calendar",
        application_id: str | int | None = None,
        invalid_limit: int = 10_000,
        clock: Clock | None = None,
        wall_skew: float = 0.0,
        latency: Latency = 0.0,
        seed: int = 0,
        record: bool = True,
    ) -> None:
        self.clock: Clock = SystemClock() if clock is None else clock
        self.token = token
        self.wall_skew = wall_skew
        self.order: Order = "arrival"  # in which held answers are released: also "reverse" or "shuffled"
        self._application = None if application_id is None else str(application_id)
        self._random = Random(seed)
        self._latency = latency_of(latency, self._random)
        store = MemoryStore(clock=self.clock)
        self._buckets = FakeBuckets({} if limits is None else limits, store)
        everything = global_limit_of(global_limit, global_window)
        self._global = None if everything is None else Limiter(everything, store=store, name="global")
        self._invalid = Limiter(invalid_window(invalid_limit), store=store, name="invalid requests")
        self._stopped_until_us = self._banned_until_us = 0
        self._faults: list[Fault[FakeResponse]] = []
        self._orders: list[Fault[Refusal]] = []
        self._held = Held(self._random)
        self._record = RequestLog(keeps=record)
        self._world = World(self._application, keeps=record)

    # The record

    @property
    def requests(self) -> list[LoggedRequest]:
        """Every request, in the order in which they were counted."""
        return self._record.requests

    @property
    def refused(self) -> list[LoggedRequest]:
        """The requests that got a 429, Cloudflare's included."""
        return self._record.refused

    @property
    def messages(self) -> list[dict[str, Any]]:
        """Every message that was created, also by webhooks: none lost, none twice?"""
        return self._world.messages

    @property
    def webhooks(self) -> dict[str, str]:
        """The webhooks that were created or used and are not dead: id -> token."""
        return self._world.webhooks

    @property
    def held(self) -> int:
        """How many answers wait to be released."""
        return len(self._held)

    @property
    def created(self) -> int:
        """How many messages were created, `record` or not."""
        return self._world.created

    def count(self, status: int | None = None) -> int:
        """The number of requests with this status (0: a dropped connection), or of all; also without `record`."""
        return self._record.statuses.total() if status is None else self._record.statuses[status]

    def reset_record(self) -> None:
        """Clear the record, but neither the use of the limits nor nonces."""
        self._record.reset()
        self._world.messages.clear()
        self._world.created = 0

    # Changes and faults, at any time

    def change_hash(self, route: str, new: str) -> None:
        """Another hash for the bucket of a route in `limits`. What is used of it stays used, unless other routes share
        the old hash (then it gets a new bucket) or the new one (then it joins their bucket)."""
        self._buckets.change_hash(route, new)

    def stop(self, seconds: float) -> None:
        """Refuse everything with a global 429 for so long; 0 ends it."""
        self._stopped_until_us = self._us_from_now(seconds)

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
        self._faults.append(Fault(broken(status, html=html), times, when, template_of(route)))

    def drop(self, *, times: int = 1, when: When = "before", route: str | None = None) -> None:
        """Break the connection of the next requests instead of answering, before or after they are carried out.

        The client sees a reset under uvicorn, and a ConnectionResetError through httpx.ASGITransport.
        """
        self._faults.append(Fault(FakeResponse(DROPPED, []), times, when, template_of(route)))

    def refuse(
        self,
        route: str | None,
        retry_after: float,
        *,
        scope: Literal["user", "shared", "global"] = "user",
        remaining: int | None = None,
        bucket: str | None = None,
        times: int = 1,
    ) -> None:
        """Answer the next request to this route (None: to any) with a 429 that asks for `retry_after` seconds.

        Its bucket does not matter, and nothing is charged. `remaining` and `bucket` appear in the headers.
        """
        if scope not in ("user", "shared", "global"):
            raise ValueError(f'scope must be "user", "shared" or "global", not {scope!r}')
        order = Refusal(in_us("retry_after", retry_after), scope, remaining, bucket)
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

    def kill_webhook(self, webhook_id: str | int) -> None:
        """From now on it is unknown: 404 with code 10015."""
        self._world.kill_webhook(str(webhook_id))

    # A request

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await live(receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1000})
        elif (body := await body_of(receive)) is not None:
            await self._serve(self._read(scope, body), receive, send)

    def _read(self, scope: Scope, body: bytes) -> FakeRequest:
        segments, method = segments_of(scope["path"]), scope["method"]
        client = (scope.get("client") or ("unknown", 0))[0]
        match = self._buckets.routes.find(method, segments) or self._world.find(method, segments)
        route = match[0].name if match else plain_name(method, segments)
        query = scope.get("query_string", b"").decode("latin-1")
        return FakeRequest(method, segments, query, Headers(raw=scope["headers"]), body, client, route)

    async def _serve(self, request: FakeRequest, receive: Receive, send: Send) -> None:
        half = self._latency() / 2
        await self._travel(half)
        answer = await self._decide_and_log(request)
        await self._travel(half)
        await self._held.pass_through()
        if answer.status == DROPPED:
            await break_connection(receive, send)
            return
        date = formatdate(self._wall(), usegmt=True).encode("ascii")
        headers = [*answer.headers, (b"date", date)]
        if answer.status != 204:  # which must not have one: RFC 9110 §8.6
            headers.append((b"content-length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    async def _decide_and_log(self, request: FakeRequest) -> FakeResponse:
        """Decide about a request, carry it out if it may be, and note it. Nothing else happens in between."""
        now_us = self.clock.now_us()
        answer = await self._answer(request, now_us)
        if answer.invalid:
            await self._invalid.try_acquire(request.client)
        self._record.note(
            LoggedRequest(
                method=request.method,
                path="/" + "/".join(request.segments),
                query=request.query,
                route=request.route,
                status=answer.status,
                at=now_us / 1e6,
                bucket=answer.bucket,
                headers=request.headers,
                body=request.body,
                client=request.client,
                answer=Headers(raw=answer.headers),
            )
        )
        return answer

    async def _answer(self, request: FakeRequest, now_us: int) -> FakeResponse:
        method, segments = request.method, request.segments
        ban_us = self._banned_until_us - now_us
        if ban_us <= 0 and not (used := await self._invalid.peek(request.client)).allowed:
            ban_us = used.retry_us
        if ban_us > 0:
            return banned(ban_us)
        if (fault := next_of(self._faults, "before", method, segments)) is not None:
            return fault
        if not self._is_authorized(request):
            return error_response(401, "401: Unauthorized", 0)
        if (wait_us := await self._global_wait_us(request, now_us)) > 0:
            return limited("global", wait_us)
        answer = await self._limited_answer(request)
        if answer.status < 400 and (fault := next_of(self._faults, "after", method, segments)) is not None:
            return fault
        return answer

    def _is_authorized(self, request: FakeRequest) -> bool:
        if not needs_token(request.method, request.segments):
            return True
        authorization = request.headers.get("authorization", "")
        return bool(authorization) if self.token is None else authorization == f"Bot {self.token}"

    async def _global_wait_us(self, request: FakeRequest, now_us: int) -> int:
        if self._is_exempt(request.segments):
            return 0
        wait_us = self._stopped_until_us - now_us
        if wait_us > 0 or self._global is None:
            return wait_us
        decision = await self._global.try_acquire(request.owner)
        return 0 if decision.allowed else decision.retry_us

    def _is_exempt(self, segments: Segments) -> bool:
        """Interactions are not bound by the global limit: https://discord.com/developers/docs/topics/rate-limits"""
        if segments[0] == "interactions":
            return True
        return segments[0] == "webhooks" and len(segments) > 2 and segments[1] == self._application

    async def _limited_answer(self, request: FakeRequest) -> FakeResponse:
        method, segments, wall = request.method, request.segments, self._wall()
        _, places, parameters = self._buckets.routes.find(method, segments) or (None, [], {})
        order = next_of(self._orders, "before", method, segments)
        if order is not None and order.scope == "global":
            return limited("global", order.wait_us)
        if order is not None:
            verdict = await self._buckets.refuse(order, places, request.route, request.owner, parameters, wall)
        else:
            verdict = await self._buckets.decide(places, request.owner, parameters, request.json, wall)
        if verdict.wait_us is not None:
            return limited(verdict.scope, verdict.wait_us, verdict.headers, verdict.hash)
        status, content = self._carry_out(request, wall)
        return success(status, content, verdict.headers, verdict.hash)

    def _carry_out(self, request: FakeRequest, wall: float) -> tuple[int, Any]:
        if self._world.is_gone(request.segments):
            return UNKNOWN_WEBHOOK
        match = self._world.find(request.method, request.segments)
        if match is None:
            return self._world.otherwise(request.method)
        _, carry_out, parameters = match
        host = request.headers.get("host", "localhost")
        at = self.clock.now_us() / 1e6
        return carry_out(EndpointCall(request.owner, parameters, request.json(), request.query, host, at, wall))

    async def _travel(self, seconds: float) -> None:
        if seconds > 0:
            await self.clock.sleep(seconds)

    def _wall(self) -> float:
        return self.clock.wall() + self.wall_skew

    def _us_from_now(self, seconds: float) -> int:
        return self.clock.now_us() + in_us("seconds", seconds)
