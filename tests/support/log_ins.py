"""Attempts to log in, for tests of the LoginGuard."""

from __future__ import annotations

from collections import Counter

from asgi_ratelimit import RateLimited
from asgi_ratelimit.login import LoginGuard

__all__ = ["log_in", "results"]


async def log_in(
    guard: LoginGuard, account: str, address: str, device: str | None = None, *, right: bool = False
) -> str:
    """One attempt: "in", "wrong", or the reason of its refusal."""
    try:
        async with guard.attempt(account, address, device) as attempt:
            if right:
                attempt.succeeded()
            else:
                attempt.failed()
    except RateLimited as refused:
        return refused.decision.reason
    return "in" if right else "wrong"


async def results(guard: LoginGuard, visits: list[tuple[str, str]]) -> Counter[str]:
    """How many wrong attempts end in which way, one after the other."""
    return Counter([await log_in(guard, account, address) for account, address in visits])
