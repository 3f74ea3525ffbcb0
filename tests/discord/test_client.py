"""DiscordClient is an httpx.AsyncClient: all that httpx has works, and the token stays with Discord."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import httpx
import pytest

from asgi_ratelimit.discord import DiscordClient
from asgi_ratelimit.testing import FakeDiscord, ManualClock
from tests.support.clients import TOKEN, Seen, bot, bot_of, passing, settled
from tests.support.fake_discord import MESSAGES, SEND

pytestmark = pytest.mark.anyio


def client(answer: Callable[[httpx.Request], Any], token: str = TOKEN, **options: Any) -> DiscordClient:
    return DiscordClient(token, transport=httpx.MockTransport(answer), **options)


# The token


@pytest.mark.parametrize(
    ("token", "sent"),
    [(TOKEN, f"Bot {TOKEN}"), (f"Bot {TOKEN}", f"Bot {TOKEN}"), ("Bearer abc.def", "Bearer abc.def"), ("x", "Bot x")],
)
async def test_the_token_is_sent_as_discord_wants_it(token: str, sent: str) -> None:
    async with client(seen := Seen(), token) as discord:
        await discord.get("/users/@me")
        await discord.get("https://discord.com/api/v9/users/@me")
        await discord.get("https://discord.com:443/api/v10/users/@me")
    assert seen.authorizations == [sent] * 3


@pytest.mark.parametrize(
    ("token", "text"),
    [
        (None, "not None"), (b"secret-token", "not a bytes"), (7, "not a int"), ("", "an empty one"),
        ("Bot ", "an empty one"), ("Bearer ", "an empty one"), ("secret-token\n", "a blank or an odd character"),
        (" secret-token", "a blank"), ("secret token", "a blank"), ("sécret-token", "an odd character"),
        ("Bot secret-token ", "a blank"), ("bot secret-token", "a blank"), ("secret-token\x00", "an odd character"),
        ("\u200bsecret-token", "an odd character"),
    ],
)  # fmt: skip
def test_the_error_about_a_bad_token_does_not_show_it(token: Any, text: str) -> None:
    with pytest.raises(ValueError, match=r'token must be .* os.environ\["DISCORD_TOKEN"\], not ') as error:
        DiscordClient(token)
    assert text in str(error.value)
    assert "secret" not in str(error.value)
    assert "sécret" not in str(error.value)


ELSEWHERE = [
    "https://example.com/x", "http://discord.com/api/v10/users/@me", "https://discord.com:8443/api/v10/users/@me",
    "https://discord.com.example.com/api/v10/users/@me", "https://cdn.discord.com/x", "https://discord.com@example.com/",
]  # fmt: skip


@pytest.mark.parametrize("url", ELSEWHERE)
async def test_the_token_goes_to_discord_only(url: str) -> None:
    async with client(seen := Seen()) as discord:
        await discord.get(url)
    assert TOKEN not in str(seen.authorizations)


@pytest.mark.parametrize("url", ELSEWHERE)
async def test_and_not_along_with_a_redirect(url: str) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        is_first = request.url.path == "/api/v10/channels/1"
        return httpx.Response(307, headers={"Location": url}) if is_first else httpx.Response(200)

    async with client(seen := Seen(answer), follow_redirects=True) as discord:
        assert (await discord.put("/channels/1", json={})).status_code == 200
    assert seen.authorizations[0] == f"Bot {TOKEN}"
    assert TOKEN not in str(seen.authorizations[1:])


async def test_other_hosts_are_neither_paced_nor_retried_nor_read() -> None:
    class Streaming(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            with pytest.raises(httpx.RequestNotRead):
                assert request.content
            return httpx.Response(429)

    async def body() -> AsyncIterator[bytes]:
        yield b"x"

    async with DiscordClient(TOKEN, transport=Streaming()) as discord:
        assert (await discord.put("https://example.com/upload", content=body())).status_code == 429


# What httpx has


async def test_paths_are_merged_with_the_base_url_as_httpx_does_it() -> None:
    async with client(seen := Seen(), base_url="https://proxy.example/discord/api/v10/") as discord:
        await discord.get("/channels/1", params={"limit": 5})
        await discord.get("channels/1?limit=5")
        await discord.get("https://proxy.example/other")
    assert [str(request.url) for request in seen.requests] == [
        "https://proxy.example/discord/api/v10/channels/1?limit=5",
        "https://proxy.example/discord/api/v10/channels/1?limit=5",
        "https://proxy.example/other",
    ]
    assert seen.authorizations == [f"Bot {TOKEN}"] * 3


async def test_event_hooks_are_called_once_per_call_however_often_it_was_sent(clock: ManualClock) -> None:
    fake, calls = FakeDiscord(clock=clock), list[object]()

    async def note(what: httpx.Request | httpx.Response) -> None:
        calls.append(what.method if isinstance(what, httpx.Request) else what.status_code)

    fake.fail(502)
    fake.refuse(MESSAGES, 1.0)
    async with bot(fake, event_hooks={"request": [note], "response": [note]}) as discord:
        await passing(clock, discord.post(SEND, json={}))
    assert calls == ["POST", 200]


async def test_cookies_are_stored_and_sent() -> None:
    async with client(seen := Seen(lambda r: httpx.Response(200, headers={"Set-Cookie": "a=b"}))) as discord:
        await discord.get("/users/@me")
        await discord.get("/users/@me", headers={"X-Own": "1"})
    assert "cookie" not in seen.requests[0].headers
    assert seen.requests[1].headers["cookie"] == "a=b"
    assert seen.requests[1].headers["x-own"] == "1"


async def test_ones_own_auth_goes_before_the_token() -> None:
    async with client(seen := Seen()) as discord:
        await discord.get("/oauth2/token", auth=("id", "password"))
        await discord.get("/users/@me", headers={"Authorization": "Bearer own"})
    assert [str(value).split()[0] for value in seen.authorizations] == ["Basic", "Bearer"]


async def test_redirects_are_followed_with_the_body(clock: ManualClock) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return (
            httpx.Response(307, headers={"Location": "/api/v10/b"}) if request.url.path.endswith("/a") else ok(request)
        )

    def ok(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=request.content)

    async with bot_of(answer, clock, follow_redirects=True) as discord:
        assert (await discord.post("/a", json={"x": 1})).json() == {"x": 1}
        assert (await discord.post("/a", json={"x": 1}, follow_redirects=False)).status_code == 307


async def test_the_user_agent_is_of_the_form_that_discord_requires() -> None:
    async with client(seen := Seen()) as discord, client(seen, headers={"User-Agent": "DiscordBot (mine, 1)"}) as own:
        await discord.get("/users/@me")
        await discord.post(SEND, json={})
        await own.get("/users/@me")
    agents = [request.headers["User-Agent"] for request in seen.requests]
    assert agents[0] == agents[1]
    assert agents[0].startswith("DiscordBot (http")
    assert agents[0].endswith(")")
    assert agents[2] == "DiscordBot (mine, 1)"


async def test_raise_for_status_and_all_else_of_a_response_work(clock: ManualClock) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(404, json={"code": 1})

    async with bot_of(answer, clock) as discord:
        response = await discord.get("/channels/1")
        with pytest.raises(httpx.HTTPStatusError, match=r"404 Not Found.*/channels/1") as error:
            response.raise_for_status()
    assert (error.value.response, error.value.request.method, response.json()) == (response, "GET", {"code": 1})
    assert response.elapsed.total_seconds() >= 0
    assert isinstance(response, httpx.Response)


async def test_time_outs_are_those_of_httpx() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ReadTimeout("too slow", request=request)

    async with client(answer, timeout=7, max_retries=0) as discord:
        assert discord.timeout == httpx.Timeout(7)
        with pytest.raises(httpx.ReadTimeout):
            await discord.get("/users/@me")


# Bad input


@pytest.mark.parametrize(
    "base_url",
    ["", "discord.com/api", "/api/v10", "ftp://discord.com", "https://", "https://discord.com/api?x=1", None, 5,
     "https://user:hidden@discord.com/api/v10", "https://discord.com/#top", "https://discord.com:x"],
)  # fmt: skip
def test_the_error_about_a_bad_base_url_shows_a_right_one(base_url: Any) -> None:
    with pytest.raises(ValueError, match=r"base_url must be .*https://discord\.com/api/v10") as error:
        DiscordClient(TOKEN, base_url=base_url)
    assert "hidden" not in str(error.value)


STRICT = pytest.mark.skipif(httpx.__version__ < "0.28", reason="the older httpx writes that somehow")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (object(), "Object of type object is not JSON serializable"), ({"x": {1, 2}}, "set is not JSON"),
        ({("a",): 1}, "keys must be str"), pytest.param({"at": float("nan")}, "Out of range float", marks=STRICT),
        pytest.param({"x": "\ud800"}, "surrogates", marks=STRICT),
    ],
)  # fmt: skip
async def test_the_error_about_bad_json_names_the_call(content: object, text: str) -> None:
    async with client(seen := Seen()) as discord:
        with pytest.raises(TypeError, match=f"POST {SEND}: json= cannot be written as JSON: .*{text}.*Give it dicts"):
            await discord.post(SEND, json=content)
    assert not seen.requests


async def test_but_another_mistake_is_not_called_json() -> None:
    async with client(Seen()) as discord:
        with pytest.raises((TypeError, AttributeError)) as error:
            await discord.post(SEND, json={"content": "x"}, headers={"X-Own": 5})  # type: ignore[arg-type]
        assert "JSON" not in str(error.value)
        with pytest.raises(httpx.InvalidURL):
            await discord.get("http://discord.com:x")


async def test_an_address_without_a_host_is_an_error_of_httpx() -> None:
    async with DiscordClient(TOKEN) as discord:
        with pytest.raises(httpx.UnsupportedProtocol):
            await discord.get("ftp://discord.com/x")


async def test_a_closed_client_is_an_error_also_for_waiting_calls(clock: ManualClock) -> None:
    fake = FakeDiscord({MESSAGES: "1/100s"}, clock=clock)
    discord = bot(fake)
    await discord.post(SEND, json={})
    waiting = asyncio.create_task(discord.post(SEND, json={}))
    await settled()
    assert [line.calls for line in discord.waiting] == [1]
    await discord.aclose()
    for call in (waiting, discord.get("/users/@me")):
        with pytest.raises(RuntimeError, match="Cannot send a request, as the client has been closed"):
            await call
    assert discord.is_closed
