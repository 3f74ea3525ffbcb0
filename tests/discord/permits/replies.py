"""How the tests of permits name their calls, and read what they get."""

from __future__ import annotations

from itertools import count

from asgi_ratelimit.discord.permits.memory import Granted, Permit, Wait

__all__ = ["Names", "cause_of", "new_call", "permit_of", "wait_of"]

Names = tuple[str, str, str, int]  # the arguments of `take`
_numbers = count()


def new_call(major: str = "1", route: str = "GET /a", per_second: int = 50) -> Names:
    return f"permit{next(_numbers)}", route, major, per_second


def permit_of(reply: Granted | Wait) -> Permit:
    assert isinstance(reply, Granted), reply
    return reply.permit


def cause_of(reply: Granted | Wait) -> str:
    """Why there is no permit; "" where there is one."""
    return reply.cause if isinstance(reply, Wait) else ""


def wait_of(reply: Granted | Wait) -> int:
    """Microseconds; 0 where there is a permit."""
    return reply.wait_us if isinstance(reply, Wait) else 0
