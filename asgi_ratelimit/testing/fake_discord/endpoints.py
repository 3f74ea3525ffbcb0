"""The endpoints of the fake API: a bot, messages, webhooks, and something plausible for the rest."""

from __future__ import annotations

import itertools
import math
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from asgi_ratelimit.testing.fake_discord.routes import Routes, Segments, Template

__all__ = ["UNKNOWN_WEBHOOK", "EndpointCall", "World", "age_of", "needs_token"]

EPOCH_MS = 1_420_070_400_000  # of Discord's snowflakes
NONCE_LIFE = 300.0  # seconds: "in the past few minutes" in the documentation of enforce_nonce
TOKEN_LIFE = 900.0  # seconds of an interaction's token
OWNER, BOT, GUILD, ORIGINAL = (f"8035111022467891{number}" for number in range(2, 6))

Outcome = tuple[int, Any]  # a status, and the JSON of the response; None: no body


@dataclass(frozen=True, slots=True)
class EndpointCall:
    """One request, as the world sees it."""

    owner: str
    parameters: Mapping[str, str]
    body: Mapping[str, Any]
    query: str
    host: str
    at: float  # seconds of the fake's clock
    wall: float  # epoch seconds, as the server has them


def needs_token(method: str, segments: Segments) -> bool:
    """Whether a request needs a token: not if its path has one."""
    if segments[0] == "interactions" or (method, segments) in _OPEN:
        return False
    return not (segments[0] == "webhooks" and len(segments) > 2)


_OPEN = (("GET", ("gateway",)), ("POST", ("oauth2", "token")))


def age_of(parameters: Mapping[str, str], wall: float) -> float:
    """Seconds since the message that a path names was created. 0 if it names none."""
    number = parameters.get("message_id", "")
    return wall - ((int(number) >> 22) + EPOCH_MS) / 1e3 if number.isdecimal() else 0.0


class World:
    """The state of the fake API: messages, webhooks and interactions that were answered."""

    def __init__(self, application_id: str | None, *, keeps: bool, follow_up_after: float = 0.0) -> None:
        self.messages: list[dict[str, Any]] = []
        self.created = 0
        self._keeps = keeps
        self.webhooks: dict[str, str] = {}
        self._application = application_id or BOT
        self._follow_up_after = follow_up_after
        self.gone: set[str] = set()  # messages
        self._dead: set[str] = set()
        self._answered: OrderedDict[str, float] = OrderedDict()  # tokens of interactions
        self._nonces: OrderedDict[tuple[str, str], tuple[float, dict[str, Any]]] = OrderedDict()
        self._numbers = itertools.count(1)
        self._routes = self._all_routes()

    def find(
        self, method: str, segments: Segments
    ) -> tuple[Template, Callable[[EndpointCall], Outcome], dict[str, str]] | None:
        """The route, its function, and the parameters; None: it is not described here."""
        return self._routes.find(method, segments)

    def otherwise(self, method: str) -> Outcome:
        """The answer of a route that is not described."""
        return (204, None) if method == "DELETE" else (200, {})

    def is_gone(self, segments: Segments, at: float) -> bool:
        """Whether it is about a webhook that was killed, or comes too early after an interaction's callback."""
        if segments[0] != "webhooks" or len(segments) < 2:
            return False
        answered = self._answered.get(segments[2], -math.inf) if len(segments) > 2 else -math.inf
        return segments[1] in self._dead or at < answered + self._follow_up_after

    def kill_webhook(self, webhook_id: str) -> None:
        self._dead.add(webhook_id)
        self.webhooks.pop(webhook_id, None)

    def _all_routes(self) -> Routes[Callable[[EndpointCall], Outcome]]:
        routes: Routes[Callable[[EndpointCall], Outcome]] = Routes()
        message = "/channels/{channel_id}/messages/{message_id}"
        reaction = message + "/reactions/{emoji}"
        webhook = "/webhooks/{webhook_id}"
        follow_up = webhook + "/{webhook_token}/messages/{message_id}"
        for name, carry_out in {
            "GET /gateway": self._gateway,
            "GET /gateway/bot": self._gateway,
            "GET /users/@me": lambda call: (200, _user(BOT, is_bot=True) | _ABOUT_ITSELF),
            "GET /users/{user_id}": lambda call: (200, _user(call.parameters["user_id"])),
            "POST /users/@me/channels": self._private_channel,
            "GET /oauth2/applications/@me": self._its_application,
            "GET /applications/@me": self._its_application,
            "GET /channels/{channel_id}": lambda call: (200, _channel(call.parameters["channel_id"])),
            "PATCH /channels/{channel_id}": lambda call: (
                200,
                _channel(call.parameters["channel_id"]) | dict(call.body),
            ),
            "POST /channels/{channel_id}/messages": self._create_message,
            "GET /channels/{channel_id}/messages": self._list_messages,
            "GET " + message: self._show_message,
            "PATCH " + message: self._show_message,
            "DELETE " + message: self._delete_message,
            f"PUT {reaction}/@me": _nothing,
            "POST /channels/{channel_id}/typing": _nothing,
            "GET /guilds/{guild_id}": lambda call: (200, _guild(call.parameters["guild_id"])),
            "PUT /guilds/{guild_id}/bans/{user_id}": _nothing,
            "PUT /guilds/{guild_id}/members/{user_id}/roles/{role_id}": _nothing,
            "POST /channels/{channel_id}/webhooks": self._create_webhook,
            "GET " + webhook: self._show_webhook,
            "DELETE " + webhook: self._delete_webhook,
            f"GET {webhook}/{{webhook_token}}": self._show_webhook,
            f"DELETE {webhook}/{{webhook_token}}": self._delete_webhook,
            f"POST {webhook}/{{webhook_token}}": self._execute_webhook,
            "GET " + follow_up: self._show_message,
            "PATCH " + follow_up: self._show_message,
            "DELETE " + follow_up: self._delete_message,
            "POST /interactions/{interaction_id}/{interaction_token}/callback": self._answer_interaction,
            "GET /oauth2/@me": self._its_authorization,
            "POST /oauth2/token": lambda call: (401, {"error": "invalid_client"}),
        }.items():
            routes.add(Template(name), carry_out)
        return routes

    def _gateway(self, call: EndpointCall) -> Outcome:
        starts = {"total": 1000, "remaining": 1000, "reset_after": 0, "max_concurrency": 1}
        return 200, {"url": f"ws://{call.host}", "shards": 1, "session_start_limit": starts}

    def _its_application(self, call: EndpointCall) -> Outcome:
        fields = {"id": self._application, "name": "bot", "description": "", "icon": None, "verify_key": "", "flags": 0}
        fields |= {"summary": ""}  # of old; interactions.py requires it
        counts = {"approximate_guild_count": 1, "approximate_user_install_count": 0}
        rights = {"bot_public": True, "bot_require_code_grant": False, "owner": _user(OWNER), "team": None}
        return 200, fields | counts | rights

    def _private_channel(self, call: EndpointCall) -> Outcome:
        person = str(call.body.get("recipient_id", OWNER))
        return 200, {"id": person, "type": 1, "last_message_id": None, "recipients": [_user(person)]}

    def _create_message(self, call: EndpointCall) -> Outcome:
        nonce = call.body.get("nonce")
        if nonce is None or call.body.get("enforce_nonce") is not True:
            return 200, self._new_message(call)
        while self._nonces and next(iter(self._nonces.values()))[0] <= call.at - NONCE_LIFE:
            self._nonces.popitem(last=False)
        seen = self._nonces.get((call.owner, str(nonce)))
        if seen is None:
            seen = self._nonces[call.owner, str(nonce)] = call.at, self._new_message(call)
        return 200, seen[1]

    def _new_message(self, call: EndpointCall, **more: Any) -> dict[str, Any]:
        message = _message(self._new_id(call.wall), call) | more
        self.created += 1
        if self._keeps:
            self.messages.append(message)
        return message

    def _list_messages(self, call: EndpointCall) -> Outcome:
        channel = call.parameters["channel_id"]
        here = [m for m in self.messages if m["channel_id"] == channel and m["id"] not in self.gone]
        return 200, here[:-51:-1]

    def _show_message(self, call: EndpointCall) -> Outcome:
        wanted = call.parameters["message_id"].replace("@original", ORIGINAL)
        if wanted in self.gone:
            return UNKNOWN_MESSAGE
        message = self._message_of(wanted)
        return 200, (message or _message(wanted, call)) | dict(call.body)

    def _delete_message(self, call: EndpointCall) -> Outcome:
        wanted = call.parameters["message_id"]
        if wanted in self.gone:
            return UNKNOWN_MESSAGE
        if self._message_of(wanted) is not None:  # others are made up, and can be deleted again and again
            self.gone.add(wanted)
        return 204, None

    def _message_of(self, message_id: str) -> dict[str, Any] | None:
        return next((message for message in self.messages if message["id"] == message_id), None)

    def _answer_interaction(self, call: EndpointCall) -> Outcome:
        while self._answered and next(iter(self._answered.values())) <= call.at - TOKEN_LIFE:
            self._answered.popitem(last=False)
        token = call.parameters["interaction_token"]
        if token in self._answered:
            return 400, {"message": "Interaction has already been acknowledged.", "code": 40060}
        self._answered[token] = call.at
        return 204, None

    def _its_authorization(self, call: EndpointCall) -> Outcome:
        """It is about a Bearer token; any bot's is refused by design."""
        if not call.owner.startswith("Bearer "):
            return 401, {"message": "401: Unauthorized", "code": 0}
        return 200, {"application": {"id": self._application, "name": "bot"}, "scopes": ["identify"]}

    def _create_webhook(self, call: EndpointCall) -> Outcome:
        webhook_id = self._new_id(call.wall)
        self.webhooks[webhook_id] = f"token-of-{webhook_id}"
        return 200, _webhook(webhook_id, self.webhooks[webhook_id], call.parameters["channel_id"])

    def _show_webhook(self, call: EndpointCall) -> Outcome:
        webhook_id = call.parameters["webhook_id"]
        return 200, _webhook(webhook_id, self._token_of(call), GUILD)

    def _delete_webhook(self, call: EndpointCall) -> Outcome:
        self.kill_webhook(call.parameters["webhook_id"])
        return 204, None

    def _execute_webhook(self, call: EndpointCall) -> Outcome:
        webhook_id = call.parameters["webhook_id"]
        if webhook_id != self._application:
            self.webhooks[webhook_id] = self._token_of(call)
        message = self._new_message(call, webhook_id=webhook_id)
        return (200, message) if "wait=true" in call.query.lower().split("&") else (204, None)

    def _token_of(self, call: EndpointCall) -> str:
        webhook_id = call.parameters["webhook_id"]
        return call.parameters.get("webhook_token") or self.webhooks.get(webhook_id, f"token-of-{webhook_id}")

    def _new_id(self, wall: float) -> str:
        return str((max(0, round(wall * 1000) - EPOCH_MS) << 22) + next(self._numbers))


UNKNOWN_WEBHOOK: Outcome = (404, {"message": "Unknown Webhook", "code": 10015})
UNKNOWN_MESSAGE: Outcome = (404, {"message": "Unknown Message", "code": 10008})


_ABOUT_ITSELF = {"mfa_enabled": False, "locale": "en-US", "verified": True, "email": None, "premium_type": 0}


def _nothing(call: EndpointCall) -> Outcome:
    return 204, None


def _user(user_id: str, *, is_bot: bool = False) -> dict[str, Any]:
    fields = {"id": user_id, "username": f"user {user_id}", "discriminator": "0", "avatar": None, "global_name": None}
    return {**fields, "bot": is_bot, "flags": 0, "public_flags": 0}


def _channel(channel_id: str) -> dict[str, Any]:
    fields = {"id": channel_id, "type": 0, "guild_id": GUILD, "name": f"channel-{channel_id}", "position": 0}
    return {
        **fields,
        "permission_overwrites": [],
        "topic": None,
        "nsfw": False,
        "parent_id": None,
        "last_message_id": None,
    }


def _guild(guild_id: str) -> dict[str, Any]:
    return {"id": guild_id, "name": f"guild {guild_id}", "icon": None, "owner_id": OWNER, "features": []}


def _webhook(webhook_id: str, token: str, channel_id: str) -> dict[str, Any]:
    fields = {"id": webhook_id, "type": 1, "token": token, "name": "webhook", "avatar": None, "guild_id": GUILD}
    return {**fields, "channel_id": channel_id, "application_id": None, "user": _user(BOT, is_bot=True)}


def _message(message_id: str, call: EndpointCall) -> dict[str, Any]:
    at = datetime.fromtimestamp(call.wall, UTC).isoformat()
    message: dict[str, Any] = {
        "id": message_id,
        "channel_id": call.parameters.get("channel_id", GUILD),
        "author": _user(BOT, is_bot=True),
        "content": call.body.get("content", ""),
        "timestamp": at,
        "edited_timestamp": None,
        "tts": False,
        "mention_everyone": False,
        "pinned": False,
        "type": 0,
        "flags": 0,
    }
    message |= {name: [] for name in ("mentions", "mention_roles", "attachments", "embeds", "components")}
    return message if "nonce" not in call.body else {**message, "nonce": call.body["nonce"]}
