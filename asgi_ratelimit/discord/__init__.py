"""The way out: calls to Discord, paced so that they draw no 429; and the interactions that come in from there.

client        DiscordClient: an httpx.AsyncClient for a bot
transport     DiscordTransport: the httpx side of it; pools: its connections; nonces: messages that may be sent again;
              logs: what others log of it, without tokens
courier       one call from its first attempt to its last
pacer         when a call may go; queue: who is before it
owners        whose calls they are; budget: the invalid requests of an address
answers       what a response says about limits; routes: to which route a call belongs
errors        what can go wrong, and what is told
interactions  InteractionLimit: Discord's calls to the bot, verified and limited; signatures: whether they are
              Discord's; askers: whom they count for; wording: what a limited user reads
aware         RateLimitAware: a discord.py bot that counts its 429s
operations    MESSAGES, REACTIONS, DELETE, BULK_DELETE: limits for bulk work with such a bot
"""

try:
    import cryptography as _cryptography  # noqa: F401
    import httpx as _httpx  # noqa: F401
except ImportError as error:
    raise ImportError(
        "asgi_ratelimit.discord needs httpx and cryptography: pip install 'asgi-ratelimit-discord[discord]'"
    ) from error

from asgi_ratelimit.discord.aware import RateLimitAware
from asgi_ratelimit.discord.client import DiscordClient
from asgi_ratelimit.discord.errors import (
    DiscordError,
    DiscordEvent,
    DiscordRateLimited,
    InvalidBudgetSpent,
    TokenRejected,
    WebhookGone,
)
from asgi_ratelimit.discord.interactions import InteractionLimit
from asgi_ratelimit.discord.operations import BULK_DELETE, DELETE, MESSAGES, REACTIONS
from asgi_ratelimit.discord.transport import DiscordTransport

__all__ = [
    "BULK_DELETE",
    "DELETE",
    "MESSAGES",
    "REACTIONS",
    "DiscordClient",
    "DiscordError",
    "DiscordEvent",
    "DiscordRateLimited",
    "DiscordTransport",
    "InteractionLimit",
    "InvalidBudgetSpent",
    "RateLimitAware",
    "TokenRejected",
    "WebhookGone",
]
