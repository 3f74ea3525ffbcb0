"""Routes: every endpoint of API v10, what stays apart and what falls together, and tokens that cannot be read."""

from __future__ import annotations

import re
from typing import Any
from urllib.parse import quote

import pytest
from hikari.internal import routes as known_to_hikari
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_ratelimit.discord import routes
from asgi_ratelimit.discord.routes import Route, route_of
from tests.discord.api_v10 import endpoints

TOKEN = "VSOzAqY1OZFF5WJVtbIzFtmjGupk-84Hn0A_ZzToF_CHsPIeCk0Q9Uok_mjxR0dNtApI"
INTERACTION = "aW50ZXJhY3Rpb246" + "MTIzNDU2Nzg5OnZwS3QycDhvREk2aVF3U1BqN2prcXBkRmNqNlp4VEhGRjZvSVlXSGh4"
EMOJI = "%F0%9F%98%8B"


@pytest.mark.parametrize("prefix", ["", "/api/v10", "/api", "/behind/a/proxy/api/v9", "https://discord.com/api/v10"])
def test_every_endpoint_has_its_template_and_its_top_level_resource(prefix: str) -> None:
    found = [(m, path, *name_and_major(route_of(m, prefix + path))) for m, path, _, _ in endpoints()]
    assert found == [(m, path, f"{m} {template}", major) for m, path, template, major in endpoints()]


def name_and_major(route: Route) -> tuple[str, str]:
    return route.name, route.major


def test_the_table_is_as_long_as_the_api() -> None:
    assert len(endpoints()) > 200
    assert len({(method, template) for method, _, template, _ in endpoints()}) == len(endpoints())


def test_no_endpoint_that_hikari_knows_is_named_otherwise() -> None:
    known = [each for each in vars(known_to_hikari).values() if isinstance(each, known_to_hikari.Route)]
    assert len(known) > 150
    for each in known:
        if "reactions" in each.path_template and each.method != "GET":
            continue
        path = re.sub(r"\{\w+\}", "123456789012345678", each.path_template)
        bare = re.sub(r"\{\w+\}", "{}", route_of(each.method, path).name)
        assert bare == re.sub(r"\{\w+\}", "{}", f"{each.method} {each.path_template}")


# What falls together, and what stays apart

IDS = st.integers(0, 2**64 - 1).map(str)
CODES = st.text(min_size=1).map(lambda code: quote(code, safe=""))


@given(st.data(), st.sampled_from(endpoints()))
def test_paths_that_differ_only_in_other_ids_have_one_route(
    data: st.DataObject, row: tuple[str, str, str, str]
) -> None:
    method, path, template, _ = row
    others: list[str] = []
    for kept, parameter in zip(path.split("/")[1:], template.split("/")[1:], strict=True):
        free = parameter[0] == "{" and not (len(others) in (1, 2) and route_of(method, path).major)
        coded = parameter in ("{emoji}", "{invite_code}", "{template_code}", "{instance_id}")
        others.append(data.draw(CODES if coded else IDS) if free else kept)
    assert route_of(method, "/api/v10/" + "/".join(others)) == route_of(method, path)


@given(IDS, IDS)
def test_another_top_level_resource_is_another_route(one: str, other: str) -> None:
    for resource in (
        "channels/{}",
        "guilds/{}",
        "webhooks/{}",
        "webhooks/{}/t",
        "webhooks/1/a{}",
        "interactions/1/a{}/x",
    ):
        assert (route_of("GET", resource.format(one)) == route_of("GET", resource.format(other))) == (one == other)


@pytest.mark.parametrize("message", ["2", "3"])
def test_all_changes_of_reactions_in_a_channel_are_one_route(message: str) -> None:
    path = f"/channels/1/messages/{message}/reactions"
    changes = [("PUT", f"/{EMOJI}/@me"), *(("DELETE", end) for end in ("", f"/{EMOJI}", f"/{EMOJI}/@me", "/a:3/4"))]
    assert {name_and_major(route_of(method, path + end)) for method, end in changes} == {
        ("PUT|DELETE /channels/{channel_id}/messages/{message_id}/reactions", "channels/1")
    }
    assert (
        route_of("GET", f"{path}/{EMOJI}").name == "GET /channels/{channel_id}/messages/{message_id}/reactions/{emoji}"
    )


def test_a_channels_name_and_topic_are_a_kind_of_their_own() -> None:
    named, plain = "PATCH /channels/{channel_id} (name)", "PATCH /channels/{channel_id}"
    bodies: list[Any] = [{"name": "x"}, {"topic": None, "nsfw": True}, {"nsfw": True}, {}, None]
    assert [route_of("PATCH", "/channels/1", body=body).name for body in bodies] == [named, named, plain, plain, plain]
    assert route_of("PATCH", "/guilds/1", body={"name": "x"}).name == "PATCH /guilds/{guild_id}"
    assert route_of("PATCH", "/channels/1/messages/2", body={"name": "x"}).name.endswith("{message_id}")


def kind_at(age: float, method: str = "DELETE") -> str:
    """What is added to the name when a message of so many seconds is deleted."""
    made = 1_700_000_000
    message = ((made * 1000 - 1_420_070_400_000) << 22) + 12345
    name = route_of(method, f"/channels/1/messages/{message}", wall=made + age).name
    return name.removeprefix(f"{method} /channels/{{channel_id}}/messages/{{message_id}}")


def test_deleting_a_very_old_or_a_very_new_message_is_a_kind_of_its_own() -> None:
    new, old, fortnight = " (younger than 10 s)", " (older than 14 days)", 14 * 86_400
    assert [kind_at(age) for age in (-3, 0, 9.9, 10, 3600)] == [new, new, new, "", ""]
    assert [kind_at(age) for age in (fortnight, fortnight + 0.1, 10 * fortnight)] == ["", old, old]
    assert kind_at(1, "PATCH") == kind_at(1, "GET") == ""
    assert route_of("DELETE", "/channels/1/messages/2").name == "DELETE /channels/{channel_id}/messages/{message_id}"


def test_an_endpoint_of_tomorrow_has_one_name_whatever_its_ids() -> None:
    ids = ["12345", "123456789012345678", "550e8400-e29b-41d4-a716-446655440000", TOKEN, "Zx81", "d1g2", "é", "a" * 33]
    assert {route_of("GET", f"/new-things/{each}/parts/1").name for each in ids} == {
        "GET /new-things/{new_thing_id}/parts/{part_id}"
    }


@pytest.mark.parametrize("same", ["post", "Post", "POST"])
def test_the_case_of_the_method_a_query_and_encoded_signs_change_nothing(same: str) -> None:
    assert route_of(same, "/channels/1/messages?limit=2#x") == route_of("POST", "//channels//1/messages/")
    assert route_of(same, "/users/%40me/%63hannels").name == "POST /users/@me/channels"
    assert route_of("head", "/users/@me").name == "HEAD /users/@me"


def test_the_route_begins_after_the_last_version() -> None:
    assert route_of("GET", "/api/v6/x/api/v10/users/1") == route_of("GET", "/users/1")
    assert route_of("GET", "/api/v10/invites/api") == route_of("GET", "/invites/api") == route_of("GET", "/invites/b")
    assert name_and_major(route_of("GET", "/api/v10")) == ("GET /", "")
    assert route_of("GET", "/apiary/v10/users/1").name == "GET /apiary/{apiary_id}/users/{user_id}"


# Interactions and webhooks


def test_a_callback_is_exempt_and_lives_three_seconds() -> None:
    for application in (None, "4", "5"):
        route = route_of("POST", f"/interactions/4/{INTERACTION}/callback", application_id=application)
        assert (route.exempt, route.lifetime, route.webhook) == (True, 3.0, False)
    assert route_of("GET", f"/interactions/4/{INTERACTION}/new").lifetime is None


@pytest.mark.parametrize("end", ["", "/messages/@original", "/messages/2"])
def test_a_follow_up_is_known_by_its_token(end: str) -> None:
    route = route_of("PATCH", f"/webhooks/9/{INTERACTION}{end}")
    assert (route.exempt, route.lifetime, route.webhook, route.bears_token) == (True, 900.0, False, False)
    assert route.name.startswith("PATCH /webhooks/{application_id}/{interaction_token}")
    assert route == route_of("PATCH", f"/webhooks/9/{INTERACTION}{end}", application_id="8")


@pytest.mark.parametrize("end", ["", "/messages/@original", "/messages/2"])
def test_or_by_the_application(end: str) -> None:
    path = f"/webhooks/9/a-token-of-another-form{end}"
    known, other = route_of("PATCH", path, application_id="9"), route_of("PATCH", path, application_id="8")
    assert (known.exempt, known.lifetime, known.webhook) == (True, 900.0, False)
    assert (other.exempt, other.lifetime, other.webhook) == (False, None, True)
    assert other == route_of("PATCH", path)
    assert known.major == other.major


@pytest.mark.parametrize(
    ("method", "path", "bears", "judges"),
    [
        ("GET", "/users/@me", True, True),
        ("POST", "/channels/1/messages", True, True),
        ("GET", "/oauth2/@me", True, False),
        ("GET", "/oauth2/applications/@me", True, False),
        ("POST", "/oauth2/token", False, False),
        ("POST", "/oauth2/token/revoke", False, False),
        ("POST", f"/interactions/4/{INTERACTION}/callback", False, False),
        ("POST", f"/webhooks/9/{INTERACTION}", False, False),
        ("POST", "/webhooks/9/a-webhooks-token", True, False),
        ("PATCH", "/webhooks/9", True, True),
    ],
)
def test_where_the_bots_token_belongs_and_where_a_401_is_about_it(
    method: str, path: str, bears: bool, judges: bool
) -> None:
    route = route_of(method, path)
    assert (route.bears_token, route.judges_token) == (bears, judges)


def test_a_webhook_without_its_token_is_nothing_special() -> None:
    route = route_of("GET", "/webhooks/9", application_id="9")
    assert (route.exempt, route.lifetime, route.webhook) == (False, None, False)


def test_only_the_creation_of_a_message_may_carry_a_nonce() -> None:
    creating = {f"{method} {path}" for method, path, _, _ in endpoints() if route_of(method, path).creates_message}
    assert creating == {"POST /channels/1/messages"}


# Secrets


# The letter: what is all digits, where an id belongs, is one.
TOKENS = st.text(st.characters(exclude_characters="/?#%", exclude_categories=["Cs"]), min_size=16).map(
    lambda token: f"T{token}"
)


@given(TOKENS, st.sampled_from(["", "/messages/2", "/callback"]))
@example("a" * 32, "")
def test_no_token_can_be_read_in_a_route(token: str, end: str) -> None:
    for top in ("webhooks", "interactions"):
        for path in (f"/{top}/1/{token}{end}", f"/{top}//{token}{end}", f"/api/v10/{top}/1/{quote(token)}{end}"):
            route = route_of("POST", path, application_id=None)
            assert token not in f"{route} {route!r}"
            assert repr(token)[1:-1] not in f"{route} {route!r}"


def test_a_token_has_one_digest_however_it_is_encoded() -> None:
    assert route_of("POST", "/webhooks/1/a%2Db").major == route_of("POST", "/webhooks/1/a-b").major
    assert re.fullmatch(r"webhooks/1/[0-9a-f]{16}", route_of("POST", "/webhooks/1/a-b").major)


def test_a_route_is_shown_by_its_name_and_its_resource() -> None:
    assert str(route_of("POST", "/channels/1/messages")) == "POST /channels/{channel_id}/messages [channels/1]"
    assert str(route_of("GET", "/users/@me")) == "GET /users/@me"


# Hostile paths, and bounds

ODD = ["", "/", "//", "..", "/../..", "/webhooks//x", "/webhooks/../x", "/channels/²", "/%", "/%ff", "/%2F", "\ud800",
       "/interactions", "/channels/" + "9" * 5_000 + "/messages/" + "9" * 5_000]  # fmt: skip


@given(st.one_of(st.text(st.characters(codec=None)), st.text("/%2F.?#ab1webhooks"), st.sampled_from(ODD)))
def test_no_path_raises(odd: str) -> None:
    for method, top in (("GET", ""), ("delete", "/channels/1/messages/"), ("POST", "/webhooks/1/"), ("", "/api/v10/")):
        route = route_of(method, top + odd, application_id="1", body={"name": odd}, wall=1e9)
        assert str(route)


@pytest.mark.parametrize(
    "piece", ["/", "a", "/a", "9", "/1", "%25", "/api/v1", "webhooks/", "webhooks/1/", "Bot ", "."]
)
def test_a_path_of_a_megabyte_makes_a_short_route(piece: str) -> None:
    text = piece * (1_000_000 // len(piece))
    for path in (text, f"/channels/{text}/messages", f"/webhooks/1/{text}", f"/channels/1/messages/{text}"):
        assert len(str(route_of("DELETE", path, wall=0.0))) < 600


def test_the_cache_of_routes_is_bounded() -> None:
    routes._parsed.cache_clear()
    for number in range(3_000):
        route_of("GET", f"/channels/{number}/messages")
    assert routes._parsed.cache_info().currsize <= 1024
    before = routes._parsed.cache_info().misses
    route_of("GET", "/users/" + "a" * 1_000)
    assert routes._parsed.cache_info().misses == before
