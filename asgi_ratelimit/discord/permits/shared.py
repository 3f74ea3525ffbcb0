"""Permits for calls to Discord in a store that runs scripts: one count for all processes that use the same token."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Sequence
from dataclasses import replace
from importlib.resources import files
from typing import Any, Final
from weakref import WeakSet

from asgi_ratelimit.discord.permits.bucket import CallReport
from asgi_ratelimit.discord.permits.memory import (
    EXPIRY_US,
    Granted,
    MemoryPermits,
    Permit,
    Wait,
    WaitCause,
    local_permits,
)
from asgi_ratelimit.errors import StoreUnavailable
from asgi_ratelimit.scripts import ScriptKeys, Scripts, ScriptStore

__all__ = ["SharedPermits", "shared_permits"]

logger = logging.getLogger("asgi_ratelimit")

# As in permits.lua; there 0 is for a call that may go.
_CAUSES: Final[tuple[WaitCause, ...]] = ("banned", "stopped", "route", "bucket", "answer", "global")
_DOUBT: Final = 16  # is added if a record was not believed,
_UNTOUCHED: Final = 32  # and this if nothing else may have been counted in a bucket
_FIELDS: Final = 10  # of the answer to a `take`
_PATIENCE_S: Final = 1.0
_MOST_OWED: Final = 10_000
_CENSUS_US: Final = 1_000_000  # between two of them
_RETRY_S: Final = 0.5  # between two attempts to send the missed reports, unless a call is answered before
_SHRINK_US: Final = 500_000  # between two times that the share shrinks
_UNSENT: Final = CallReport("unsent")
_ROOM: Final = files("asgi_ratelimit.discord.permits")
_SOURCE: Final = b"\n".join(_ROOM.joinpath(name).read_bytes() for name in ("bucket.lua", "permits.lua"))


class SharedPermits:
    """The permits of one owner, all in one slot of a cluster.

    While the server cannot answer, `local` decides, so that no call runs into a limit unpaced. It receives every permit
    and every report, so that it has learned as much as this process. If the store fails closed, no call goes.
    """

    def __init__(self, scripts: Scripts, owner: str, local: MemoryPermits) -> None:
        self._scripts, self.clock, self.local = scripts, scripts.clock, local
        self.names = scripts.keys_of("permits", owner)
        self.fails_closed = scripts.outage == "closed"
        self._owed: dict[str, _Settle] = {}  # that have not reached the server; or that come after a lost `take`
        self._retrying: WeakSet[asyncio.AbstractEventLoop] = WeakSet()  # those that have a timer for it
        self._sharers = 1  # processes that have used the limits lately, by the last census
        self._census_us = 0  # when it was
        self._shrunk_us = 0
        self._has_doubted = False

    async def take(
        self, name: str, route: str, major: str, per_second: int, spare: int = 0, together: bool = False
    ) -> Granted | Wait:
        """Raises StoreUnavailable if the server cannot answer and the store fails closed. Cancelled, it takes none."""
        wanted = Permit(name, route, major, per_second, "", 0, together)
        reply = self._scripts.call(_Take(self, wanted, spare))
        try:
            return await reply
        except asyncio.CancelledError:  # perhaps after the reply and before it was read
            if reply.done() and not reply.cancelled() and reply.exception() is None:
                self.give_back(reply.result())
            else:
                self.owe_unused(wanted)
            raise

    def settle(self, permit: Permit, report: CallReport) -> Awaitable[None]:
        """Sent at once, before all later calls; again when the server answers again. It never fails."""
        if not self.fails_closed:
            self.local.settle(permit, report)
        return self._scripts.call(_Settle(self, permit, report, self._scripts.clock.now_us()))

    def owe(self, settle: _Settle) -> None:
        """The server has not answered to this. Until it learns of it, it counts the permit as out."""
        if len(self._owed) < _MOST_OWED:
            self._owed[settle.permit.name] = settle
        self._retry_later()

    def owe_unused(self, permit: Permit) -> None:
        """The server has not answered to a `take`, and may have granted the permit all the same."""
        self.owe(_Settle(self, permit, _UNSENT, self._scripts.clock.now_us()))

    def pay(self) -> None:
        """The server answers: send it the missed reports."""
        if self._owed:
            owed, self._owed = self._owed, {}
            for settle in owed.values():
                self._pay(settle)

    def retry(self) -> None:
        """Send the oldest of the missed reports. If it answers, the rest follows; if not, it is owed again."""
        self._retrying.discard(asyncio.get_running_loop())
        is_sent = False
        while self._owed and self._scripts.is_open and not is_sent:
            is_sent = self._pay(self._owed.pop(next(iter(self._owed))))

    def _pay(self, settle: _Settle) -> bool:
        """Send it, if it still matters."""
        now_us = self._scripts.clock.now_us()
        is_recent = now_us - settle.made_us < EXPIRY_US
        if is_recent:
            self._scripts.call(settle.late(now_us))
        return is_recent

    def _retry_later(self) -> None:
        """This process may have nothing else to send: then it finds out by itself whether the server answers again."""
        loop = asyncio.get_running_loop()
        if loop not in self._retrying and self._scripts.is_open:
            self._retrying.add(loop)
            self.clock.call_later(_RETRY_S, self.retry)

    def forgive(self, name: str) -> None:
        """The server has answered after all."""
        self._owed.pop(name, None)

    def wants_census(self) -> bool:
        """Whether it is time to count the other users of the limits."""
        now_us = self._scripts.clock.now_us()
        if now_us - self._census_us < _CENSUS_US:
            return False
        self._census_us = now_us
        return True

    def on_answer(self, sharers: int) -> None:
        """The server has answered to a `take`; with a census, if one was wanted."""
        self.local.sharers = 1.0
        if sharers:
            self._sharers = sharers
        self.pay()

    def on_silence(self) -> None:
        """The server does not answer: this process goes on with its share of each limit."""
        self.local.sharers = max(self.local.sharers, self._sharers)

    def shrink(self) -> None:
        """A global 429 while the server does not answer: there are more processes than that."""
        now_us = self._scripts.clock.now_us()
        if now_us - self._shrunk_us >= _SHRINK_US:
            self.local.sharers, self._shrunk_us = 1.5 * self.local.sharers, now_us

    def sweep(self) -> float | None:
        """Forget some of the past in this process. The server's records expire."""
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
    return SharedPermits(scripts, owner, local_permits(store, owner, scripts.clock))


class _Take:
    """A call that wants a permit. `wanted`: its facts so far."""

    __slots__ = ("arguments", "keys", "permits", "sharers", "spare", "wanted")

    def __init__(self, permits: SharedPermits, wanted: Permit, spare: int) -> None:
        self.sharers = 0
        self.permits, self.wanted, self.spare, self.keys = permits, wanted, spare, (permits.names.base,)
        digest = permits.names.digest
        self.arguments: Sequence[str | int] = (
            "take", wanted.name, digest(wanted.route), digest(wanted.major), wanted.per_second, EXPIRY_US, spare,
            int(permits.wants_census()), digest(wanted.resource),
        )  # fmt: skip

    def read(self, reply: Sequence[Any], start: int) -> tuple[Granted | Wait, int]:
        end = start + _FIELDS
        cause, wait_us, bucket, limit, remaining, full_us, kind, slot_us, in_flight, self.sharers = reply[start:end]
        if cause & _DOUBT:
            self.permits.report_doubt()
        untouched, cause = bool(cause & _UNTOUCHED), cause % _DOUBT
        state = (bucket.decode(errors="replace"), limit, remaining, full_us, kind, slot_us, in_flight)
        if cause:
            return Wait(*state, _CAUSES[cause - 1], wait_us), end
        permit = replace(self.wanted, bucket=state[0], sent_us=reply[0], untouched=untouched)
        return Granted(*state, permit), end

    def decide_without_server(self, error: BaseException) -> Granted | Wait:
        if self.permits.fails_closed:
            self.permits.owe_unused(self.wanted)
            raise StoreUnavailable(f"Redis cannot answer ({error}), and no call is to go without it") from error
        self.permits.on_silence()
        wanted = self.wanted
        reply = self.permits.local.take(
            wanted.name, wanted.route, wanted.major, wanted.per_second, self.spare, wanted.together
        )
        if isinstance(reply, Wait):
            self.permits.owe_unused(wanted)
            return reply
        return replace(reply, permit=replace(reply.permit, untouched=False))  # others may have touched it

    def on_delivered(self, result: Granted | Wait) -> None:
        self.permits.on_answer(self.sharers)
        if isinstance(result, Granted) and not self.permits.fails_closed:
            self.permits.local.adopt(self.wanted)

    def on_undelivered(self, result: Granted | Wait, instead: Granted | Wait | None) -> None:
        """Given back, unless a call goes under this name: it was permitted without the server meanwhile."""
        self.permits.forgive(self.wanted.name)
        if not isinstance(instead, Granted):
            self.permits.give_back(result)


class _Settle:
    """A permit that comes back. `first`: as it was at first, if this is another attempt to send it."""

    __slots__ = ("arguments", "first", "keys", "made_us", "permit", "permits", "report")

    def __init__(
        self, permits: SharedPermits, permit: Permit, report: CallReport, made_us: int, first: _Settle | None = None
    ) -> None:
        self.first = first
        names: ScriptKeys = permits.names
        self.permits, digest, self.keys = permits, names.digest, (names.base,)
        self.permit, self.report, self.made_us = permit, report, made_us
        self.arguments: Sequence[str | int] = (
            "settle", permit.name, digest(permit.route), digest(permit.major), permit.per_second,
            permit.bucket and digest(permit.bucket), permit.sent_us,
            report.verdict, report.bucket, report.bucket and digest(report.bucket),
            report.limit, report.remaining, report.reset_us, report.retry_us, digest(permit.resource),
        )  # fmt: skip

    def read(self, reply: Sequence[Any], start: int) -> tuple[None, int]:
        if reply[start] & _DOUBT:
            self.permits.report_doubt()
        return None, start + 1

    def late(self, now_us: int) -> _Settle:
        """The same, of so long ago. The response is too old for its bucket: its call just counts."""
        passed_us, report = max(0, now_us - self.made_us), self.report
        if report.verdict == "answered":
            report = CallReport("lost")
        reset_us, retry_us = max(0, report.reset_us - passed_us), max(0, report.retry_us - passed_us)
        report = replace(report, reset_us=reset_us, retry_us=retry_us)
        return _Settle(self.permits, self.permit, report, self.made_us, self)

    def decide_without_server(self, error: BaseException) -> None:
        self.permits.owe(self.first or self)
        if self.report.verdict == "stopped" and self.first is None:
            self.permits.shrink()

    def on_delivered(self, result: None) -> None:
        self.permits.pay()

    def on_undelivered(self, result: None, instead: None) -> None:
        self.permits.forgive(self.permit.name)
