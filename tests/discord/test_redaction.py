"""No token stays in a redacted text, and no other text changes."""

from __future__ import annotations

from urllib.parse import quote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit.discord.redaction import redacted

TOKEN = "VSOzAqY1OZFF5WJVtbIzFtmjGupk-84Hn0A_ZzToF_CHsPIeCk0Q9Uok_mjxR0dNtApI"
INTERACTION = "aW50ZXJhY3Rpb246" + "MTIzNDU2Nzg5OnZwS3QycDhvREk2aVF3U1BqN2prcXBkRmNqNlp4VEhGRjZvSVlXSGh4"
BOT = "MTIzNDU2Nzg5MDEyMzQ1Njc4.GaBcDe.abcdefghijklmnopqrstuvwxyz0123456789AB"

PIECES = ["/", "a", "/a", "9", "/1", "%25", "/api/v1", "webhooks/", "webhooks/1/", "Bot ", "."]

SECRETS = [
    ("https://discord.com/api/webhooks/1/{}", "https://discord.com/api/webhooks/1/***"),
    ("POST /webhooks/1/{}/messages/@original?wait=true 200", "POST /webhooks/1/***/messages/@original?wait=true 200"),
    (
        "URL('https://d.com/api/v10/interactions/4/{}/callback')",
        "URL('https://d.com/api/v10/interactions/4/***/callback')",
    ),
    ("(<https://d.com/api/webhooks/1/{}>, twice).", "(<https://d.com/api/webhooks/1/***>, twice)."),
    ("Authorization: Bot {}", "Authorization: Bot ***"),
    ("[(b'authorization', b'Bearer {}')]", "[(b'authorization', b'Bearer ***')]"),
    ("Bot {}", "Bot ***"),
    ("{{'auth': 'Bot {}'}}", "{{'auth': 'Bot ***'}}"),
]


@pytest.mark.parametrize("token", ["abc", "a%2Fb", TOKEN, INTERACTION, BOT, "x" * 1_000])
@pytest.mark.parametrize(("line", "expected"), SECRETS)
def test_a_token_is_masked_wherever_it_stands(line: str, expected: str, token: str) -> None:
    text = line.format(token)
    assert redacted(text) == expected.format()
    assert redacted(redacted(text)) == redacted(text)


@pytest.mark.parametrize("token", ["abc", "a%2Fb", TOKEN, INTERACTION, BOT])
def test_a_token_is_masked_in_an_address_that_is_encoded_whole(token: str) -> None:
    address, expected = f"https://d.com/api/webhooks/1/{token}/slack", "see https://d.com/api/webhooks/1/***/slack now"
    for _ in range(3):
        address = quote(address, safe="")
        assert redacted(f"see {address} now") == expected
    assert redacted("/%77ebhooks/1/abc/slack") == "/webhooks/1/***/slack"
    assert redacted("/webhooks/%31/abc/slack") == "/webhooks/1/***/slack"


@pytest.mark.parametrize("token", [INTERACTION, BOT])
def test_a_token_of_a_typical_shape_is_masked_without_any_address(token: str) -> None:
    assert redacted(f"token {token}!") == "token ***!"


@pytest.mark.parametrize("line", ["/webhooks//{}", "/webhooks/@me/{}", "/webhooks/{}"])
def test_a_long_token_in_an_odd_place_is_masked(line: str) -> None:
    assert redacted(line.format(TOKEN)) == line.format("***")


def test_an_httpx_error_is_masked_and_otherwise_whole() -> None:
    request = httpx.Request("POST", f"https://discord.com/api/v10/webhooks/1/{TOKEN}?wait=true")
    with pytest.raises(httpx.HTTPStatusError) as caught:
        httpx.Response(404, request=request).raise_for_status()
    assert redacted(str(caught.value)) == str(caught.value).replace(TOKEN, "***")


@pytest.mark.parametrize("text", [
    "", "100% of %s, %20", "docs/webhooks/guide/intro", "/webhooks/1", "/webhooks/{webhook_id}/{webhook_token}/slack",
    "/webhooks/1/{token}",
    "Bot 123456789012345678 joined", "Bot restarted after the deployment", "DiscordBot (https://example.org, 1.0)",
    "https://discord.com/api/v10/channels/1/messages/2/reactions/%F0%9F%98%8B/@me", "a 'Bot", "b" * 64, "\ud800",
])  # fmt: skip
def test_everything_else_is_left_as_it_is(text: str) -> None:
    assert redacted(text) == text


@given(st.one_of(st.text(st.characters(codec=None)), st.text("/%2F.?#ab1webhooks")))
def test_no_text_raises(odd: str) -> None:
    for top in ("", "/webhooks/1/", "/api/v10/"):
        redacted(top + odd)


@pytest.mark.parametrize("piece", PIECES)
def test_a_text_of_a_megabyte_is_redacted_in_no_time(piece: str) -> None:
    redacted(piece * (1_000_000 // len(piece)))
