"""The users that may log in, their tiers and passwords, and how a session is read."""

from __future__ import annotations

from typing import Literal

from starlette.authentication import AuthCredentials, AuthenticationBackend, SimpleUser
from starlette.requests import HTTPConnection

__all__ = ["MEMBERS", "Member", "SessionBackend", "Tier", "tier_of"]

Tier = Literal["anonymous", "free", "pro"]

SESSION_KEY = "member"


class Member(SimpleUser):
    """A user with an account. `identity` is their key in the limiter. The password is no secret: this is a demo."""

    def __init__(self, name: str, tier: Tier, password: str, *, is_operator: bool = False) -> None:
        super().__init__(name)
        self.tier, self.password, self.is_operator = tier, password, is_operator

    @property
    def identity(self) -> str:
        return self.username.lower()


_PEOPLE = (
    Member("Ada", "free", "analytical engine"),
    Member("Grace", "pro", "a moth in the relay"),
    Member("Margaret", "pro", "to the moon and back", is_operator=True),
)
MEMBERS = {member.identity: member for member in _PEOPLE}


class SessionBackend(AuthenticationBackend):
    """Reads the user from the signed session cookie. Without one in it, the visitor stays anonymous."""

    async def authenticate(self, conn: HTTPConnection) -> tuple[AuthCredentials, Member] | None:
        member = MEMBERS.get(conn.session.get(SESSION_KEY, ""))
        return None if member is None else (AuthCredentials(["authenticated"]), member)


def tier_of(conn: HTTPConnection) -> Tier:
    """The tier of the visitor."""
    return conn.user.tier if isinstance(conn.user, Member) else "anonymous"
