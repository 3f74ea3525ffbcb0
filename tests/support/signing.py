"""A stand-in for Discord's side of the interactions endpoint: it signs bodies and posts them to an app."""

from __future__ import annotations

import itertools
import json
from typing import Any

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.types import ASGIApp

from asgi_ratelimit.clock import Clock
from asgi_ratelimit.testing import ManualClock

_SECRET = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC_KEY = _SECRET.public_key().public_bytes_raw().hex()
PING: dict[str, Any] = {"type": 1}
PONG = {"type": 1}
URL = "/interactions"
JSON = {"Content-Type": "application/json"}

_ids = itertools.count(1)


def command(asker: str = "1", /, **more: Any) -> dict[str, Any]:
    """A slash command in a guild; every interaction has an id of its own."""
    member = {"user": {"id": asker}}
    return {"type": 2, "id": str(next(_ids)), "data": {"name": "play"}, "guild_id": "9", "member": member, **more}


def encoded(interaction: object) -> bytes:
    return interaction if isinstance(interaction, bytes) else json.dumps(interaction).encode()


def signature_of(body: bytes, at: object) -> dict[str, str]:
    """The headers that make this body genuine at that moment, in epoch seconds."""
    timestamp = str(at)
    signature = _SECRET.sign(timestamp.encode() + body).hex()
    return {"X-Signature-Ed25519": signature, "X-Signature-Timestamp": timestamp}


class Discord:
    """Posts interactions, signed now unless told otherwise."""

    def __init__(self, app: ASGIApp, clock: Clock, *, url: str = URL) -> None:
        self._app, self._clock, self._url = app, clock, url

    async def post(self, interaction: object, *, late: float = 0.0, forged: bool = False) -> httpx.Response:
        """Sent `late` seconds after it was signed; `forged`: with the signature of another body."""
        body = encoded(interaction)
        headers = signature_of(b"another body" if forged else body, int(self._clock.wall() - late))
        return await self.send(body, headers)

    async def send(
        self, body: Any, headers: dict[str, str], *, method: str = "POST", url: str | None = None
    ) -> httpx.Response:
        """These very bytes and headers."""
        transport = httpx.ASGITransport(self._app, raise_app_exceptions=True)
        async with httpx.AsyncClient(transport=transport, base_url="http://bot.example") as client:
            return await client.request(method, url or self._url, content=body, headers={**JSON, **headers})


def now(clock: ManualClock) -> int:
    return int(clock.wall())


def content(answer: httpx.Response) -> str:
    """What a user reads who was refused; nobody else sees it."""
    assert answer.status_code == 200, answer.text
    said = answer.json()
    assert (said["type"], said["data"]["flags"]) == (4, 64), said
    return str(said["data"]["content"])
