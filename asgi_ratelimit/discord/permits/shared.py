"""Permits for calls to Discord in a store that runs scripts: one count for all processes that use the same token."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from importlib.resources import files
from typing import Any, Final

from asgi_ratelimit.discord.permits.bucket import CallReport
from asgi_ratelimit.discord.permits.memory import EXPIRY_US, Granted, MemoryPermits, Permit, Wait, WaitCause
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.scripts import ScriptKeys, Scripts, ScriptStore
from asgi_ratelimit.store import PerStore

__all__ = ["SharedPermits", "shared_permits"]

logger = logging.getLogger("asgi_ratelimit")

# As in permits.lua; there 0 is for a call that may go.
_CAUSES: Final[tuple[WaitCause, ...]] = ("banned", "stopped", "route", "bucket", "answer", "global")
_DOUBT: Final = 16  # is added if a record was not believed
_FIELDS: Final = 9  # of the answer to a `take`
_PATIENCE_S: Final = 1.0
_UNSENT: Final = CallReport("unsent")
_SOURCE: Final = files("asgi_ratelimit.discord.permits").joinpath("permits.lua").read_bytes()


class SharedPermits:
    """The permits of one owner, all in one slot of a cluster.

    While the server cannot answer, `local` decides, so that no call runs into a limit unpaced. It receives every permit
    and every report, so that it has learned what this process has learned. If the store fails closed, no call goes.
    """

    def __init__(self, scripts: Scripts, owner: str, local: MemoryPermits) -> None:
        self._scripts, self.local = scripts, local
        self.names = scripts.keys_of("permits", owner)
        self.fails_closed = scripts.outage == "closed"
        self._has_doubted = False

    async def take(self, name: str, route: str, major: str, per_second: int) -> Granted | Wait:
        """Raises StoreUnavailable if the server cannot answer and the store fails closed. Cancelled, it takes none."""
        reply = self._scripts.call(_Take(self, (name, route, major, per_second)))
        try:
            return await reply
        except asyncio.CancelledError:  # perhaps after the reply and before it was read
            if reply.done() and not reply.cancelled() and reply.exception() is None:
                self.give_back(reply.result())
            raise

    def settle(self, permit: Permit, report: CallReport) -> Awaitable[None]:
        """Sent at once, before all later calls. It never fails: a permit that is not settled expires."""
        if not self.fails_closed:
            self.local.settle(permit, report)
        return self._scripts.call(_Settle(self, permit, report))

    def sweep(self) -> bool:
        """Forget the past in this process. The server's records expire."""
        return self.local.sweep()

    def report_doubt(self) -> None:
        """Log once that the script has not believed a record."""
        if not self._has_doubted:
            self._has_doubted = True
            logger.warning(
                "Redis has a record of permits for calls to Discord that is not believed, and it is replaced: other "
                "software wrote it, or the server's clock went back"
            )

    def give_back(self, reply: Granted | Wait) -> None:
        """No caller has received this reply."""
        if isinstance(reply, Granted):
            self.settle(reply.permit, _UNSENT)


def shared_permits(store: ScriptStore, owner: str) -> SharedPermits:
    """The permits of `owner` in a store that runs scripts."""
    scripts = store.scripts(_SOURCE, patience=_PATIENCE_S)
    local = _locals.of(store).setdefault(owner, MemoryPermits(scripts.clock))
    return SharedPermits(scripts, owner, local)


_locals: PerStore[dict[str, MemoryPermits]] = PerStore(lambda store: {})


class _Take:
    """A call that wants a permit. `wanted` are the arguments of `take`."""

    __slots__ = ("arguments", "keys", "permits", "wanted")

    def __init__(self, permits: SharedPermits, wanted: tuple[str, str, str, int]) -> None:
        self.permits, self.wanted, self.keys = permits, wanted, (permits.names.base,)
        name, route, major, per_second = wanted
        digest = permits.names.digest
        self.arguments: Sequence[str | int] = ("take", name, digest(route), digest(major), per_second, EXPIRY_US)

    def read(self, reply: Sequence[Any], start: int) -> tuple[Granted | Wait, int]:
        end = start + _FIELDS
        cause, wait_us, bucket, limit, remaining, full_us, kind, slot_us, in_flight = reply[start:end]
        if cause & _DOUBT:
            self.permits.report_doubt()
            cause -= _DOUBT
        state = (bucket.decode(errors="replace"), limit, remaining, full_us, kind, slot_us, in_flight)
        if cause:
            return Wait(*state, _CAUSES[cause - 1], wait_us), end
        return Granted(*state, Permit(*self.wanted, state[0], reply[0])), end

    def decide_without_server(self, error: BaseException) -> Granted | Wait:
        if self.permits.fails_closed:
            raise StoreUnavailable(f"Redis cannot answer ({error}), and no call is to go without it") from error
        return self.permits.local.take(*self.wanted)

    def on_delivered(self, result: Granted | Wait) -> None:
        if isinstance(result, Granted) and not self.permits.fails_closed:
            self.permits.local.adopt(*self.wanted)

    def on_undelivered(self, result: Granted | Wait, instead: Granted | Wait | None) -> None:
        """Given back, unless a call goes under this name: it was permitted without the server meanwhile."""
        if not isinstance(instead, Granted):
            self.permits.give_back(result)


class _Settle:
    """A permit that comes back."""

    __slots__ = ("arguments", "keys", "permits")

    def __init__(self, permits: SharedPermits, permit: Permit, report: CallReport) -> None:
        names: ScriptKeys = permits.names
        self.permits, digest, self.keys = permits, names.digest, (names.base,)
        self.arguments: Sequence[str | int] = (
            "settle", permit.name, digest(permit.route), digest(permit.major), permit.per_second,
            permit.bucket and digest(permit.bucket), permit.sent_us,
            report.verdict, report.bucket, report.bucket and digest(report.bucket),
            report.limit, report.remaining, report.reset_us, report.retry_us,
        )  # fmt: skip

    def read(self, reply: Sequence[Any], start: int) -> tuple[None, int]:
        if reply[start] & _DOUBT:
            self.permits.report_doubt()
        return None, start + 1

    def decide_without_server(self, error: BaseException) -> None:
        """Nothing: the permit expires."""

    def on_delivered(self, result: None) -> None: ...

    def on_undelivered(self, result: None, instead: None) -> None: ...
