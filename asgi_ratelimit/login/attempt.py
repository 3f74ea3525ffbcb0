"""One attempt to log in, as an async context manager."""

from __future__ import annotations

from types import TracebackType
from typing import Protocol, Self

import anyio

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.errors import RateLimitError
from asgi_ratelimit.login.failures import Verdict

__all__ = ["Attempt"]


class _Admission(Protocol):
    """What admits an attempt, and takes its result."""

    async def begin(self) -> Decision:
        """Admit the attempt. Raises RateLimited."""
        ...

    async def end(self, verdict: Verdict, device: str | None = None) -> None:
        """Count the result."""
        ...


class Attempt:
    """An attempt that is in flight until its `async with` ends. Say there whether it has succeeded.

    Without a word it has failed. So it has after an exception with a `status_code` of 4xx, such as HTTPException(401),
    and if it is cancelled. Any other exception is no result: the attempt is not counted.
    """

    def __init__(self, admission: _Admission) -> None:
        self._admission = admission
        self._verdict: Verdict | None = None
        self._device: str | None = None
        self._decision: Decision | None = None

    @property
    def decision(self) -> Decision:
        """The decision about the account: `remaining` failures are left. RuntimeError before the attempt has begun."""
        if self._decision is None:
            raise RuntimeError("the attempt has not begun; write `async with guard.attempt(...) as attempt`")
        return self._decision

    def succeeded(self, device: str | None = None) -> None:
        """The account and its password are right. It counts when the `async with` ends.

        `device` is the text that the client's cookie has from now on, if it is a new one: the account knows it then.
        """
        self._verdict, self._device = "succeeded", device

    def failed(self) -> None:
        """They are not. It counts when the `async with` ends."""
        self._verdict = "failed"

    async def __aenter__(self) -> Self:
        if self._decision is not None:
            raise RuntimeError("an attempt is used once; ask the guard for another one")
        self._decision = await self._admission.begin()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with anyio.CancelScope(shield=True):
            await self._admission.end(self._verdict or _verdict_of(error), self._device)


def _verdict_of(error: BaseException | None) -> Verdict:
    if isinstance(error, RateLimitError):  # another limit's
        return "unknown"
    status = getattr(error, "status_code", None)
    if isinstance(error, Exception) and not (isinstance(status, int) and 400 <= status < 500):
        return "unknown"
    return "failed"
