"""The key of an interaction's bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

__all__ = ["KEYS", "Interaction", "InteractionKey"]

Interaction = dict[str, Any]
InteractionKey = Callable[[Interaction], str | Awaitable[str | None] | None]  # None: no identity


def _user(interaction: Interaction) -> str:
    for holder in (interaction.get("member"), interaction):
        user = holder.get("user") if isinstance(holder, dict) else None
        user_id = _id(user.get("id")) if isinstance(user, dict) else ""
        if user_id:
            return f"user:{user_id}"
    return ""


def _guild(interaction: Interaction) -> str:
    guild_id = _id(interaction.get("guild_id"))
    return f"guild:{guild_id}" if guild_id else _user(interaction)


def _command(interaction: Interaction) -> str:
    command, user = interaction.get("data"), _user(interaction)
    name = command.get("name", command.get("custom_id")) if isinstance(command, dict) else None
    return f"{user}:{name}" if user and isinstance(name, str) else user


def _id(value: object) -> str:
    return str(value) if isinstance(value, str) or type(value) is int else ""


KEYS: dict[str, InteractionKey] = {"user": _user, "guild": _guild, "command": _command}
