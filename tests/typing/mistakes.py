"""Mistakes that a type checker is to find: each is the last statement of a file that is right otherwise."""

from __future__ import annotations

__all__ = ["MISTAKES", "PREAMBLE"]

PREAMBLE = """\
# pyright: standard
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import HTTPConnection
from starlette.responses import Response

from asgi_ratelimit import (
    ClientIP, Decision, Escalate, Limiter, MemoryStore, RateLimitMiddleware, TokenBucket, by, by_header, by_user_or,
    pace,
)
from asgi_ratelimit.discord import DiscordClient, DiscordEvent, DiscordTransport
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.interactions import InteractionLimit
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.sync import SyncLimiter
from asgi_ratelimit.testing import FakeBucket, FakeDiscord, ManualClock

app = Starlette()
KEY = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"


def number(conn: HTTPConnection) -> int:
    return 5


async def number_later(conn: HTTPConnection) -> int:
    return 5


def text(conn: HTTPConnection) -> str:
    return "5/5s"


async def text_later(conn: HTTPConnection) -> str:
    return "5/5s"


def of_two(conn: HTTPConnection, other: int) -> str:
    return "5/5s"


def of_none() -> str:
    return "5/5s"


def of_a_number(number: int) -> str:
    return "5/5s"


def no_response(conn: HTTPConnection, decision: Decision) -> str:
    return "slow down"


def response_of_one(conn: HTTPConnection) -> Response:
    return Response("slow down", 429)


def of_a_text(status: str) -> bool:
    return True


"""

MISTAKES = {
    # limit=5
    "Limiter: limit 5": "Limiter(5)",
    "Limiter: list with a number": 'Limiter(["5/5s", 5])',
    "Limiter: limit None": "Limiter(None)",
    "SyncLimiter: limit 5": "SyncLimiter(5)",
    "RateLimitMiddleware: limit 5": "RateLimitMiddleware(app, limit=5)",
    "RateLimitMiddleware: list with a number": 'RateLimitMiddleware(app, limit=["5/5s", 5])',
    "RateLimitMiddleware: no limit": "RateLimitMiddleware(app)",
    "RateLimitMiddleware: messages 5": 'RateLimitMiddleware(app, limit="5/5s", messages=5)',
    "RateLimitMiddleware: limit function of a number": "RateLimitMiddleware(app, limit=number)",
    "RateLimitMiddleware: async limit function of a number": "RateLimitMiddleware(app, limit=number_later)",
    "RateLimitMiddleware: limit function without connection": "RateLimitMiddleware(app, limit=of_none)",
    "add_middleware: limit 5": "app.add_middleware(RateLimitMiddleware, limit=5)",
    "Middleware: limit 5": "Middleware(RateLimitMiddleware, limit=5)",
    "RateLimit: limit 5": "RateLimit(limit=5)",
    "RateLimit: limit 5, positional": "RateLimit(5)",
    "RateLimit: limit function of two": "RateLimit(of_two)",
    "InteractionLimit: limit 5": "InteractionLimit(KEY, 5)",
    "InteractionLimit: autocomplete 5": 'InteractionLimit(KEY, "5/5s", autocomplete=5)',
    "pace: limit 5": "pace([1], number_later, limit=5)",
    "TokenBucket: rate 5": "TokenBucket(5)",
    "FakeBucket: limit 5": "FakeBucket(5)",
    "FakeDiscord: limit 5": 'FakeDiscord({"GET /users/@me": 5})',
    # A misspelt option
    "Limiter: misspelt": 'Limiter("5/5s", nmae="search")',
    "SyncLimiter: misspelt": 'SyncLimiter("5/5s", stroe=MemoryStore())',
    "TokenBucket: misspelt": 'TokenBucket("5/5s", brust=5)',
    "MemoryStore: misspelt": "MemoryStore(max_key=5)",
    "ClientIP: misspelt": 'ClientIP(trusted_proxy=["10.0.0.0/8"])',
    "ClientIP: hops of text": 'ClientIP(hops="1")',
    "RateLimitMiddleware: only of a text": 'RateLimitMiddleware(app, limit="5/5s", only=text)',
    "RateLimitMiddleware: misspelt": 'RateLimitMiddleware(app, limit="5/5s", exemt=("/health",))',
    "add_middleware: misspelt": 'app.add_middleware(RateLimitMiddleware, limit="5/5s", exemt=("/health",))',
    "Middleware: misspelt": 'Middleware(RateLimitMiddleware, limit="5/5s", exemt=("/health",))',
    "RateLimit: misspelt": 'RateLimit("5/5s", pre=("channel_id",))',
    "InteractionLimit: misspelt": 'InteractionLimit(KEY, "5/5s", txet="Again {when}.")',
    "RedisStore: misspelt": 'RedisStore("redis://localhost", prefiks="app")',
    "DiscordClient: misspelt": 'DiscordClient("token", max_wiat=5)',
    "DiscordTransport: misspelt": "DiscordTransport(max_wiat=5)",
    "FakeDiscord: misspelt": "FakeDiscord(clok=ManualClock())",
    "pace: misspelt": 'pace([1], number_later, limit="5/5s", concurency=2)',
    # A wrong key function
    "RateLimitMiddleware: key of a number": 'RateLimitMiddleware(app, limit="5/5s", key=number)',
    "RateLimitMiddleware: async key of a number": 'RateLimitMiddleware(app, limit="5/5s", key=number_later)',
    "RateLimitMiddleware: key of two": 'RateLimitMiddleware(app, limit="5/5s", key=of_two)',
    "RateLimitMiddleware: key of nothing": 'RateLimitMiddleware(app, limit="5/5s", key=of_none)',
    "RateLimitMiddleware: key is a string": 'RateLimitMiddleware(app, limit="5/5s", key="user")',
    "RateLimitMiddleware: key not made": 'RateLimitMiddleware(app, limit="5/5s", key=by_header)',
    "add_middleware: key of a number": 'app.add_middleware(RateLimitMiddleware, limit="5/5s", key=number)',
    "add_middleware: key of two": 'app.add_middleware(RateLimitMiddleware, limit="5/5s", key=of_two)',
    "RateLimit: key of a number": 'RateLimit("5/5s", key=number)',
    "RateLimit: key of two": 'RateLimit("5/5s", key=of_two)',
    "by_user_or: key of a number": "by_user_or(number)",
    "by_user_or: key of two": "by_user_or(of_two)",
    "by: key of a number": 'by(number, "5/5s")',
    "by: limit 5": "by(text, 5)",
    "Limiter: by": 'Limiter(["5/5s", by(text, "9/5s")])',
    "InteractionLimit: key of a connection": 'InteractionLimit(KEY, "5/5s", key=text)',
    "InteractionLimit: unknown key": 'InteractionLimit(KEY, "5/5s", key="users")',
    "pace: key of another item": 'pace(["a"], text_later, limit="5/5s", key=of_a_number)',
    # Other functions and options
    "RateLimitMiddleware: escalate of a number": 'RateLimitMiddleware(app, limit="5/5s", escalate=20)',
    "Escalate: block of a number": "Escalate(after=20, within=60, block=60)",
    "within: a list": 'ClientIP().within(["10.0.0.0/8"])',
    "RateLimitMiddleware: settle of a status": 'RateLimitMiddleware(app, limit="5/5s", settle=of_a_text)',
    "RateLimitMiddleware: cost of a text": 'RateLimitMiddleware(app, limit="5/5s", cost=text)',
    "RateLimitMiddleware: async cost of a text": 'RateLimitMiddleware(app, limit="5/5s", cost=text_later)',
    "RateLimit: cost of a text": 'RateLimit("5/5s", cost=text)',
    "RateLimitMiddleware: refund of a text": 'RateLimitMiddleware(app, limit="5/5s", refund=of_a_text)',
    "RateLimitMiddleware: on_limited of one": 'RateLimitMiddleware(app, limit="5/5s", on_limited=response_of_one)',
    "RateLimitMiddleware: on_limited of a text": 'RateLimitMiddleware(app, limit="5/5s", on_limited=no_response)',
    "RateLimitMiddleware: unknown headers": 'RateLimitMiddleware(app, limit="5/5s", headers="github")',
    "RateLimitMiddleware: store is a URL": 'RateLimitMiddleware(app, limit="5/5s", store="redis://localhost")',
    "TokenBucket: unknown scope": 'TokenBucket("5/5s", scope="everybody")',
    "TokenBucket: unknown outage": 'TokenBucket("5/5s", outage="fail-open")',
    "RedisStore: unknown outage": 'RedisStore("redis://localhost", outage="fail-open")',
    "RedisStore: neither URL nor client": "RedisStore(6379)",
    "DiscordClient: on_event of a connection": 'DiscordClient("token", on_event=text)',
    "Limiter: cost of a text": 'Limiter("5/5s").peek("user:1", "2")',
    "Limiter: key of a number": 'Limiter("5/5s").peek(1)',
    "Limiter: keys of a list": 'Limiter(["5/5s", "9/s"]).peek(["a", "b"])',
}
