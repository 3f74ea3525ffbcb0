"""The errors, as one tree.

    RateLimitError             the base of every error of this package
    ├── RateLimited            a call was refused; carries the Decision
    └── StoreUnavailable       the store cannot answer, or has no room

    RateLimitWarning           a misconfiguration: it works, but not as its author thinks

A bad limit, cost or option is a plain ValueError, raised where it is written down.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.refusal_headers import refusal_headers

__all__ = ["RateLimitError", "RateLimitWarning", "RateLimited", "StoreUnavailable"]


class RateLimitError(Exception):
    """The base of every error that this package raises. Each can be pickled, as a process pool does."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self.args, vars(self))


def _restored(kind: type[RateLimitError], args: tuple[object, ...], attributes: dict[str, object]) -> RateLimitError:
    """An error as it was. `__init__` is left out: its parameters are not the `args` of the exception."""
    error = kind.__new__(kind, *args)
    vars(error).update(attributes)
    return error


class RateLimited(RateLimitError):
    """A call was refused. `decision` says by which limit, `retry_after` for how many seconds.

    `headers` has what a response of your own needs.
    """

    def __init__(self, decision: Decision) -> None:
        Exception.__init__(self, decision)  # not super(): the FastAPI door makes an HTTPException of it
        self.decision = decision

    @property
    def retry_after(self) -> float:
        """Seconds until the same call would be allowed."""
        return self.decision.retry_after

    @cached_property
    def headers(self) -> dict[str, str]:
        """The headers for a response of your own: Retry-After, `Via` and Discord's X-RateLimit headers."""
        return refusal_headers(self.decision)

    def __str__(self) -> str:
        d = self.decision
        return f"{d.policy.limit} of {d.policy.name!r} is used up; try again in {d.retry_after:.3f} s"


class StoreUnavailable(RateLimitError):
    """The store cannot answer, or has no room for another block."""


class RateLimitWarning(UserWarning):
    """A misconfiguration. Its text starts with a stable code, e.g. `ARL101`; see the README."""
