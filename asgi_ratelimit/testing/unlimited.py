"""unlimited: tests of an app that are not about its limits."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ContextDecorator
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, TypeVar

from asgi_ratelimit.off_switch import OFF_SWITCH

__all__ = ["unlimited"]

Test = TypeVar("Test", bound=Callable[..., Any])


class unlimited(ContextDecorator):  # noqa: N801  (a context manager is spelled like a function)
    """Within it every limiter of this process allows each call, and counts none: `with unlimited(): ...`.

    It is a decorator of tests, too, sync and async: `@unlimited()`.

    That is true in every thread, for limiters that exist and for new ones: middleware, dependencies, InteractionLimit,
    Limiter and SyncLimiter. A Decision is made all the same, of a full bucket. Blocks do not refuse either. Calls to
    Discord keep to Discord's limits. A fixture of pytest is `with unlimited(): yield`.
    """

    def __enter__(self) -> None:
        OFF_SWITCH.turn(off=True)

    def __exit__(self, *exc_info: object) -> None:
        OFF_SWITCH.turn(off=False)

    def __call__(self, test: Test) -> Test:
        """The test within it. An async one is within it until it ends, not only while it is called."""
        if not iscoroutinefunction(test):
            return super().__call__(test)

        @wraps(test)
        async def unlimited_test(*args: Any, **options: Any) -> Any:
            with self:
                return await test(*args, **options)

        return unlimited_test  # type: ignore[return-value]
