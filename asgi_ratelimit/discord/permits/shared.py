"""Permits for calls to Discord in a store that runs scripts: one count for all processes that use the same token."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from importlib.resources import files
from typing import Any, Final

from asgi_ratelimit.discord.permits.bucket import Answer
from asgi_ratelimit.discord.permits.memory import LEASE_US, Ask, Lease, MemoryLeases, Permit, Why
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.store import PerStore, Scripts, ScriptStore

__all__ = ["RedisLeases", "shared_permits"]

_CAUSES: Final[tuple[Why, ...]] = ("", "banned", "stopped", "route", "bucket", "answer", "global")  # as in permits.lua
_FIELDS: Final = 9  # of a lease, as permits.lua writes them
_PATIENCE_S: Final = 1.0
_UNSENT: Final = Answer("unsent")
_SOURCE: Final = files("asgi_ratelimit.discord.permits").joinpath("permits.lua").read_bytes()


class RedisLeases:
    """The permits of one owner, all in one slot of a cluster.

    While the server cannot answer, `local` decides: nobody may run into limits unpaced. It is told of each permit and
    of what became of it, so that it knows what this process knows. If the store fails closed, nobody decides.
    """

    def __init__(self, scripts: Scripts, owner: str, local: MemoryLeases) -> None:
        self._scripts, self.local = scripts, local
        self.names = scripts.keys_of("permits", owner)
        self.fails_closed = scripts.outage == "closed"

    async def lease(self, ask: Ask) -> Lease:
        """StoreUnavailable where the server cannot answer and nobody else is to. Cancelled, it takes no permit."""
        answer = self._scripts.call(_Leasing(self, ask))
        try:
            return await answer
        except asyncio.CancelledError:  # perhaps after it has come and before it was read
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                self.give_back(answer.result())
            raise

    def settle(self, permit: Permit, answer: Answer) -> Awaitable[None]:
        """On its way at once, before whatever is asked later. It never fails: what is lost frees itself."""
        if not self.fails_closed:
            self.local.settle(permit, answer)
        return self._scripts.call(_Settling(self, permit, answer))

    def sweep(self) -> bool:
        """Of what this process keeps; in the server everything goes by itself."""
        return self.local.sweep()

    def give_back(self, lease: Lease) -> None:
        """Nobody has read the answer."""
        if lease.permit is not None:
            self.settle(lease.permit, _UNSENT)


def shared_permits(store: ScriptStore, owner: str) -> RedisLeases:
    """The permits of `owner` in a store that runs scripts."""
    scripts = store.scripts(_SOURCE, patience=_PATIENCE_S)
    local = _locals.of(store).setdefault(owner, MemoryLeases(scripts.clock))
    return RedisLeases(scripts, owner, local)


_locals: PerStore[dict[str, MemoryLeases]] = PerStore(lambda store: {})


class _Leasing:
    """A permit is wanted."""

    __slots__ = ("arguments", "ask", "keys", "leases")

    def __init__(self, leases: RedisLeases, ask: Ask) -> None:
        names = leases.names
        self.leases, self.ask, self.keys = leases, ask, (names.base,)
        self.arguments: Sequence[str | int] = (
            "lease", ask.name, names.digest(ask.route), names.digest(ask.major), ask.per_second, LEASE_US,
        )  # fmt: skip

    def read(self, reply: Sequence[Any], start: int) -> tuple[Lease, int]:
        end = start + _FIELDS
        why, wait, bucket, *seen = reply[start:end]
        name = bucket.decode()
        permit = None if wait else Permit(self.ask, name, reply[0])
        return Lease(permit, _CAUSES[why], wait, name, *seen), end

    def decide_without_server(self, error: BaseException) -> Lease:
        if self.leases.fails_closed:
            raise StoreUnavailable(f"Redis cannot answer ({error}), and no call is to go without it") from error
        return self.leases.local.lease(self.ask)

    def on_delivered(self, result: Lease) -> None:
        if result.permit is not None and not self.leases.fails_closed:
            self.leases.local.adopt(self.ask)

    def on_undelivered(self, result: Lease, instead: Lease | None) -> None:
        """Given back, unless a call goes under this name: it was permitted without the server meanwhile."""
        if instead is None or instead.permit is None:
            self.leases.give_back(result)


class _Settling:
    """A permit comes back."""

    __slots__ = ("arguments", "keys")

    def __init__(self, leases: RedisLeases, permit: Permit, answer: Answer) -> None:
        ask, digest, self.keys = permit.ask, leases.names.digest, (leases.names.base,)
        self.arguments: Sequence[str | int] = (
            "settle", ask.name, digest(ask.route), digest(ask.major), ask.per_second,
            permit.bucket and digest(permit.bucket), permit.sent_us,
            answer.verdict, answer.bucket, answer.bucket and digest(answer.bucket),
            answer.limit, answer.remaining, answer.reset_us, answer.retry_us,
        )  # fmt: skip

    def read(self, reply: Sequence[Any], start: int) -> tuple[None, int]:
        return None, start + 1

    def decide_without_server(self, error: BaseException) -> None:
        """Nothing: the permit frees itself."""

    def on_delivered(self, result: None) -> None: ...

    def on_undelivered(self, result: None, instead: None) -> None: ...
