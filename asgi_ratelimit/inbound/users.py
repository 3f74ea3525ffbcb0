"""Who a user is: an object or a dict of any kind, as authentication backends and dependencies give it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from uuid import UUID

from starlette.authentication import BaseUser
from starlette.types import Scope

from asgi_ratelimit.inbound.addresses import digest

__all__ = ["LONGEST_TEXT", "is_anonymous", "is_missing", "is_nameless", "user_key", "user_of"]

LONGEST_TEXT: Final = 256  # characters of a text from outside that are part of a key; a longer one becomes a digest

_NAMES = ("identity", "id", "sub")
_PLAIN = (str, int, UUID)


def user_key(scope: Scope) -> str | None:
    """The key of `scope["user"]`; None for a visitor."""
    user = scope.get("user")
    if user is None or is_anonymous(user):
        return None
    identity = user_of(user)
    if identity is None or identity == "":
        return None
    text = str(identity)
    return f"user:{text}" if len(text) <= LONGEST_TEXT else f"user:{digest(text)}"


def is_anonymous(user: object) -> bool:
    """Whether a user object denies that its user is authenticated. One that does not know is that of a user."""
    return not getattr(user, "is_authenticated", True)


def is_missing(key: object) -> bool:
    """Whether a key function has found nothing: None, an empty text, or an anonymous user."""
    return key is None or (isinstance(key, (str, bytes)) and not key) or is_anonymous(key) or user_of(key) == ""


def user_of(user: Any) -> Any:
    """What stands for a user: itself, or its `identity`, `id` or `sub`; None if there is nothing of the kind.

    A BaseUser without any of them, such as Starlette's own, is known by its `display_name`.
    """
    if isinstance(user, _PLAIN):
        return None if isinstance(user, bool) else user
    for name in _NAMES:
        value = user.get(name) if isinstance(user, Mapping) else _attribute(user, name)
        if _is_identity(value):
            return value
    return _attribute(user, "display_name") if isinstance(user, BaseUser) else None


def is_nameless(user: Any) -> bool:
    """Whether a user has none of the names, not even without a value, as that of a visitor may be."""
    if is_anonymous(user) or isinstance(user, (*_PLAIN, BaseUser)):
        return False
    return not any(name in user if isinstance(user, Mapping) else hasattr(user, name) for name in _NAMES)


def _is_identity(value: object) -> bool:
    """Whether a value has one text: a number, or a type that says what its text is, as the ids of databases do."""
    if value is None or isinstance(value, bool):
        return False
    return isinstance(value, _PLAIN) or type(value).__str__ is not object.__str__


def _attribute(user: object, name: str) -> Any:
    try:
        return getattr(user, name, None)
    except NotImplementedError:  # Starlette's BaseUser has all names, and no values
        return None
