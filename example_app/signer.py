"""A stand-in for Discord at the interactions endpoint: it makes test interactions, signs them and delivers them."""

from __future__ import annotations

import itertools
import json
import os
from dataclasses import dataclass
from typing import Any, Literal

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from starlette.types import ASGIApp

__all__ = ["CASES", "USERS", "Case", "Delivery", "Signer", "User", "public_key_for"]

Case = Literal["command", "component", "autocomplete", "ping", "forged", "stale", "replay"]
User = Literal["ada", "grace", "alan"]

CASES: dict[Case, str] = {
    "command": "Command",
    "component": "Button",
    "autocomplete": "Autocomplete",
    "ping": "PING",
    "forged": "Forged",
    "stale": "Stale",
    "replay": "Replay",
}
USERS: dict[User, str] = {"ada": "101", "grace": "102", "alan": "103"}  # their ids on Discord
STALE_S = 600  # twice the age that the endpoint accepts

_PING: dict[str, Any] = {"type": 1}
_INTERACTIONS: dict[str, dict[str, Any]] = {
    "component": {"type": 3, "data": {"custom_id": "refresh", "component_type": 2}},
    "autocomplete": {"type": 4, "data": {"name": "tide", "options": [{"name": "port", "value": "b", "focused": True}]}},
    "command": {"type": 2, "data": {"name": "tide"}},
}
_ids = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Delivery:
    """A request as it was sent, and the endpoint's response."""

    headers: dict[str, str]
    body: dict[str, Any]
    answer: httpx.Response


class Signer:
    """Holds a private key of its own, and another one that the endpoint does not accept."""

    def __init__(self) -> None:
        self._secret, self._forger = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()

    @property
    def public_key(self) -> str:
        """The key that the endpoint verifies with: 64 hex characters."""
        return self._secret.public_key().public_bytes_raw().hex()

    async def deliver(self, app: ASGIApp, path: str, case: Case, user: User, wall: float) -> Delivery:
        """Sign an interaction at `wall`, in epoch seconds, and post it to the app, within the process."""
        interaction = _interaction(case, user)
        body = json.dumps(interaction).encode()
        timestamp = str(int(wall) - (STALE_S if case == "stale" else 0))
        secret = self._forger if case == "forged" else self._secret
        headers = {
            "Content-Type": "application/json",
            "X-Signature-Ed25519": secret.sign(timestamp.encode() + body).hex(),
            "X-Signature-Timestamp": timestamp,
        }
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://bot") as discord:
            if case == "replay":  # the same request was sent before
                await discord.post(path, content=body, headers=headers)
            answer = await discord.post(path, content=body, headers=headers)
        return Delivery(headers, interaction, answer)


def public_key_for(signer: Signer) -> tuple[str, bool]:
    """The key that interactions are verified with, and whether it is the signer's: not if DISCORD_PUBLIC_KEY is set."""
    configured = os.environ.get("DISCORD_PUBLIC_KEY")

    return (configured, False) if configured else (signer.public_key, True)


def _interaction(case: Case, user: User) -> dict[str, Any]:
    if case == "ping":
        return _PING
    member = {"user": {"id": USERS[user], "username": user}}
    return {
        "id": str(next(_ids)),
        **_INTERACTIONS.get(case, _INTERACTIONS["command"]),
        "guild_id": "7",
        "member": member,
    }
