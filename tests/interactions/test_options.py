"""What an InteractionLimit cannot be made of is a ValueError where it is written down, and shows no secret."""

from __future__ import annotations

from typing import Any

import pytest

from asgi_ratelimit.interactions.endpoint import InteractionLimit
from tests.support.signing import PUBLIC_KEY

TOKEN = "MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.ZnCjm1XVW7vRze4b7Cq4se7kKWs"


@pytest.mark.parametrize("key", [TOKEN, "", PUBLIC_KEY[:-1], PUBLIC_KEY + "0", "g" * 64, f"{PUBLIC_KEY}\n", None, b"a"])
def test_what_is_no_public_key_is_refused_and_not_shown(key: Any) -> None:
    with pytest.raises(ValueError, match="64 hex characters") as refused:
        InteractionLimit(key)
    assert not key or str(key) not in str(refused.value)


@pytest.mark.parametrize("key", ["00" * 32, "01" + "00" * 31, "ec" + "ff" * 30 + "7f"])
def test_a_placeholder_that_anybody_can_sign_for_is_refused(key: str) -> None:
    with pytest.raises(ValueError, match="placeholder"):
        InteractionLimit(key)


def test_a_public_key_may_be_written_in_capitals() -> None:
    InteractionLimit(PUBLIC_KEY.upper())


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("limit", "5/"),
        ("limit", None),
        ("limit", []),
        ("autocomplete", "none"),
        ("key", "ip"),
        ("key", None),
        ("key", ["user"]),
        ("key", lambda: "7"),
        ("component", ""),
        ("component", None),
        ("component", lambda: "page"),
        ("text", lambda interaction: "no"),
        ("name", ""),
        ("tolerance", 0),
        ("tolerance", float("nan")),
        ("tolerance", float("inf")),
        ("tolerance", True),
        ("tolerance", "5"),
        ("max_body", 0),
        ("max_body", 1.5),
        ("max_body", True),
        ("failures", "5/"),
        ("failures", []),
        ("client", None),
        ("client", "10.0.0.1"),
        ("text", ""),
        ("text", 5),
        ("text", {}),
        ("text", {"de": ""}),
        ("text", ["a"]),
        ("text", "x" * 2001),
        ("text", "again {wenn}"),
        ("text", "again {}"),
        ("unavailable", ""),
        ("unavailable", lambda interaction, decision: "no"),
        ("unavailable", "again {when}"),
    ],
)
def test_an_option_that_makes_no_sense_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        InteractionLimit(PUBLIC_KEY, **{option: value})


def test_a_text_needs_no_countdown_and_a_limit_may_be_a_generator() -> None:
    InteractionLimit(PUBLIC_KEY, (each for each in ("5/s", "9/minute")), text="Slow down.")
