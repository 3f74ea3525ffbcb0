"""The log-in behind a LoginGuard: failures count by account and by address, and devices of members stay let in."""

from __future__ import annotations

import secrets
from hashlib import blake2b
from typing import Final, Literal, get_args

from pydantic import BaseModel

from asgi_ratelimit import Decision, RateLimited
from asgi_ratelimit.login import LoginGuard, fold_account
from asgi_ratelimit.store import Store
from example_app.users import MEMBERS, Member

__all__ = ["BLOCKS", "FAILURES", "LogIns", "Outcome", "Place", "member_named"]

FAILURES: Final = "5/minute"  # of one account
FAILURES_OF_AN_ADDRESS: Final = "50/minute"
BLOCKS: Final = (10, 30, 90)  # s; short, so that one can watch them end
MEMORY_S: Final = 900  # for which a block is remembered

Place = Literal["stranger", "phone"]

_PHONES_ADDRESS: Final = "198.51.100.7"  # belongs to no network (RFC 5737), as those of strangers do (RFC 3849)


class Outcome(BaseModel):
    """The answer to an attempt, and the state of the place that it came from. Times are in seconds."""

    status: int
    left: int
    limit: int
    blocked_for: float


class LogIns:
    """Attempts to log in: real ones, and those of the page, which come from a stranger or from the member's phone."""

    def __init__(self, store: Store, secret: str) -> None:
        self.guard = LoginGuard(
            account=FAILURES, address=FAILURES_OF_AN_ADDRESS, block=BLOCKS, memory=MEMORY_S, store=store, secret=secret
        )
        self._secret = secret.encode()[:64]

    async def attempt(self, account: str, password: str, address: str | None, device: str | None) -> Outcome:
        """One attempt. Its status is 200, 401 or 429."""
        try:
            async with self.guard.attempt(account, address, device) as attempt:
                is_right = _is_right(account, password)
                if is_right:
                    attempt.succeeded()
                else:
                    attempt.failed()
        except RateLimited as refused:
            return _outcome(429, refused.decision)
        return _outcome(200 if is_right else 401, await self.guard.peek(account, address, device))

    async def attempt_from(self, place: Place, account: str, *, right: bool) -> Outcome:
        """An attempt of the page's."""
        password = MEMBERS[account].password if right else "a guess"
        return await self.attempt(account, password, *self._origin(place, account))

    async def look(self, account: str) -> dict[Place, Outcome]:
        """The state of each place, without an attempt."""
        return {
            place: _outcome(0, await self.guard.peek(account, *self._origin(place, account)))
            for place in get_args(Place)
        }

    async def log_in_by_phone(self, *accounts: str) -> None:
        """Let these accounts know their phones. It is done at the start: a first log-in forgets failures before it."""
        for account in accounts:
            await self.attempt_from("phone", account, right=True)

    def _origin(self, place: Place, account: str) -> tuple[str, str | None]:
        """The address of a place, and its device. A stranger is another one each time."""
        if place == "stranger":
            network, host = secrets.randbelow(2**16), secrets.randbelow(2**16)
            return f"2001:db8:{network:x}:{host:x}::1", None
        # The same in every worker, and no visitor can guess it.
        device = blake2b(f"phone:{account}".encode(), key=self._secret).hexdigest()
        return _PHONES_ADDRESS, device


def member_named(account: str) -> Member | None:
    """The member that an account belongs to, however it is spelt."""
    return MEMBERS.get(fold_account(account))


def _is_right(account: str, password: str) -> bool:
    member = member_named(account)
    expected = secrets.token_urlsafe() if member is None else member.password
    return secrets.compare_digest(password.encode(), expected.encode())


def _outcome(status: int, decision: Decision) -> Outcome:
    return Outcome(status=status, left=decision.remaining, limit=decision.limit, blocked_for=decision.retry_after)
