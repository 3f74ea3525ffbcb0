"""The users that may log in, their tiers, and how a session is read."""

from __future__ import annotations

from typing import Literal

from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.requests import HTTPConnection

__all__ = ["MEMBERS", "Member", "SessionBackend", "Tier", "tier_of"]

Tier = Literal["anonymous", "free", "pro"]

SESSION_KEY = "member"


class Member(SimpleUser):
    """A user with an account. `identity` is their key in the limiter."""

    def __init__(self, name: str, tier: Tier, *, is_operator: bool = False) -> None:
        super().__init__(name)
        self.tier, self.is_operator = tier, is_operator

    @property
    def identity(self) -> str:
        return self.username.lower()


_PEOPLE = (Member("Ada", "free"), Member("Grace", "pro"), Member("Margaret", "pro", is_operator=True))
MEMBERS = {member.identity: member for member in _PEOPLE}


class SessionBackend(AuthenticationBackend):
    """Reads the user from the signed session cookie. Without one in it, the visitor stays anonymous."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, Member] | None:
        member = MEMBERS.get(conn.session.get(SESSION_KEY, ""))
        return None if member is None else (AuthCredentials(["authenticated"]), member)


def tier_of(conn: HTTPConnection) -> Tier:
    """The tier of the visitor."""
    return conn.user.tier if isinstance(conn.user, Member) else "anonymous"
