"""Whatever is posted to the endpoint, signed or not: an answer, and never a 500."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit import MemoryStore, RateLimitWarning
from asgi_ratelimit.testing import ManualClock
from tests.interactions.endpoints import as_dependency, beside_a_body_parameter, limited, reached, with_limit
from tests.support.signing import PING, Discord, command, encoded, now, signature_of

pytestmark = pytest.mark.anyio

GOOD = object()
ODD = [b"nan", b"inf", b"1e9", b"-1", b"9" * 5000, b"ab", b"a" * 127, b"ab" * 64, b"g" * 128, b"ab" * 65]
VALUES = st.one_of(st.just(GOOD), st.binary(max_size=200), st.sampled_from(ODD))
JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = ("member", "user", "guild_id", "data", "locale", "id")
INTERACTIONS = st.fixed_dictionaries({"type": st.integers(2, 6)}, optional=dict.fromkeys(FIELDS, JSONS))
NESTED = b'{"type": 2, "data": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"


async def sent(body: bytes, headers: list[tuple[bytes, bytes]], clock: ManualClock) -> int:
    """The status of raw bytes, past every check that an HTTP client makes; an exception passes through."""
    statuses: list[int] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": body}

    async def send(message: Any) -> None:
        statuses.append(message.get("status", 0))

    scope = {"type": "http", "method": "POST", "path": "/interactions", "query_string": b"", "headers": headers}
    await as_dependency(limited(MemoryStore(clock=clock)))(scope, receive, send)
    return statuses[0]


@given(VALUES, VALUES, st.binary(max_size=50), st.integers(0, 2), st.integers(0, 2))
async def test_headers_of_any_form_are_401(
    signature: Any, timestamp: Any, body: bytes, signatures: int, timestamps: int
) -> None:
    clock = ManualClock()
    good = [value.encode() for value in signature_of(body, now(clock)).values()]
    values = [good[i] if value is GOOD else value for i, value in enumerate((signature, timestamp))]
    headers = [(b"x-signature-ed25519", values[0])] * signatures + [(b"X-Signature-Timestamp", values[1])] * timestamps
    status = await sent(body, headers, clock)
    genuine = values == good and signatures == timestamps == 1
    assert status == (400 if genuine else 401)  # such a body is no interaction


@pytest.mark.parametrize("signature", [b"", b"a" * 127, b"ab" * 63, b"ab" * 65, b"g" * 128, b"ab" * 64, b"\xb2" * 128])
async def test_a_signature_of_another_form_is_401(clock: ManualClock, signature: bytes) -> None:
    at = str(now(clock)).encode()
    assert await sent(b"{}", [(b"x-signature-ed25519", signature), (b"x-signature-timestamp", at)], clock) == 401


@pytest.mark.parametrize(
    "at", ["nan", "inf", "1_700_000_000", "1.7e9", "-1700000000", " 1700000000", "²", "9" * 13, ""]
)
async def test_a_timestamp_that_is_no_number_is_401_though_it_is_signed(clock: ManualClock, at: str) -> None:
    headers = signature_of(encoded(PING), at)
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    assert await sent(encoded(PING), raw, clock) == 401


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff", b"null", b"[]", b"1", b'"a"', b"{}", b'{"type": "1"}', b'{"type": true}', b'{"type": 1.0}',
     b'{"type": 1' + b"0" * 5000 + b"}", NESTED, b"[" * 100_000],
)  # fmt: skip
async def test_what_is_signed_but_no_interaction_is_400(store: MemoryStore, clock: ManualClock, body: bytes) -> None:
    assert (await with_limit(store, clock).post(body)).status_code == 400


@pytest.mark.parametrize("body", [b"{", b"\xff", NESTED, b"[" * 100_000, b"9" * 5000])
async def test_beside_a_body_parameter_it_is_an_error_of_the_clients_too(
    store: MemoryStore, clock: ManualClock, body: bytes
) -> None:
    answer = await Discord(beside_a_body_parameter(limited(store)), clock).post(body, forged=True)
    assert answer.status_code in (400, 401, 422)


@pytest.mark.filterwarnings("ignore::asgi_ratelimit.RateLimitWarning")
@given(INTERACTIONS, st.sampled_from(["user", "guild", "command"]))
async def test_an_interaction_of_any_shape_is_let_in_or_limited(interaction: Any, key: str) -> None:
    clock = ManualClock()
    discord = with_limit(MemoryStore(clock=clock), clock, key=key, text={"de": "Langsam! {when}"})
    bodies = [json.dumps({**interaction, "nonce": i}).encode() for i in range(2)]
    first, second = [await discord.post(body) for body in bodies]
    assert reached(first)
    assert second.json()["type"] == (8 if interaction["type"] == 4 else 4)
    assert not reached(second)


async def test_those_whom_nothing_names_share_one_bucket_and_a_warning(store: MemoryStore, clock: ManualClock) -> None:
    discord = with_limit(store, clock, "2/10s")
    nobody = {"member": None, "guild_id": None}
    with pytest.warns(RateLimitWarning, match="ARL103"):
        assert reached(await discord.post(command(**nobody)))
    answers = [await discord.post(command(member=member)) for member in ({}, {"user": {"id": None}})]
    assert [reached(answer) for answer in answers] == [True, False]


async def test_a_function_that_returns_no_key_is_warned_about(store: MemoryStore, clock: ManualClock) -> None:
    discord = with_limit(store, clock, key=lambda interaction: 7.5)
    with pytest.warns(RateLimitWarning, match="ARL201"):
        assert reached(await discord.post(command("1")))
    assert not reached(await discord.post(command("2")))
