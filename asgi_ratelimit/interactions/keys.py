"""The key of an interaction's bucket."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

from asgi_ratelimit.inbound.options import check_call
from asgi_ratelimit.inbound.own_keys import ResolvedKeys, Sources

__all__ = ["Component", "Interaction", "InteractionKey", "KeyName", "key_function", "own_keys"]

Interaction = dict[str, Any]
InteractionKey = Callable[[Interaction], str | Awaitable[str | None] | None]  # None: no identity
KeyName = Literal["user", "guild", "command"]
Component = str | Callable[[str], str]  # what ends the name in a custom id, or a function from the id to the name


def key_function(key: KeyName | InteractionKey, component: Component) -> InteractionKey:
    """The checked `key` of an InteractionLimit. Raises ValueError if it, or `component`, is none."""
    if not callable(component) and (not isinstance(component, str) or not component):
        raise ValueError(f'component must be a separator such as ":", or a function of the id, not {component!r}')
    if callable(component):
        check_call("component", component, "custom_id")
    if callable(key):
        check_call("key", key, "interaction")
        return key
    keys: dict[str, InteractionKey] = {"user": _user, "guild": _guild, "command": _per_command(component)}
    if not isinstance(key, str) or key not in keys:
        raise ValueError(f'key must be "user", "guild", "command" or a function of the interaction, not {key!r}')
    return keys[key]


def own_keys(sources: Sources | None, interaction: Interaction) -> ResolvedKeys:
    """The keys that some limits have of their own."""
    return {source: source.key(interaction) for source in dict.fromkeys(sources or ()) if source is not None}


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


def _per_command(component: Component) -> InteractionKey:
    def command(interaction: Interaction) -> str:
        user, name = _user(interaction), _name(interaction.get("data"), component)
        return f"{user}:{name}" if user and isinstance(name, str) else user

    return command


def _name(data: object, component: Component) -> object:
    """The name of a command, or of a component or modal without the state in its custom id (`page:37`)."""
    if not isinstance(data, dict):
        return None
    if "name" in data or not isinstance(custom_id := data.get("custom_id"), str):
        return data.get("name")
    return component(custom_id) if callable(component) else custom_id.partition(component)[0] or custom_id


def _id(value: object) -> str:
    return str(value) if isinstance(value, str) or type(value) is int else ""
