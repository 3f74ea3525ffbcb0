"""A message of any form carries a nonce, so that one that is sent again is not created twice."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import parse_qsl

import httpx
import pytest

from asgi_ratelimit.discord.nonces import with_nonce
from asgi_ratelimit.testing import FakeDiscord, ManualClock
from tests.support.clients import bot, bot_of, passing
from tests.support.fake_discord import SEND

pytestmark = pytest.mark.anyio

JSON = {"Content-Type": "application/json"}


@pytest.fixture
def fake(clock: ManualClock) -> FakeDiscord:
    return FakeDiscord(clock=clock)


def fields(request: httpx.Request) -> dict[str, Any]:
    """What a request says, whatever its form."""
    kind, body = request.headers["Content-Type"], request.read()
    if kind.startswith("application/json"):
        return dict(json.loads(body))
    if kind.startswith("multipart"):
        mark = b"--" + kind.partition("boundary=")[2].encode()
        parts = [part.strip(b"\r\n").partition(b"\r\n\r\n") for part in body.split(mark)[1:-1]]
        read = {head.split(b'name="')[1].split(b'"')[0].decode(): content.decode() for head, _, content in parts}
    else:
        read = dict(parse_qsl(body.decode()))
    more: dict[str, Any] = json.loads(read.pop("payload_json", "{}"))
    return read | more


PAYLOAD = '{"content": "x"}'
FORMS: list[dict[str, Any]] = [
    {"json": {"content": "x"}},
    {"content": PAYLOAD, "headers": JSON},
    {"data": {"content": "x"}},
    {"data": {"payload_json": PAYLOAD}},
    {"files": {"files[0]": ("a.txt", b"abc")}},
    {"data": {"content": "x"}, "files": {"files[0]": ("a.txt", b"abc")}},
    {"data": {"payload_json": PAYLOAD}, "files": {"files[0]": ("a.txt", b'name="nonce"\r\n\r\nabc')}},
    {"data": {"payload_json": PAYLOAD.encode()}, "files": [("files[0]", ("a.txt", b"abc")), ("files[1]", b"--")]},
    {"files": {"payload_json": (None, PAYLOAD, "application/json"), "files[0]": ("a.txt", b"abc")}},
]


@pytest.mark.parametrize("form", FORMS)
async def test_a_message_of_any_form_carries_a_nonce_that_stays_the_same(
    clock: ManualClock, form: dict[str, Any]
) -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(502 if len(seen) < 3 else 200)

    async with bot_of(answer, clock) as discord:
        await passing(clock, discord.post(SEND, **form))
        await discord.post(SEND, **form)
    read = [fields(request) for request in seen]
    assert read[0] == read[1] == read[2]
    assert read[0]["enforce_nonce"] in (True, "true")
    assert 0 < len(read[0]["nonce"]) <= 25
    assert read[3]["nonce"] != read[0]["nonce"], "another message"
    assert {key: read[0][key] for key in read[0] if key not in ("nonce", "enforce_nonce")} == fields(
        httpx.Request("POST", "http://x", **form)
    )


@pytest.mark.parametrize(
    "own", [{"nonce": "mine"}, {"nonce": 7, "enforce_nonce": False}, {"nonce": 7, "enforce_nonce": True}]
)
@pytest.mark.parametrize("form", ["json", "form", "multipart", "payload"])
async def test_a_nonce_of_the_callers_stays(clock: ManualClock, own: dict[str, Any], form: str) -> None:
    seen: list[httpx.Request] = []
    text = {key: str(value).lower() for key, value in own.items()}
    files = {"files[0]": ("a.txt", b"abc")}
    forms: dict[str, dict[str, Any]] = {
        "json": {"json": own},
        "form": {"data": text},
        "multipart": {"data": text, "files": files},
        "payload": {"data": {"payload_json": json.dumps(own)}, "files": files},
    }

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(502)

    async with bot_of(answer, clock, retry_unsafe=False, max_retries=1) as discord:
        await passing(clock, discord.post(SEND, **forms[form]))
    read = fields(seen[0])
    assert str(read["nonce"]) == text["nonce"]
    assert ("enforce_nonce" in read) == ("enforce_nonce" in own), "whether it is enforced is the caller's choice, too"
    assert str(read.get("enforce_nonce")).lower() == text.get("enforce_nonce", "none")
    is_enforced = own.get("enforce_nonce", False)
    assert len(seen) == (2 if is_enforced else 1), "without Discord's check it is not safe to repeat"


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("trouble", ["fail", "drop"])
@pytest.mark.parametrize("form", [FORMS[0], FORMS[6]])
async def test_a_message_is_created_once_though_its_answer_was_lost(
    fake: FakeDiscord, clock: ManualClock, trouble: str, when: Any, form: dict[str, Any]
) -> None:
    getattr(fake, trouble)(times=3, when=when)
    async with bot(fake) as discord:
        answer = await passing(clock, discord.post(SEND, **form))
    assert answer.status_code == 200
    assert [message["id"] for message in fake.messages] == [answer.json()["id"]]
    assert fake.count() == 4


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"[1]"), ("application/json", b"{"), ("application/json", b""), ("text/plain", b"abc"),
        ("multipart/form-data", b"abc"), ("multipart/form-data; boundary=x", b""), ("", b""),
        ("multipart/form-data; boundary=x", b"--x\r\nabc"), ("multipart/form-data; boundary=x", b"--x\r\n\r\n--x--"),
    ],
)  # fmt: skip
def test_a_body_that_is_no_message_is_left_as_it_is(kind: str, body: bytes) -> None:
    assert with_nonce(kind, body) == ((body,), False)


async def test_only_messages_get_a_nonce_and_the_callers_request_stays_as_it_was(
    fake: FakeDiscord, clock: ManualClock
) -> None:
    async with bot(fake) as discord:
        answer = await discord.post(SEND, json={"content": "x"})
        for path in ("/channels/1/webhooks", "/webhooks/1/token", "/channels/1/messages/2/threads"):
            await discord.post(path, json={"content": "x"})
    assert json.loads(answer.request.content) == {"content": "x"}
    assert ["nonce" in seen.json for seen in fake.requests] == [True, False, False, False]


@pytest.mark.parametrize(
    "rest",
    ['"n":1e400', '"n": 1.10,  "id":12345678901234567890123', '"a":1,"a":2', '"content":"\\ud800"', '"nonce_of":{}'],
)
def test_the_rest_of_a_message_stays_as_it_was_written(rest: str) -> None:
    (body,), has_nonce = with_nonce("application/json", f" {{ {rest}}}".encode())
    assert has_nonce
    text = bytes(body).decode()
    assert text.endswith(f", {rest}}}")
    assert set(json.loads(text)) - set(json.loads(f"{{{rest}}}")) == {"nonce", "enforce_nonce"}


@pytest.mark.parametrize(
    "body",
    [
        b"{}",
        b"  {\n}",
        b'{"nonce":null}',
        b'{"enforce_nonce":null,"a":1}',
        '{"content":"x"}'.encode("utf-16"),
        b"\xef\xbb\xbf{}",
    ],
)
def test_any_object_gets_a_nonce(body: bytes) -> None:
    (sent,), has_nonce = with_nonce("application/json", body)
    message = json.loads(bytes(sent))
    assert has_nonce
    assert len(message["nonce"]) == 24
    assert message["enforce_nonce"] is True


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'{"content":"' + b"x" * 2**18 + b'"}'),
        ("application/x-www-form-urlencoded", b"a&" * 2_000),
        ("application/x-www-form-urlencoded", b"content=" + b"x" * 2**18),
        ("multipart/form-data; boundary=x", b'--x\r\na; name="b"\r\n\r\n\r\n' * 2_000 + b"--x--"),
    ],
    ids=["json", "fields", "form", "parts"],
)
def test_a_body_that_takes_long_to_read_is_left_as_it_is(kind: str, body: bytes) -> None:
    """The event loop would stand still meanwhile."""
    assert with_nonce(kind, body) == ((body,), False)
