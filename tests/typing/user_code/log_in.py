"""The guard of a log-in with every option, with and without FastAPI."""

from __future__ import annotations

from typing import Annotated

from fastapi import Cookie, Depends, FastAPI, Form, HTTPException

from asgi_ratelimit import ClientIP, Decision, MemoryStore, RateLimited, SlidingWindow
from asgi_ratelimit.login import Attempt, LoginGuard, fold_account
from asgi_ratelimit.login.fastapi import GuardedLogin


def without_tag(name: str) -> str:
    local, at, host = fold_account(name=name).partition("@")
    return f"{local.partition('+')[0]}{at}{host}"


guard = LoginGuard(
    account=["5/15 minutes", SlidingWindow("50/day")],
    address="50/15 minutes",
    block=[60, 300, 1800],
    store=MemoryStore(),
    name="login",
    secret="from your settings",
    max_wait=2.5,
    memory=86_400,
    remember=30 * 86_400,
    fold=without_tag,
)


def username(username: Annotated[str, Form()]) -> str:
    return username


def device(device: Annotated[str | None, Cookie()] = None) -> str | None:
    return device


login = GuardedLogin(guard, account=username, device=device, client=ClientIP(["10.0.0.0/8"]))
app = FastAPI()


@app.post("/login", responses=login.responses)
def log_in(password: Annotated[str, Form()], attempt: Annotated[Attempt, Depends(login, scope="function")]) -> int:
    if password != "right":
        attempt.failed()
        raise HTTPException(401)
    attempt.succeeded()
    return attempt.decision.remaining


async def plain(name: str, address: str) -> Decision | float:
    try:
        async with guard.attempt(name, address, device=None) as attempt:
            attempt.succeeded(device="a new device")
    except RateLimited as refused:
        return refused.retry_after
    await guard.clear(name, address, "a device")
    await guard.clear_address(address)
    return await guard.peek(name)
