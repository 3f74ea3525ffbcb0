"""Attempts to log in, for tests of the LoginGuard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from asgi_ratelimit import MemoryStore, Policy, RateLimited
from asgi_ratelimit.login import LoginGuard

__all__ = ["RecordingStore", "log_in", "results"]


class RecordingStore(MemoryStore):
    """A store that records what its buckets are asked: the limiter, the verb and its arguments."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.calls: list[tuple[Any, ...]] = []

    def open(self, name: str, policies: Sequence[Policy]) -> Any:
        return _RecordedBuckets(name, super().open(name, policies), self.calls)


class _RecordedBuckets:
    def __init__(self, name: str, buckets: Any, calls: list[tuple[Any, ...]]) -> None:
        self._name, self._buckets, self._calls = name, buckets, calls

    def __getattr__(self, verb: str) -> Callable[..., Any]:
        function = getattr(self._buckets, verb)

        def record(*arguments: Any) -> Any:
            self._calls.append((self._name, verb, *arguments))
            return function(*arguments)

        return record


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
