"""The way out: calls to Discord, paced so that they draw no 429.

client            DiscordClient: an httpx.AsyncClient for a bot
log_handler       DiscordHandler: log lines to a webhook; log_outbox: its queue; log_messages: its messages
sync_client       SyncDiscordClient: an httpx.Client for threads; sync_transport: its transport
transport         DiscordTransport: its httpx transport; pools: its connections; origins: whose addresses are Discord's
order             the order of calls; per_loop: what belongs to one event loop; lone_clients: clients that should be one
proxy             DiscordProxy: an ASGI app before Discord for bots in any language; bodies: the memory of its requests
outgoing          the request as it is sent, and its response; nonces: messages that may be sent again
sender            one call from its first attempt to its last; calls: the call; event_log: the log for operators
scheduler         when a call may go, and the queues of waiting calls; scopes: how far a bucket reaches
permits/          the limits that Discord's responses teach
tokens            the tokens that calls bear; invalid_requests: the budget of an address
response_headers  the limits that a response reports; routes: the route of a call
redaction         texts and logs without tokens
errors            the errors, and the events
discordpy         RateLimitAware: a discord.py bot that counts its 429s; limits for its bulk work
"""

from __future__ import annotations

from typing import TYPE_CHECKING

try:
    import httpx as _httpx  # noqa: F401
except ImportError as error:
    raise ImportError("asgi_ratelimit.discord needs httpx: pip install 'asgi-ratelimit-discord[discord]'") from error

from asgi_ratelimit.discord.client import DiscordClient, HttpxOptions
from asgi_ratelimit.discord.discordpy import BULK_DELETE, DELETE, EDITS, MESSAGES, REACTIONS, RateLimitAware
from asgi_ratelimit.discord.errors import (
    DiscordError,
    DiscordEvent,
    DiscordRateLimited,
    EventHook,
    InvalidBudgetSpent,
    TokenRejected,
    WebhookGone,
)
from asgi_ratelimit.discord.log_handler import DiscordHandler
from asgi_ratelimit.discord.proxy import DiscordProxy
from asgi_ratelimit.discord.scheduler import Waiting
from asgi_ratelimit.discord.sync_client import SyncDiscordClient, SyncHttpxOptions
from asgi_ratelimit.discord.transport import DiscordTransport

if TYPE_CHECKING:
    from asgi_ratelimit.interactions import InteractionLimit

__all__ = [
    "BULK_DELETE",
    "DELETE",
    "EDITS",
    "MESSAGES",
    "REACTIONS",
    "DiscordClient",
    "DiscordError",
    "DiscordEvent",
    "DiscordHandler",
    "DiscordProxy",
    "DiscordRateLimited",
    "DiscordTransport",
    "EventHook",
    "HttpxOptions",
    "InteractionLimit",
    "InvalidBudgetSpent",
    "RateLimitAware",
    "SyncDiscordClient",
    "SyncHttpxOptions",
    "TokenRejected",
    "Waiting",
    "WebhookGone",
]


def __getattr__(name: str) -> object:
    """InteractionLimit has moved to `asgi_ratelimit.interactions`, which needs cryptography and no httpx."""
    if name != "InteractionLimit":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from asgi_ratelimit.interactions import InteractionLimit

    return InteractionLimit
