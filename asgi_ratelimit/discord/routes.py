"""The route of a call to Discord, read from its method and path."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import blake2b
from typing import Final
from urllib.parse import unquote

__all__ = ["CALLBACK", "Route", "prefix_of", "route_of"]

CALLBACK: Final = 3.0  # seconds in which an interaction has to be answered,
FOLLOW_UP: Final = 900.0  # and those for which its token lives

EPOCH_MS: Final = 1_420_070_400_000  # of every snowflake
OLD: Final = 14 * 86_400.0
HOUR: Final = 3_600.0
FIRST_IN_SECONDS: Final = 8  # the version of the API whose 429s count in seconds
YOUNG: Final = 10.0

CREATE_MESSAGE: Final = "POST /channels/{channel_id}/messages"
DELETE_MESSAGE: Final = "DELETE /channels/{channel_id}/messages/{message_id}"
EDIT_MESSAGE: Final = "PATCH /channels/{channel_id}/messages/{message_id}"
EDIT_CHANNEL: Final = "PATCH /channels/{channel_id}"
REACTIONS: Final = ("channels", "{channel_id}", "messages", "{message_id}", "reactions")
CHANGE_REACTIONS: Final = "PUT|DELETE /channels/{channel_id}/messages/{message_id}/reactions"

MAJORS: Final = frozenset({"channels", "guilds", "webhooks", "interactions"})
TOKENS: Final = frozenset({"{webhook_token}", "{interaction_token}"})
INTERACTION: Final = "aW50ZXJhY3Rpb246"  # the beginning of every interaction's token: "interaction:" in base64

# The segment after one of these is always a parameter.
ALWAYS: Final = {
    "activity-instances": "{instance_id}",
    "interactions": "{interaction_id}",
    "{interaction_id}": "{interaction_token}",
    "invites": "{invite_code}",
    "reactions": "{emoji}",
    "templates": "{template_code}",
    "webhooks": "{webhook_id}",
    "{webhook_id}": "{webhook_token}",
}
# Parameters that are not called after the word before them.
NAMED: Final = {
    "bans": "{user_id}",
    "members": "{user_id}",
    "permissions": "{overwrite_id}",
    "pins": "{message_id}",
    "polls": "{message_id}",
    "recipients": "{user_id}",
    "soundboard-sounds": "{sound_id}",
    "stage-instances": "{channel_id}",
    "thread-members": "{user_id}",
    "voice-states": "{user_id}",
    "{emoji}": "{user_id}",
}

DEEPEST: Final = 12  # segments that are looked at; the deepest endpoint has seven
LONGEST: Final = 512  # characters of a path that is worth remembering
LONGEST_WORD: Final = 32
DIGITS: Final = 20  # of the largest snowflake

_VERSIONED: Final = re.compile(r"(?:.*/)?api/v\d++(?![^/])", re.DOTALL)
_UNVERSIONED: Final = re.compile(r"(?:.*/)?api(?=/+[^/])", re.DOTALL)
_JOINS: Final = str.maketrans("-.", "__")
_WORD: Final = re.compile(r"@?[a-z]+[0-9]?(?:[-_.][a-z]+[0-9]?)*+")


@dataclass(frozen=True, slots=True)
class Route:
    """The parts of a call that Discord's limits distinguish before its bucket is learned. Equal calls, equal routes.

    `name` is the method and the path's template, with the kind where Discord counts one kind of a call by itself. All
    adding and removing of reactions has one name, as it has one bucket. `major` is the top-level resource (channel,
    guild or webhook; an interaction), a token in it only as a digest; "" where there is none. An `exempt` call does not
    count towards the global limit. `lifetime` is the seconds after which Discord refuses it in any case. A call that
    `creates_message` may carry a nonce. A `webhook` call is addressed by a webhook's token: a 404 ends that webhook.
    Unless a call `bears_token`, the bot's token has no business in it. Where a 401 `judges_token`, it may be about the
    token of the call; elsewhere it is about a secret or a scope. Its 429s count `in_milliseconds` in versions of the
    API below 8, and so they do in a path without one, which means version 6.
    https://discord.com/developers/docs/reference#api-versioning
    The limit of a `hidden` one shows in its 429s only: its other responses report the bucket around it.
    """

    name: str
    major: str
    exempt: bool
    lifetime: float | None
    creates_message: bool
    webhook: bool
    bears_token: bool
    judges_token: bool
    in_milliseconds: bool = field(compare=False)
    hidden: bool = False

    def __str__(self) -> str:
        """The route for people: its name and its top-level resource, without any token."""
        return f"{self.name} [{self.major}]" if self.major else self.name


def route_of(
    method: str,
    path: str,
    *,
    application_id: str | None = None,
    body: Mapping[str, object] | None = None,
    wall: float | None = None,
) -> Route:
    """The route of a call; never raises for a path, however odd.

    `path` is a raw URL path, percent-encoded or not; all up to the last "/api/vN" or "/api" is left out. The
    follow-ups of interactions are known by their token, or by the `application_id`. `body` is the JSON that is sent:
    a channel's name and topic have a limit of their own. `wall` is the time now in epoch seconds: deleting a message
    older than 14 days or younger than 10 s has a limit of its own, too, and so has editing one older than an hour.
    Source: Discord's documentation of rate limits and its tracker.
    """
    parsed = _parsed if len(path) <= LONGEST else _parsed.__wrapped__
    route = parsed(method.upper(), path, application_id)
    kind = _kind(route.name, path, body, wall)
    return replace(route, name=f"{route.name} ({kind})", hidden=route.name == EDIT_CHANNEL) if kind else route


@lru_cache(maxsize=1024)
def _parsed(method: str, path: str, application_id: str | None) -> Route:
    segments = _segments(path)
    template = _template(segments)
    name = _name(method, template)
    token = len(template) > 2 and template[2] in TOKENS
    interaction = token and segments[0] == "interactions"
    follow_up = token and not interaction and (segments[1] == application_id or segments[2].startswith(INTERACTION))
    bears_token = not (interaction or follow_up or template[:2] == ["oauth2", "token"])
    return Route(
        name=_of_an_interaction(name) if follow_up else name,
        major=_major(segments, template, token),
        exempt=interaction or follow_up,
        lifetime=FOLLOW_UP if follow_up else CALLBACK if interaction and template[3:] == ["callback"] else None,
        creates_message=name == CREATE_MESSAGE,
        webhook=token and not interaction and not follow_up,
        bears_token=bears_token,
        judges_token=bears_token and not token and template[:1] != ["oauth2"],
        in_milliseconds=_is_in_milliseconds(path),
    )


def prefix_of(path: str) -> str:
    """What stands before the API's own path: "/api/v10"; "" if there is no such thing."""
    prefix = _VERSIONED.match(path) or _UNVERSIONED.match(path)
    return prefix[0] if prefix else ""


def _is_in_milliseconds(path: str) -> bool:
    _, slash, version = prefix_of(path.partition("?")[0]).rpartition("/api")
    return bool(slash) and int(version.removeprefix("/v") or 6) < FIRST_IN_SECONDS


def _segments(path: str) -> list[str]:
    """The path's own segments, decoded one by one: an encoded slash divides nothing."""
    path = path.partition("?")[0].partition("#")[0]
    own = path[len(prefix_of(path)) :]
    segments = [segment for segment in own.split("/") if segment][:DEEPEST]
    return [unquote(segment) if "%" in segment else segment for segment in segments]


def _template(segments: list[str]) -> list[str]:
    template: list[str] = []
    before = ""
    for segment in segments:
        before = ALWAYS.get(before) or (segment if _is_word(segment) else _parameter(before))
        template.append(before)
    return template


def _is_word(segment: str) -> bool:
    """Whether it is a part of the API itself: no id, and nothing so long or so mixed as a code or a token."""
    return len(segment) <= LONGEST_WORD and _WORD.fullmatch(segment) is not None


@lru_cache(maxsize=256)
def _parameter(before: str) -> str:
    """The name of an id, from the word before it: "{lobby_id}" after "lobbies"."""
    if before in NAMED:
        return NAMED[before]
    if not before or before[0] in "{@":
        return "{id}"
    one = f"{before[:-3]}y" if before.endswith("ies") else before.removesuffix("s")
    return f"{{{one.translate(_JOINS)}_id}}"


def _name(method: str, template: list[str]) -> str:
    if method in ("PUT", "DELETE") and tuple(template[:5]) == REACTIONS:
        return CHANGE_REACTIONS
    return f"{method} /{'/'.join(template)}"


def _of_an_interaction(name: str) -> str:
    return name.replace("{webhook_id}/{webhook_token}", "{application_id}/{interaction_token}", 1)


def _major(segments: list[str], template: list[str], token: bool) -> str:
    """The top-level resource: only as the path's beginning, so a guild's commands under an application have none."""
    if len(template) < 2 or segments[0] not in MAJORS or template[1][0] != "{":
        return ""
    major = f"{segments[0]}/{segments[1] if _is_id(segments[1]) else _digest(segments[1])}"
    return f"{major}/{_digest(segments[2])}" if token else major


def _is_id(segment: str) -> bool:
    return len(segment) <= DIGITS and segment.isascii() and segment.isdigit()


def _digest(secret: str) -> str:
    return blake2b(secret.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _kind(name: str, path: str, body: Mapping[str, object] | None, wall: float | None) -> str:
    """The kind of call that Discord counts by itself within a route, else ""."""
    if name == EDIT_CHANNEL and body:
        return "name" if "name" in body or "topic" in body else ""
    if name not in (DELETE_MESSAGE, EDIT_MESSAGE) or wall is None:
        return ""
    message = _segments(path)[3]
    if not _is_id(message):
        return ""
    age = wall - ((int(message) >> 22) + EPOCH_MS) / 1000
    if name == EDIT_MESSAGE:
        return "older than an hour" if age > HOUR else ""
    return "older than 14 days" if age > OLD else "younger than 10 s" if age < YOUNG else ""
