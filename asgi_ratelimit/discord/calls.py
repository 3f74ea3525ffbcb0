"""A call from its first attempt to its last, the bounds on all calls of a token, and calls that wait."""

from __future__ import annotations

from dataclasses import dataclass

from asgi_ratelimit.discord.errors import LONG_WAIT_S
from asgi_ratelimit.discord.routes import Route

__all__ = ["Call", "CallLimits", "Waiting"]


@dataclass(frozen=True, slots=True)
class CallLimits:
    """The bounds on all calls of a token: the number in any second, and the number without a response.

    `spare` calls of each bucket are left to others.
    """

    per_second: int = 50
    in_flight: int = 100
    spare: int = 0

    def __post_init__(self) -> None:
        for name, value in (("global_limit", self.per_second), ("max_in_flight", self.in_flight)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be a whole number of calls from 1, e.g. 50, not {value!r}")
        if isinstance(self.spare, bool) or not isinstance(self.spare, int) or self.spare < 0:
            raise ValueError(f"min_remaining must be a whole number of calls from 0, e.g. 1, not {self.spare!r}")


@dataclass(slots=True, eq=False)
class Call:
    """A call from its first attempt to its last.

    priority     higher ones go first
    is_safe      sent twice it does no harm
    deadline_us  when it is of no more use, on the store's clock; None: never
    due_us       until when it may wait for its next permit
    patience_us  until when it may wait for responses that show whether there is one; None: `due_us`
    rank         its place among other calls, the same for every attempt
    has_waited   its "wait" event has been emitted; `waits_long`: that of a long wait, which lasts
    wait_cause   why it waits; "" once it goes
    waited_us    how long it has waited for permits so far
    failures     attempts that failed; `refusals`: attempts that drew a 429
    probes       it is the first one after a ban
    retries      attempts after failures that it may have, if it has a number of its own
    """

    route: Route
    priority: int = 0
    is_safe: bool = True
    deadline_us: int | None = None
    due_us: int | None = None
    patience_us: int | None = None
    rank: tuple[int, int] | None = None
    has_waited: bool = False
    waits_long: bool = False
    wait_cause: str = ""
    waited_us: int = 0
    failures: int = 0
    refusals: int = 0
    retries: int | None = None
    probes: bool = False

    def note_wait(self, seconds: float, cause: str) -> bool:
        """Whether this wait is news: the first one is, and the first long one."""
        self.wait_cause = self.wait_cause or cause
        is_long = seconds >= LONG_WAIT_S
        is_news = not self.has_waited or (is_long and not self.waits_long)
        self.has_waited, self.waits_long = True, self.waits_long or is_long
        return is_news


@dataclass(frozen=True, slots=True)
class Waiting:
    """Calls that wait, as `client.waiting` shows them: route, number, cause, and the state of the bucket."""

    route: str
    calls: int
    cause: str
    seconds: float
    bucket: str
    limit: int
    remaining: int
