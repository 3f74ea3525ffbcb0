"""A proxy keeps so many bytes of bodies at a time. It does not read the others, and sends each one whole, twice too."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.discord import DiscordProxy
from asgi_ratelimit.discord.bodies import BodyRefused, ClientLeft, KeptBodies, Room
from asgi_ratelimit.testing import ManualClock
from tests.support.clients import passing, settled
from tests.support.raw_discord import Answer, RawDiscord, Received, raw_discord

pytestmark = pytest.mark.anyio

PIECE = 2**16
LARGE = 2**19
REFUSED = {"message": "You are being rate limited.", "retry_after": 0.05, "global": False}


class Upload:
    """A client that sends a body piece by piece, as far as it is read."""

    def __init__(
        self,
        body: bytes,
        *,
        has_length: bool = True,
        headers: tuple[tuple[bytes, bytes], ...] = (),
        pause: Callable[[], object] = lambda: None,
    ) -> None:
        self._pause = pause
        self._body, self._is_over, self.read, self.sent = body, False, 0, list[Any]()
        length = [(b"content-length", str(len(body)).encode())] if has_length else [(b"transfer-encoding", b"chunked")]
        self.headers = [*length, *headers]
        self.is_slow = asyncio.Event()  # it stands still after its first piece

    async def receive(self) -> dict[str, Any]:
        if self._is_over or (self.read and self.is_slow.is_set()):
            await asyncio.Event().wait()
        self._pause()
        piece = self._body[self.read : self.read + PIECE]
        self.read += len(piece)
        self._is_over = self.read >= len(self._body)
        return {"type": "http.request", "body": piece, "more_body": self.read < len(self._body)}

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def answer(self) -> tuple[int, dict[bytes, bytes], bytes]:
        start, *rest = self.sent
        return start["status"], dict(start["headers"]), b"".join(each["body"] for each in rest)

    async def through(self, proxy: DiscordProxy, path: bytes = b"/api/v10/guilds/1/stickers") -> None:
        scope = {"type": "http", "method": "POST", "path": path.decode(), "raw_path": path, "query_string": b""}
        await proxy(scope | {"headers": self.headers}, self.receive, self.send)


def message_with(file: bytes) -> bytes:
    """As discord.js writes it: the message comes after its files."""
    head = b'--xyzzy\r\nContent-Disposition: form-data; name="files[0]"; filename="a"\r\n\r\n'
    tail = (
        b'\r\n--xyzzy\r\nContent-Disposition: form-data; name="payload_json"\r\n\r\n{"content": "x"}\r\n--xyzzy--\r\n'
    )
    return head + file + tail


MULTIPART = ((b"content-type", b"multipart/form-data; boundary=xyzzy"),)


@pytest.fixture
async def refusing() -> AsyncIterator[RawDiscord]:
    """Discord, which refuses the first call of each path."""
    seen = Counter[str]()

    def answer(request: Received) -> Answer:
        seen[request.path] += 1
        if seen[request.path] == 1:
            return Answer(429, json.dumps(REFUSED).encode(), {"X-RateLimit-Scope": "shared", "Retry-After": "1"})
        return Answer()

    async with raw_discord(answer) as discord:
        yield discord


def before(discord: RawDiscord, **options: Any) -> DiscordProxy:
    return DiscordProxy(upstream=discord.url.removesuffix("/api/v10"), **options)


@pytest.mark.parametrize("has_length", [True, False], ids=["with its length", "in chunks"])
async def test_many_large_uploads_are_read_one_after_the_other_and_each_arrives_whole_twice(
    refusing: RawDiscord, *, has_length: bool
) -> None:
    proxy = before(refusing, max_body=2 * LARGE, max_memory=3 * LARGE)
    bodies = {f"/api/v10/channels/{number}/messages": message_with(bytes([number]) * LARGE) for number in range(10)}
    uploads = [Upload(body, has_length=has_length, headers=MULTIPART) for body in bodies.values()]
    calls = [
        asyncio.ensure_future(upload.through(proxy, path.encode()))
        for path, upload in zip(bodies, uploads, strict=True)
    ]
    most = 0
    while not all(call.done() for call in calls):
        kept = [upload.read for upload, call in zip(uploads, calls, strict=True) if not call.done()]
        most = max(most, sum(read for read in kept if read > 2 * PIECE))
        assert proxy.health["bodies"]["bytes"] <= 3 * LARGE
        await asyncio.sleep(0)
    await asyncio.gather(*calls)
    await proxy.aclose()
    assert most <= 3 * LARGE
    assert {upload.answer[0] for upload in uploads} == {200}
    attempts = Counter(request.path for request in refusing.received)
    assert attempts == dict.fromkeys(bodies, 2)
    for request in refusing.received:
        file = request.body.split(b"\r\n\r\n", 1)[1].split(b"\r\n--xyzzy", 1)[0]
        assert file == bodies[request.path].split(b"\r\n\r\n", 1)[1].split(b"\r\n--xyzzy", 1)[0]
        assert b'"nonce":' in request.body[-200:]
    assert proxy.health["bodies"] == {"bytes": 0, "waiting": 0}


async def test_a_small_call_does_not_wait_for_large_ones(refusing: RawDiscord) -> None:
    proxy = before(refusing, max_body=LARGE, max_memory=2 * LARGE)
    slow = [Upload(bytes(LARGE)) for _ in range(3)]
    for upload in slow:
        upload.is_slow.set()
    calls = [asyncio.ensure_future(upload.through(proxy)) for upload in slow]
    await settled()
    assert proxy.health["bodies"]["waiting"] == 2
    assert [upload.read for upload in slow] == [PIECE, 0, 0]
    small = [Upload(bytes(PIECE)), Upload(b"x" * 100, has_length=False), Upload(b"")]
    await asyncio.gather(*(upload.through(proxy, b"/api/v10/users/1") for upload in small))
    assert {upload.answer[0] for upload in small} == {200}
    for call in calls:
        call.cancel()
    await asyncio.wait(calls)
    assert proxy.health["bodies"] == {"bytes": 0, "waiting": 0}
    await proxy.aclose()


async def test_with_a_deadline_a_call_waits_no_longer_for_room(refusing: RawDiscord, clock: ManualClock) -> None:
    proxy = before(refusing, max_body=LARGE, max_memory=2 * LARGE, store=MemoryStore(clock=clock))
    slow, late = Upload(bytes(LARGE)), Upload(bytes(LARGE), headers=((b"x-deadline", b"2.5"),))
    slow.is_slow.set()
    call = asyncio.ensure_future(slow.through(proxy))
    await settled()
    await passing(clock, late.through(proxy), step=0.5)
    status, headers, _ = late.answer
    assert (status, headers[b"retry-after"], headers[b"connection"], late.read) == (429, b"1", b"close", 0)
    call.cancel()
    await asyncio.wait([call])
    await proxy.aclose()


async def test_the_time_that_a_body_takes_is_part_of_the_deadline(clock: ManualClock) -> None:
    left = list[float]()

    def answer(request: httpx.Request) -> httpx.Response:
        left.append(request.extensions["timeout"]["read"])
        return httpx.Response(200, json={})

    inner, store = httpx.MockTransport(answer), MemoryStore(clock=clock)
    proxy = DiscordProxy(upstream="http://discord.example", transport=inner, store=store)
    upload = Upload(bytes(3 * PIECE), headers=((b"x-deadline", b"2.5"),), pause=lambda: clock.advance(0.5))
    await upload.through(proxy)
    assert left == [1.0]
    late = Upload(bytes(8 * PIECE), headers=((b"x-deadline", b"2.5"),), pause=lambda: clock.advance(0.5))
    await late.through(proxy)
    assert (late.answer[0], late.answer[1][b"retry-after"], len(left)) == (429, b"1", 1)


async def test_a_large_body_that_stands_still_loses_its_room(refusing: RawDiscord, clock: ManualClock) -> None:
    proxy = before(refusing, max_body=LARGE, max_memory=2 * LARGE, store=MemoryStore(clock=clock))
    slow = Upload(bytes(LARGE))
    slow.is_slow.set()
    await passing(clock, slow.through(proxy), step=1.0)
    assert slow.answer[0] == 408
    assert clock.now_us() >= 30_000_000
    assert proxy.health["bodies"]["bytes"] == 0
    await proxy.aclose()


@pytest.mark.parametrize(
    ("headers", "has_length", "read"),
    [((), True, 2 * LARGE), ((), False, 2 * LARGE), (((b"expect", b"100-continue"),), True, 0)],
    ids=["with its length", "in chunks", "after asking"],
)
async def test_a_body_that_is_too_large_is_read_away_unless_its_client_asks_first(
    refusing: RawDiscord, headers: tuple[tuple[bytes, bytes], ...], *, has_length: bool, read: int
) -> None:
    proxy = before(refusing, max_body=LARGE)
    upload = Upload(bytes(2 * LARGE), has_length=has_length, headers=headers)
    await upload.through(proxy)
    assert (upload.answer[0], upload.read) == (413, read)
    assert refusing.received == []
    await proxy.aclose()


async def test_a_client_that_leaves_in_its_body_gives_its_room_back() -> None:
    bodies = KeptBodies(ManualClock(), LARGE, 2 * LARGE)
    messages = [{"type": "http.request", "body": b"x", "more_body": True}, {"type": "http.disconnect"}]

    async def receive() -> Any:
        return messages.pop(0)

    with pytest.raises(ClientLeft):
        async with bodies.kept(receive, [(b"content-length", str(LARGE).encode())], None):
            raise AssertionError("there is no body")
    assert bodies.taken == 0


async def test_a_length_that_is_none_is_not_believed() -> None:
    bodies = KeptBodies(ManualClock(), LARGE, 2 * LARGE)
    for length in (b"9" * 5_000, b"-1", b"x", b""):
        upload = Upload(b"abc")
        async with bodies.kept(upload.receive, [(b"content-length", length)], None) as body:
            assert (body, bodies.taken) == (b"abc", 3)
    endless = Upload(bytes(9 * LARGE))
    with pytest.raises(BodyRefused):
        async with bodies.kept(endless.receive, [(b"content-length", b"5")], None):
            raise AssertionError("it is too large")
    assert endless.read <= 3 * LARGE + 2 * PIECE, "it may never end"


@pytest.mark.parametrize(("memory", "said"), [(0, "bytes from 1"), (99_999, "bytes from 133334, for bodies of 100000")])
def test_memory_has_room_for_the_largest_body(memory: int, said: str) -> None:
    with pytest.raises(ValueError, match=f"max_memory must be {said}"):
        DiscordProxy(max_body=100_000, max_memory=memory)
    DiscordProxy(max_body=100_000, max_memory=133_334)
    DiscordProxy(max_body=10**9)


STEPS = st.lists(st.tuples(st.sampled_from(["take", "give", "cancel"]), st.integers(0, 10)), max_size=60)


@given(STEPS)
def test_room_is_given_in_order_never_twice_and_always_comes_back(steps: list[tuple[str, int]]) -> None:
    asyncio.run(_follow(steps))


async def _follow(steps: list[tuple[str, int]]) -> None:
    room, takers = Room(10), list[tuple[int, asyncio.Task[None]]]()
    for verb, number in steps:
        if verb == "take":
            takers.append((number, asyncio.ensure_future(room.take(number))))
        elif takers and verb == "cancel":
            takers[number % len(takers)][1].cancel()  # also one that has just been served
        elif takers and takers[number % len(takers)][1].done():
            _leave(room, takers.pop(number % len(takers)))
        if number % 2:
            await asyncio.sleep(0)
        has = sum(amount for amount, taker in takers if taker.done() and not taker.cancelled())
        assert has <= room.taken <= room.size
    await settled()
    while takers:
        takers.sort(key=lambda each: not each[1].done())
        assert takers[0][1].done(), "somebody waits for ever"
        _leave(room, takers.pop(0))
        await settled()
    assert (room.taken, room.waiting) == (0, 0)


def _leave(room: Room, taker: tuple[int, asyncio.Task[None]]) -> None:
    amount, task = taker
    if not task.cancelled():
        room.give(amount)
