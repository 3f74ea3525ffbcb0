"""The errors of calls to Discord, and the events of a client.

    RateLimitError
    └── DiscordError               a call was not made; `route` is its route
        ├── DiscordRateLimited     it would have to wait for longer than it may
        ├── InvalidBudgetSpent     so many invalid requests lately that Discord is about to ban the address
        ├── TokenRejected          Discord has answered 401: this token is dead
        └── WebhookGone            Discord has answered that this webhook does not exist

An answer of Discord is a response, not an error. So is a failure that outlasts all retries.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

from asgi_ratelimit.discord.routes import Route
from asgi_ratelimit.errors import RateLimitError

__all__ = [
    "LONG_WAIT_S",
    "Cause",
    "DiscordError",
    "DiscordEvent",
    "DiscordRateLimited",
    "EventHook",
    "InvalidBudgetSpent",
    "Kind",
    "TokenRejected",
    "WebhookGone",
    "words_of",
]

Cause = Literal["bucket", "route", "global", "answer", "stopped", "banned", "retry", "invalid", "token", "late"]
Kind = Literal["wait", "waited", "limited", "retry", "stopped", "banned", "invalid", "token", "webhook"]


class DiscordError(RateLimitError):
    """A call that was not made. `route` is its kind, without any token."""

    def __init__(self, route: Route, message: str) -> None:
        super().__init__(f"{route}: {message}")
        self.route = route


class DiscordRateLimited(DiscordError):
    """The call would have to wait for longer than `max_wait` or its deadline.

    retry_after  seconds until it could go, as far as the responses show it
    scope        the kind of limit: "user", "global", "shared" or "cloudflare"
    cause        the reason of the wait
    """

    def __init__(self, route: Route, retry_after: float, cause: Cause, bucket: str = "") -> None:
        problem = f"would have to wait for {retry_after:.3f} s ({_WORDS[cause]}), longer than it may"
        super().__init__(route, "not sent: its deadline has passed" if cause == "late" else problem)
        self.retry_after, self.cause, self.bucket = retry_after, cause, bucket
        self.scope = _SCOPES.get(cause, "user")


class InvalidBudgetSpent(DiscordError):
    """Nearly as many requests were answered with 401, 403 or 429 as Discord bears; past that it bans the address.

    https://discord.com/developers/docs/topics/rate-limits#invalid-request-limit-aka-cloudflare-bans
    """

    def __init__(self, route: Route, used: int, allowed: int, retry_after: float) -> None:
        super().__init__(
            route,
            f"not sent: {used} of {allowed} invalid requests (401, 403, 429) in 10 minutes are used up, and Discord "
            f"bans the address beyond that. Find out what is refused; the next may go in {retry_after:.0f} s.",
        )
        self.used, self.allowed, self.retry_after = used, allowed, retry_after


class TokenRejected(DiscordError):
    """Discord has answered 401 to this token, twice; further calls would only use up the invalid budget.

    retry_after  seconds after which a call is sent again, and finds out whether the token is good by now
    """

    def __init__(self, route: Route, retry_after: float = 0.0) -> None:
        super().__init__(
            route,
            "not sent: Discord has rejected the token (401). Make a new client with the bot's present token. With this "
            f"one the next call may go in {retry_after:.0f} s.",
        )
        self.retry_after = retry_after


class WebhookGone(DiscordError):
    """Discord has answered that this webhook does not exist, or that its token is wrong.

    retry_after  seconds after which a call is sent again, and finds out whether it exists by now
    """

    def __init__(self, route: Route, retry_after: float = 0.0) -> None:
        super().__init__(
            route,
            "not sent: Discord has answered that this webhook does not exist; stop using it. The next call may go in "
            f"{retry_after:.0f} s.",
        )
        self.retry_after = retry_after


LONG_WAIT_S: Final = 30.0  # of such a wait an operator wants to know

_WORDS: Final[dict[str, str]] = {
    "bucket": "its bucket is empty",
    "route": "Discord has refused calls of this kind",
    "global": "the global limit",
    "answer": "the answers to calls in flight",
    "stopped": "Discord has refused everything",
    "banned": "Cloudflare has banned this address",
    "retry": "before the next attempt",
    "invalid": "too many invalid requests",
    "late": "its deadline has passed",
    "token": "Discord is asked whether it still accepts the token",
}
_SCOPES: Final[dict[str, str]] = {
    "global": "global",
    "stopped": "global",
    "banned": "cloudflare",
    "invalid": "cloudflare",
    "route": "shared",
}


def words_of(cause: str) -> str:
    """The cause of a wait for people."""
    return _WORDS.get(cause, cause)


@dataclass(frozen=True, slots=True)
class DiscordEvent:
    """An event of a client, for `on_event`. It contains no token.

    "wait": a call is held back because of `cause`, for about `seconds`; again, if that becomes 30 s or more. "waited":
    such a long wait is over, after `seconds`. "limited": a 429 came. "retry": a call will be
    sent again. "stopped", "banned": a 429 that stops everything (global, Cloudflare). "invalid": the budget of invalid
    requests is half used up, or worse. "token", "webhook": Discord has rejected it; nothing is sent for `seconds`.
    """

    kind: Kind
    route: str
    seconds: float = 0.0
    cause: str = ""
    bucket: str = ""
    status: int = 0
    attempt: int = 0


class EventHook(Protocol):
    """A function that receives each DiscordEvent."""

    def __call__(self, event: DiscordEvent, /) -> object: ...
