"""LoginGuard: failed log-ins are limited by account and by address, and no attacker can lock a user out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Literal

from asgi_ratelimit.call_site import inside_a_request, several_workers
from asgi_ratelimit.decision import Decision
from asgi_ratelimit.escalation import DAY_S, Strikes, check_blocks, check_seconds, memory_of_blocks
from asgi_ratelimit.limits import Limit, LimitSpec, as_limits
from asgi_ratelimit.login.account_names import Digests, fold_account, has_public_secret, secret_of
from asgi_ratelimit.login.admission import Admission, Counts, Visitors
from asgi_ratelimit.login.attempt import Attempt
from asgi_ratelimit.login.failures import FailureCount
from asgi_ratelimit.login.familiar import Familiar
from asgi_ratelimit.login.operated import OperatedFailures
from asgi_ratelimit.memory import MemoryStore
from asgi_ratelimit.operated import let_operate
from asgi_ratelimit.store import Store, check_store
from asgi_ratelimit.warnings import WarnOnce

__all__ = ["LoginGuard"]


class LoginGuard:
    """Limits failed log-ins: `async with guard.attempt(account, address) as attempt: ...`.

    account: failures of one account from all places that it does not know, and from each place that it knows
    address: failures of one address, whatever the accounts
    block: the seconds for which a used-up bucket is blocked: the first time, the second, and so on; () for none
    store: a MemoryStore of its own by default
    name: the limiters are called `name`:account and `name`:address
    secret: the key of the digests that stand for accounts and addresses in the store; by default the store's
    max_wait: seconds for which an attempt may be held if nothing but attempts in flight is in its way
    memory: seconds for which a block is remembered, so that the next one is longer: by default a day, or as long as the
        slowest limit takes to refill
    remember: seconds for which the address and the device of a log-in are known to its account
    fold: a function that makes one text of all spellings of an account's name

    Only failures count. A success gives back its charges, and forgets the failures of the account before it. An account
    stays open for addresses and devices that have logged in to it before: these have buckets of their own. Raises
    ValueError if an option is out of range.
    """

    def __init__(
        self,
        *,
        account: LimitSpec = "5/15 minutes",
        address: LimitSpec = "50/15 minutes",
        block: Sequence[float] = (60, 300, 1800),
        store: Store | None = None,
        name: str = "login",
        secret: str | bytes | None = None,
        max_wait: float = 5.0,
        memory: float | None = None,
        remember: float = 30 * DAY_S,
        fold: Callable[[str], str] = fold_account,
    ) -> None:
        _check(name, secret, max_wait, fold)
        check_store(store)
        blocks = check_blocks(block)
        limits = {"account": as_limits(account), "address": as_limits(address)}
        remembered = memory_of_blocks(memory, _least_memory(blocks, limits))
        self.name, self.store = name, MemoryStore() if store is None else store
        _warn(self.store, secret, is_own=store is None)

        def count(option: Literal["account", "address"]) -> FailureCount:
            name = f"{self.name}:{option}"
            strikes = Strikes(blocks, remembered, store=self.store, name=name) if blocks else None
            return FailureCount(option, limits[option], strikes, store=self.store, name=name)

        familiar = Familiar(check_seconds("remember", remember, "30 * 86_400"), store=self.store, name=name)
        self._counts = Counts(count("account"), count("address"), familiar, self.store.clock, float(max_wait))
        written = secret.encode() if isinstance(secret, str) else secret
        self._visitors = Visitors(Digests(written or secret_of(self.store)), fold)
        self._operated = self._let_operate()

    def __repr__(self) -> str:
        return f"LoginGuard(name={self.name!r})"

    def attempt(self, account: str | None, address: str | None, device: str | None = None) -> Attempt:
        """An attempt to log in: `async with guard.attempt(account, address) as attempt: ...`.

        account: as it was typed; no name is an account like any other
        address: the client's, as ClientIP has it; all without one share a bucket
        device: a random text that the app keeps in a cookie of the client

        Its beginning raises RateLimited, and StoreUnavailable during an outage that fails closed.
        """
        return Attempt(self._admission(account, address, device))

    async def peek(self, account: str | None, address: str | None = None, device: str | None = None) -> Decision:
        """The decision about an attempt that would come now, without a charge: `remaining` failures are left."""
        return await self._admission(account, address, device).peek()

    async def clear(self, account: str | None, address: str | None = None, device: str | None = None) -> None:
        """Forget the failures and blocks of an account for strangers, and for the address and device if they are named.

        The address itself may have failed with other accounts as well: `clear_address` is for that.
        """
        visit = self._visitors.visit(account, address, device)
        for key in (visit.stranger, *visit.places):
            await self._counts.accounts.reset(key)

    async def clear_address(self, address: str) -> None:
        """Forget the failures and blocks of an address."""
        await self._counts.addresses.reset(self._visitors.visit(None, address, None).address)

    def _let_operate(self) -> tuple[OperatedFailures, OperatedFailures]:
        """Let an operator see the failures, and look up an account or an address by its name."""
        visit, counts = self._visitors.visit, self._counts
        both = (
            OperatedFailures(
                f"{self.name}:account", "failed log-ins, by account",
                counts.accounts, lambda account: visit(account, None, None).stranger,
            ),
            OperatedFailures(
                f"{self.name}:address", "failed log-ins, by address",
                counts.addresses, lambda address: visit(None, address, None).address,
            ),
        )  # fmt: skip
        for one in both:
            let_operate(self.store, one)
        return both

    def _admission(self, account: str | None, address: str | None, device: str | None) -> Admission:
        return Admission(self._counts, partial(self._visitors.visit, account, address), device)


def _check(name: object, secret: object, max_wait: object, fold: object) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f'the name of a guard is a string such as "login", not {name!r}')
    if secret is not None and (not isinstance(secret, (str, bytes)) or not secret):
        kind = "an empty one" if secret in ("", b"") else f"a {type(secret).__name__}"
        raise ValueError(f"secret must be a string or bytes, e.g. os.environ['SECRET'], not {kind}")
    if isinstance(max_wait, bool) or not isinstance(max_wait, (int, float)) or not 0 <= max_wait < math.inf:
        raise ValueError(f"max_wait must be seconds from 0, e.g. max_wait=5, not {max_wait!r}")
    if not callable(fold):
        raise ValueError(f"fold is a function of an account's name, e.g. fold=str.casefold, not {fold!r}")


def _least_memory(blocks: Sequence[float], limits: Mapping[str, Sequence[Limit]]) -> Mapping[str, float]:
    """The seconds that blocks are remembered at least, so that no failure outlives the block that it has caused."""
    refills = {
        f"{option} {str(limit)!r} takes to refill": limit.window_us / 1e6
        for option in limits
        for limit in limits[option]
    }
    return {"the longest block": blocks[-1], **refills} if blocks else {"no time": 0.0}


def _warn(store: Store, secret: object, *, is_own: bool) -> None:
    warn = WarnOnce().warn
    if is_own and inside_a_request():
        warn("ARL106", "a LoginGuard has a store of its own, so it limits nothing; make it once, with the app")
    if not store.shared and several_workers():
        warn("ARL105", "each worker counts failed log-ins for itself; use one worker or a RedisStore")
    if secret is None and has_public_secret(store):
        warn(
            "ARL401",
            "all who can read the store can find out, by trying names, which accounts are in it; give the "
            "RedisStore or the LoginGuard a secret=, the same in every process",
        )
