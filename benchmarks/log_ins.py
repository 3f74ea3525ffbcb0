"""The time of a wrong log-in to an account that exists and to one that does not: what LoginGuard itself takes.

Run `python -m benchmarks.log_ins`, or with the address of a Redis: `python -m benchmarks.log_ins redis://...`.
Both names are tried in turn, each from fresh addresses, after the right account has got to know some places.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Callable
from contextlib import nullcontext
from statistics import median, quantiles
from time import perf_counter_ns
from typing import Any

from asgi_ratelimit import MemoryStore, RateLimited
from asgi_ratelimit.login import LoginGuard

ROUNDS = 4_000
RIGHT = "somebody@example.com"


async def wrong_log_in(guard: LoginGuard, account: str, address: str) -> int:
    """Nanoseconds from the beginning of an attempt to its end or its refusal."""
    started = perf_counter_ns()
    try:
        async with guard.attempt(account, address, "a device") as attempt:
            attempt.failed()
    except RateLimited:
        pass
    return perf_counter_ns() - started


async def measure(guard: LoginGuard, next_wrong_name: Callable[[], str]) -> dict[str, list[int]]:
    """The times by kind of name. Each pair begins with another one, and has an address of its own."""
    times: dict[str, list[int]] = {"right": [], "wrong": []}
    for number in range(ROUNDS):
        names = {"right": RIGHT, "wrong": next_wrong_name()}
        for kind in random.sample(list(names), 2):
            address = f"10.{number >> 15}.{number >> 7 & 255}.{(number & 127) * 2 + (kind == 'right')}"
            times[kind].append(await wrong_log_in(guard, names[kind], address))
    return times


async def fresh(guard: LoginGuard) -> Callable[[], str]:
    """The account is known by some places. Its wrong twin is as used up as itself: a thousand have tried both."""
    for number in range(5):
        async with guard.attempt(RIGHT, f"192.0.2.{number}", f"device {number}") as attempt:
            attempt.succeeded()
    return lambda: "someone.else@example.com"


def report(times: dict[str, list[int]]) -> None:
    for kind, each in times.items():
        low, *_, high = quantiles(each, n=20)
        print(
            f"{kind} name: median {median(each) / 1e3:7.1f} µs, 5 % below {low / 1e3:7.1f}, 5 % above {high / 1e3:7.1f}"
        )
    halves = [median(times["right"][half::2]) / median(times["right"][1 - half :: 2]) for half in (0, 1)]
    print(f"right / wrong: {median(times['right']) / median(times['wrong']):.4f}")
    print(f"noise, as one half of the right ones / the other: {min(halves):.4f} to {max(halves):.4f}")


async def main(url: str | None) -> None:
    store: Any = nullcontext(MemoryStore())
    if url is not None:
        from asgi_ratelimit.redis import RedisStore

        store = RedisStore(url, prefix="benchmark-log-ins", secret="of the benchmark", timeout=5)
    async with store as opened:
        # Refusals take another way than admissions. A high limit shows these alone, the usual one both.
        for account, name in (("5/15 minutes", "closed"), ("1000000/15 minutes", "open")):
            guard = LoginGuard(account=account, store=opened, name=name)
            print(f"\nan account that is {name} to strangers")
            report(await measure(guard, await fresh(guard)))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if sys.argv[1:] else None))
