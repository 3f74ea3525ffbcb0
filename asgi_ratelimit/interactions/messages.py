"""The messages to a user whose interaction may not pass, in their language, with Discord's own countdown."""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping
from inspect import isawaitable
from typing import Any

from asgi_ratelimit.decision import Decision
from asgi_ratelimit.inbound.options import check_call

__all__ = ["Messages", "Text", "Unavailable", "check_text"]

logger = logging.getLogger("asgi_ratelimit")

Unavailable = str | Mapping[str, str]
Text = Unavailable | Callable[[dict[str, Any], Decision], str | Awaitable[str]]

_TOO_OFTEN = "You are doing that too often. Try again {when}."
_PUT_OFF = "This cannot be answered right now. Please try again shortly."
_LONGEST = 2000  # characters of a message, Discord's own limit
_PLACE = re.compile(r"\{(\w*)\}")


def check_text(option: str, text: Any) -> Any:
    """The text. Raises ValueError if it is none. Only the one for a limited user may have a `{when}`."""
    if text is None or (callable(text) and option == "text"):
        if text is not None:
            check_call(option, text, "interaction", "decision")
        return text
    texts = list(text.values()) if isinstance(text, Mapping) else [text]
    if not texts or not all(isinstance(one, str) and 0 < len(one) <= _LONGEST for one in texts):
        raise ValueError(
            f"{option} must be a string of 1 to {_LONGEST} characters such as {_TOO_OFTEN!r}, "
            f'or a dict such as {{"en-US": …, "de": …}}, not {text!r:.200}'
        )
    allowed_place = "when" if option == "text" else None
    unknown = [place for one in texts for place in _PLACE.findall(one) if place != allowed_place]
    if unknown:
        allowed = "a {when}, which becomes the countdown, but no" if allowed_place else "no"
        raise ValueError(f"{option} may have {allowed} {{{unknown[0]}}}")
    return text


class Messages:
    """The two messages: to a limited user, and to every user during an outage that fails closed."""

    def __init__(self, text: Text | None, unavailable: Unavailable | None) -> None:
        self._text: Text = _TOO_OFTEN if text is None else text
        self._unavailable: Unavailable = _PUT_OFF if unavailable is None else unavailable

    async def limited(self, interaction: dict[str, Any], decision: Decision, wall: float) -> str:
        """Refused at `wall`, in epoch seconds; the countdown ends at the first whole second that allows it."""
        if callable(self._text):
            content = self._text(interaction, decision)
            if isawaitable(content):
                content = await content
            if not isinstance(content, str) or not content:
                logger.warning("the text for a limited user must be a string, not %.80r", content)
                content = _TOO_OFTEN
        else:
            content = _in_locale(self._text, interaction, _TOO_OFTEN)
        return _timed(content, wall + decision.retry_after)

    def unavailable(self, interaction: dict[str, Any]) -> str:
        """The message during an outage."""
        return _in_locale(self._unavailable, interaction, _PUT_OFF)


def _in_locale(texts: str | Mapping[str, str], interaction: dict[str, Any], otherwise: str) -> str:
    if isinstance(texts, str):
        return texts
    locale = interaction.get("locale")
    wanted = [locale, locale.split("-")[0]] if isinstance(locale, str) else []
    return next((texts[each] for each in (*wanted, "default", "en-US") if each in texts), otherwise)


def _timed(content: str, until: float) -> str:
    return content.replace("{when}", f"<t:{math.ceil(until)}:R>")[:_LONGEST]
