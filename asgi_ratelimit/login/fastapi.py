"""GuardedLogin: an attempt to log in as a FastAPI dependency."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from inspect import Parameter, Signature, isawaitable
from typing import Any

from starlette.requests import HTTPConnection

try:
    from fastapi import Depends
except ImportError as error:
    raise ImportError(
        "asgi_ratelimit.login.fastapi needs FastAPI: pip install 'asgi-ratelimit-discord[fastapi]'"
    ) from error

from asgi_ratelimit.errors import RateLimited, StoreUnavailable
from asgi_ratelimit.fastapi.refusals import refusal, unavailable
from asgi_ratelimit.fastapi.responses import documented_429
from asgi_ratelimit.inbound.client_ip import by_ip
from asgi_ratelimit.inbound.options import KeyFunction
from asgi_ratelimit.inbound.plain_default import NoPlainDefault
from asgi_ratelimit.inbound.request_state import state_of
from asgi_ratelimit.login.attempt import Attempt
from asgi_ratelimit.login.guard import LoginGuard

__all__ = ["GuardedLogin"]

logger = logging.getLogger("asgi_ratelimit")


class GuardedLogin(NoPlainDefault):
    """A dependency: `attempt: Annotated[Attempt, Depends(GuardedLogin(guard, account=username), scope="function")]`.

    guard: the LoginGuard
    account: a function that returns the account's name; its parameters are filled in as those of any dependency, e.g.
        `def username(username: Annotated[str, Form()]) -> str`
    device: the same for the device, e.g. from a cookie; it may return None
    client: a function of the connection that returns the address, e.g. ClientIP(trusted_proxies=[...])

    With `scope="function"` the result counts before the response is sent, else right after it. A refusal is answered
    with Discord's 429 unless the app has a handler for RateLimited, 429 or HTTPException. Raises ValueError if an
    option is no function.
    """

    def __init__(
        self,
        guard: LoginGuard,
        *,
        account: Callable[..., Any],
        device: Callable[..., Any] | None = None,
        client: KeyFunction = by_ip,
    ) -> None:
        if not isinstance(guard, LoginGuard):
            raise ValueError(f"the guard is a LoginGuard, e.g. LoginGuard(account='5/15 minutes'), not {guard!r:.80}")
        for option, function in (("account", account), ("device", device or account), ("client", client)):
            if not callable(function):
                raise ValueError(f"{option} is a function, not {function!r:.80}")
        self._guard, self._client = guard, client
        self.__signature__ = _signature(account, device)

    async def __call__(self, conn: HTTPConnection, account: Any = None, device: Any = None) -> AsyncIterator[Attempt]:
        """The attempt, while the endpoint runs. Raises RateLimited."""
        address = self._client(conn)  # type: ignore[arg-type]
        if isawaitable(address):
            address = await address
        attempt = self._guard.attempt(account, address, device)
        async with AsyncExitStack() as stack:
            try:
                await stack.enter_async_context(attempt)
            except RateLimited as refused:
                raise await self._refusal(conn, refused) from None
            except StoreUnavailable as error:
                logger.debug("a log-in is answered with 503: %s", error)  # the store itself has logged the outage, once
                await state_of(conn.scope).undo()
                raise unavailable(conn) from error
            yield attempt

    async def _refusal(self, conn: HTTPConnection, refused: RateLimited) -> Exception:
        """The exception, with its headers. Other limits of this request give back their charges."""
        state = state_of(conn.scope)
        await state.undo()
        state.report(refused.decision)
        headers = state.headers("discord", self._guard.store.clock.wall())
        return refusal(conn, refused.decision, headers, None, lambda _: None)

    @property
    def responses(self) -> dict[int | str, dict[str, Any]]:
        """The 429, for a route's `responses=`."""
        return {429: documented_429()}


def _signature(account: Callable[..., Any], device: Callable[..., Any] | None) -> Signature:
    """The parameters that FastAPI injects."""
    names: list[tuple[str, Any, Any]] = [
        ("conn", HTTPConnection, Parameter.empty),
        ("account", Any, Depends(account)),
    ]
    if device is not None:
        names.append(("device", Any, Depends(device)))
    return Signature(
        [Parameter(n, Parameter.KEYWORD_ONLY, annotation=kind, default=default) for n, kind, default in names]
    )
