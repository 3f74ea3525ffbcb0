"""Who may see the page: those that the user's own dependency lets in. Changes come from its own pages only."""

from __future__ import annotations

from collections.abc import Callable
from inspect import isawaitable
from typing import Any
from urllib.parse import urlsplit

from fastapi import Depends, HTTPException, Request, Response, params

__all__ = ["Access", "behind", "check_origin"]

Access = Callable[..., Any] | params.Depends

_RIGHT = (
    "access=operator, with `def operator(user=Depends(current_user)): ...` that raises HTTPException(403) for others"
)


def behind(access: object) -> params.Depends:
    """The dependency of every route. Raises ValueError if there is none that could refuse anybody."""
    if access is None or not (callable(access) or isinstance(access, params.Depends)):
        raise ValueError(f"access is a dependency that lets in operators only, not {access!r}: write {_RIGHT}")
    if isinstance(access, params.Depends) and access.dependency is None:
        raise ValueError(f"access has a Depends() without a function: write {_RIGHT}")
    depends = access if isinstance(access, params.Depends) else Depends(access)

    async def let_in(granted: Any = depends) -> None:
        if _is_refusal(granted):
            raise HTTPException(403, "This page is for operators.")

    gate: params.Depends = Depends(let_in)
    return gate


def _is_refusal(granted: Any) -> bool:
    """Whether this result of the dependency is a refusal. None lets in: a function that only raises returns it.

    A response, such as a redirect to the log-in, is meant as one. A coroutine was not awaited: it says nothing.
    """
    if isinstance(granted, Response) or isawaitable(granted):
        return True
    return granted is not None and not granted


async def check_origin(request: Request) -> None:
    """Refuse a request that a page of another site may have sent (cross-site request forgery).

    A browser says with Sec-Fetch-Site where a request comes from, or at least with Origin. A program that is no browser
    has to send `Sec-Fetch-Site: same-origin` itself.
    """
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    if site is not None:
        is_own = site.lower() == "same-origin"
    else:
        is_own = bool(origin) and _place(origin or "") == request.headers.get("host", "").lower()
    if not is_own:
        raise HTTPException(403, "Changes are made from the page itself. A program sends Sec-Fetch-Site: same-origin.")


def _place(origin: str) -> str | None:
    """The host and port of an origin; None for "null" and anything odd."""
    try:
        return urlsplit(origin).netloc.lower() or None
    except ValueError:
        return None
