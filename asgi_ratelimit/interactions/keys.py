"""Who is asking, in an interaction: the key of its bucket."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["ASKERS", "Interaction", "KeyFunction"]

Interaction = dict[str, Any]
KeyFunction = Callable[[Interaction], Any]  # sync or async; a string, or None: nobody


def _user(interaction: Interaction) -> str:
    for holder in (interaction.get("member"), interaction):
        user = holder.get("user") if isinstance(holder, dict) else None
        found = _id(user.get("id")) if isinstance(user, dict) else ""
        if found:
            return f"user:{found}"
    return ""


def _guild(interaction: Interaction) -> str:
    found = _id(interaction.get("guild_id"))
    return f"guild:{found}" if found else _user(interaction)


def _command(interaction: Interaction) -> str:
    asked, user = interaction.get("data"), _user(interaction)
    name = asked.get("name", asked.get("custom_id")) if isinstance(asked, dict) else None
    return f"{user}:{name}" if user and isinstance(name, str) else user


def _id(value: object) -> str:
    return str(value) if isinstance(value, str) or type(value) is int else ""


ASKERS: dict[str, KeyFunction] = {"user": _user, "guild": _guild, "command": _command}
