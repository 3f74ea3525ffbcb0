"""The failures of accounts, or of addresses, as an operator sees them: by names as people type them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.limits import Limit
from asgi_ratelimit.login.failures import FailureCount

__all__ = ["OperatedFailures"]


@dataclass
class OperatedFailures:
    """One of the two counts of a guard. Its keys stay digests: `key_of` makes one of an account or an address."""

    name: str
    about: str
    failures: FailureCount
    key_of: Callable[[str], str]

    @property
    def limits(self) -> tuple[Limit, ...]:
        return self.failures.limits

    async def peek(self, key: str, *, per: str = "") -> Decision:
        """The decision about an attempt that would come now. Failures have no resource `per`."""
        return await self.failures.peek(key)

    async def reset(self, key: str, *, per: str = "") -> None:
        """Forget the failures and the blocks of a key."""
        await self.failures.reset(key)

    async def block(self, key: str, seconds: float) -> None:
        """Refuse the attempts of a key for so many seconds. No failure is counted for it."""
        await self.failures.block(key, seconds)
