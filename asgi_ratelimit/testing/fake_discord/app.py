"""FakeDiscord: an ASGI app that limits as Discord does, for tests of clients of Discord's API."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from email.utils import formatdate
from random import Random
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Receive, Scope, Send

from asgi_ratelimit.clock import Clock, SystemClock
from asgi_ratelimit.limiter import Limiter
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.testing.fake_discord.buckets import Asked, FakeBucket, FakeBuckets, GlobalWindow, global_limit_of
from asgi_ratelimit.testing.fake_discord.endpoints import UNKNOWN_WEBHOOK, EndpointCall, World, age_of, needs_token
from asgi_ratelimit.testing.fake_discord.faults import break_connection, next_of
from asgi_ratelimit.testing.fake_discord.options import (
    Latency,
    body_of,
    in_us,
    invalid_window,
    latency_of,
    live,
)
from asgi_ratelimit.testing.fake_discord.orders import Orders
from asgi_ratelimit.testing.fake_discord.record import LoggedRequest, RequestLog, json_of
from asgi_ratelimit.testing.fake_discord.responses import (
    DROPPED,
    FakeResponse,
    banned,
    error_response,
    limited,
    seconds_of,
    success,
)
from asgi_ratelimit.testing.fake_discord.routes import Segments, plain_name, segments_of, unit_of

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
    unit: int  # how many of its API version's units of time are a second

    @property
    def owner(self) -> str:
        """The owner of its limits: the token, or without one the address."""
        return self.headers.get("authorization") or f"address {self.client}"

    def json(self) -> Mapping[str, Any]:
        content = json_of(self.headers, self.body)
        return content if isinstance(content, Mapping) else {}


class FakeDiscord(Orders):
    """Discord's API as far as its limits go: an ASGI app, for `httpx.ASGITransport(app=fake)` or any server.

    limits: routes with a limit, a FakeBucket or a list of them; any other route is only counted globally
    token: the bot's token, else 401; None accepts any
    global_limit: requests of one token (without one, of one address) per second; None: no limit
    global_window: "calendar" (the clock's own whole seconds, as Discord), "fixed" (a second that opens with its first
        request) or "sliding" (any second)
    application_id: its follow-ups of interactions are exempt from the global limit, as callbacks always are
    follow_up_after: seconds after an interaction's callback in which its follow-ups are unknown: 404 with code 10015
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
        follow_up_after: float = 0.0,
        invalid_limit: int = 10_000,
        clock: Clock | None = None,
        wall_skew: float = 0.0,
        latency: Latency = 0.0,
        seed: int = 0,
        record: bool = True,
    ) -> None:
        clock = SystemClock() if clock is None else clock
        store, random = MemoryStore(clock=clock), Random(seed)
        buckets = FakeBuckets({} if limits is None else limits, store)
        self._application = None if application_id is None else str(application_id)
        early = in_us("follow_up_after", follow_up_after) / 1e6
        world = World(self._application, keeps=record, follow_up_after=early)
        super().__init__(clock, buckets, world, random)
        self.token = token
        self.wall_skew = wall_skew
        self._latency = latency_of(latency, random)
        everything = global_limit_of(global_limit, global_window)
        self._global = None if everything is None else Limiter(everything, store=store, name="global")
        self._invalid = Limiter(invalid_window(invalid_limit), store=store, name="invalid requests")
        self._record = RequestLog(keeps=record)

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
        headers = Headers(raw=scope["headers"])
        query = scope.get("query_string", b"").decode("latin-1")
        return FakeRequest(method, segments, query, headers, body, client, route, unit_of(scope["path"]))

    async def _serve(self, request: FakeRequest, receive: Receive, send: Send) -> None:
        half = self._latency() / 2
        await self._travel(half)
        answer = await self._decide_and_log(request)
        late = next_of(self._delays, "after", request.method, request.segments) or 0.0
        await self._travel(half + late)
        await self._held.pass_through()
        if answer.status == DROPPED:
            await break_connection(receive, send)
            return
        date = formatdate(self._wall(), usegmt=True).encode("ascii")
        headers = [*answer.headers, (b"date", date)]
        if answer.status != 204:  # which must not have one: RFC 9110 §8.6
            headers.append((b"content-length", b"%d" % len(answer.body)))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if answer.torn:
            await send({"type": "http.response.body", "body": answer.body[: len(answer.body) // 2], "more_body": True})
            await break_connection(receive, send, sends_the_rest=True)
            return
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
                status=DROPPED if answer.torn else answer.status,
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
            return limited("global", seconds_of(wait_us), unit=request.unit)
        answer = await self._limited_answer(request)
        return answer if answer.status >= 400 else self._on_its_way(answer, request)

    def _on_its_way(self, answer: FakeResponse, request: FakeRequest) -> FakeResponse:
        """What becomes of the answer to a request that was carried out."""
        if (fault := next_of(self._faults, "after", request.method, request.segments)) is not None:
            return fault
        if (fault := next_of(self._faults, "within", request.method, request.segments)) is not None:
            return replace(answer, torn=True) if answer.body else fault
        return answer

    def _is_authorized(self, request: FakeRequest) -> bool:
        if not needs_token(request.method, request.segments):
            return True
        authorization = request.headers.get("authorization", "")
        return bool(authorization) if self.token is None else authorization == f"Bot {self.token}"

    async def _global_wait_us(self, request: FakeRequest, now_us: int) -> int:
        is_exempt = self._is_exempt(request.segments)
        wait_us = self._stopped_until_us - now_us
        if wait_us > 0 and (self._stops_interactions or not is_exempt):
            return wait_us
        if is_exempt or self._global is None:
            return 0
        decision = await self._global.try_acquire(request.owner)
        return 0 if decision.allowed else decision.retry_us

    def _is_exempt(self, segments: Segments) -> bool:
        """Interactions are not bound by the global limit: https://discord.com/developers/docs/topics/rate-limits"""
        if segments[0] == "interactions":
            return True
        return segments[0] == "webhooks" and len(segments) > 2 and segments[1] == self._application

    async def _limited_answer(self, request: FakeRequest) -> FakeResponse:
        method, segments = request.method, request.segments
        _, places, parameters = self._buckets.routes.find(method, segments) or (None, [], {})
        order = next_of(self._orders, "before", method, segments)
        if order is not None and order.scope == "global":
            return limited("global", order.retry_after, unit=request.unit)
        asked = self._asked(request, parameters)
        if order is not None:
            verdict = await self._buckets.refuse(order, places, request.route, asked)
        else:
            verdict = await self._buckets.decide(places, asked)
        if verdict.refuses:
            words = verdict.scope, verdict.retry_after, verdict.headers, verdict.hash
            return limited(*words, code=verdict.code, unit=request.unit)
        status, content = self._carry_out(request, asked.wall)
        return success(status, content, verdict.headers, verdict.hash)

    def _asked(self, request: FakeRequest, parameters: Mapping[str, str]) -> Asked:
        wall = self._wall()
        is_gone = parameters.get("message_id") in self._world.gone
        age = age_of(parameters, wall)
        return Asked(request.owner, f"address {request.client}", parameters, request.json, age, is_gone, wall)

    def _carry_out(self, request: FakeRequest, wall: float) -> tuple[int, Any]:
        at = self.clock.now_us() / 1e6
        if self._world.is_gone(request.segments, at):
            return UNKNOWN_WEBHOOK
        match = self._world.find(request.method, request.segments)
        if match is None:
            return self._world.otherwise(request.method)
        _, carry_out, parameters = match
        host = request.headers.get("host", "localhost")
        return carry_out(EndpointCall(request.owner, parameters, request.json(), request.query, host, at, wall))

    async def _travel(self, seconds: float) -> None:
        if seconds > 0:
            await self.clock.sleep(seconds)

    def _wall(self) -> float:
        return self.clock.wall() + self.wall_skew
