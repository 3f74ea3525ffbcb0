"""What a response says of limits is read as Discord means it, and nothing in it ever raises."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from asgi_ratelimit.discord.permits.bucket import CallReport
from asgi_ratelimit.discord.response_headers import error_code, object_of, of_refusal, of_response, retry_after

LIMITS = {
    "X-RateLimit-Limit": "5",
    "X-RateLimit-Remaining": "3",
    "X-RateLimit-Reset": "1700000000.123",
    "X-RateLimit-Reset-After": "0.123",
    "X-RateLimit-Bucket": "0123456789abcdef0123456789abcdef",
}
LOWER = {name.lower(): value for name, value in LIMITS.items()}
VIA = {"Via": "1.1 google"}
HASH = LIMITS["X-RateLimit-Bucket"]
TWELVE_DAYS = 1 << 40

numbers = st.one_of(
    st.integers().map(str),
    st.floats().map(str),
    st.sampled_from(["", " ", "-1", "1e400", "nan", "-inf", "٣", "1_0", "0x10", "9" * 5000, "1,5", "+1", "0.0"]),
    st.text(max_size=20),
)
names = st.sampled_from([
    "x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset", "x-ratelimit-reset-after",
    "x-ratelimit-bucket", "x-ratelimit-scope", "x-ratelimit-global", "retry-after", "via",
])  # fmt: skip
headers_ = st.dictionaries(names, numbers)
json_ = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["retry_after", "global", "code", "x"]), inner),
    max_leaves=6,
)
bodies = st.one_of(
    st.binary(max_size=60),
    json_.map(lambda content: json.dumps(content).encode()),
    st.sampled_from([b'{"retry_after": 1' + b"0" * 5000 + b"}", b"[" * 200_000, b"\xff\xfe{", b'{"code": 1e999}']),
)


def checked(answer: CallReport) -> None:
    assert 0 <= answer.remaining <= answer.limit or not answer.limit
    assert all(type(n) is int for n in (answer.limit, answer.remaining, answer.reset_us, answer.retry_us))
    assert 0 <= answer.reset_us <= TWELVE_DAYS
    assert 0 <= answer.retry_us <= TWELVE_DAYS
    assert len(answer.bucket) <= 64
    assert " " not in answer.bucket


@given(st.integers(100, 599), headers_, bodies)
@example(200, {"x-ratelimit-bucket": "\ud800", "x-ratelimit-limit": "1"}, b"")
def test_no_response_raises_or_passes_the_bounds(status: int, headers: dict[str, str], body: bytes) -> None:
    checked(of_response(status, headers))
    answer, scope = of_refusal(headers, body)
    checked(answer)
    assert scope in ("user", "shared", "global", "cloudflare")
    assert (answer.verdict == "banned") == (scope == "cloudflare")
    assert isinstance(error_code(body), int)
    assert 0 <= retry_after(headers) <= TWELVE_DAYS / 1e6


def refusal(body: object, **more: str) -> tuple[CallReport, str]:
    changed = {name.replace("_", "-"): value for name, value in more.items()}
    headers = LOWER | {"via": "1.1 google", "retry-after": "65"} | changed
    return of_refusal(httpx.Headers(headers), body if isinstance(body, bytes) else json.dumps(body).encode())


def test_a_success_reports_its_bucket_by_reset_after_and_never_by_a_clock_of_the_servers() -> None:
    assert of_response(200, httpx.Headers(LIMITS)) == CallReport("answered", HASH, 5, 3, 123_000)
    without = {name: value for name, value in LIMITS.items() if name != "X-RateLimit-Reset-After"}
    assert of_response(200, httpx.Headers(without)) == CallReport("answered", HASH)


@pytest.mark.parametrize("status", [500, 502, 503, 504, 524])
def test_an_error_without_headers_may_not_have_been_counted(status: int) -> None:
    assert of_response(status, {}).verdict == "lost"
    assert of_response(status, httpx.Headers(LIMITS)).verdict == "answered"
    assert of_response(404, {}).verdict == "answered"


def test_the_wait_of_a_refusal_is_that_of_its_body() -> None:
    answer, scope = refusal({"retry_after": 64.57, "global": False}, x_ratelimit_remaining="0")
    assert (answer.verdict, answer.retry_us, scope) == ("limited", 64_570_000, "user")


@pytest.mark.parametrize("body", [{"message": "x"}, {"retry_after": None, "message": "x"}])
def test_without_it_the_header_is_the_wait(body: dict[str, Any]) -> None:
    assert refusal(body)[0].retry_us == 65_000_000


def test_a_refusal_while_some_remain_comes_from_another_bucket_than_the_one_it_shows() -> None:
    for more in ({"x_ratelimit_scope": "shared"}, {"x_ratelimit_remaining": "1"}):
        assert refusal({"retry_after": 1.5}, **more)[0].verdict == "sublimited"
    assert refusal({"retry_after": 1.5}, x_ratelimit_scope="shared")[1] == "shared"


@pytest.mark.parametrize("sign", ["body", "X-RateLimit-Global", "X-RateLimit-Scope"])
def test_any_of_its_three_signs_makes_a_refusal_global(sign: str) -> None:
    headers = {"X-RateLimit-Global": "true"} if sign == "X-RateLimit-Global" else {}
    headers |= {"X-RateLimit-Scope": "global"} if sign == "X-RateLimit-Scope" else {}
    body = json.dumps({"retry_after": 2.0, "global": sign == "body"}).encode()
    answer, scope = of_refusal(httpx.Headers(VIA | headers), body)
    assert (answer.verdict, answer.retry_us, scope) == ("stopped", 2_000_000, "global")


@pytest.mark.parametrize(("header", "seconds"), [("37", 37), (None, 60), ("soon", 60), ("0", 1)])
@pytest.mark.parametrize("via", [VIA, {}])
def test_a_refusal_that_discord_has_not_written_is_cloudflares(
    via: dict[str, str], header: str | None, seconds: int
) -> None:
    headers = httpx.Headers(via | ({} if header is None else {"Retry-After": header}))
    answer, scope = of_refusal(headers, b"<html>error code: 1015</html>")
    assert (answer.verdict, answer.retry_us, scope) == ("banned", seconds * 1_000_000, "cloudflare")


def test_discords_own_body_is_recognised_though_a_proxy_has_dropped_the_via() -> None:
    answer, scope = of_refusal({}, b'{"retry_after": 0.5, "global": false}')
    assert (answer.verdict, answer.retry_us, scope) == ("limited", 500_000, "user")


def test_a_bucket_with_an_odd_name_is_distinguished_all_the_same() -> None:
    odd = [of_response(200, LOWER | {"x-ratelimit-bucket": name}).bucket for name in ("a b", "a c", "x" * 65)]
    assert len({*odd}) == 3
    assert all(name.isalnum() for name in odd)


@pytest.mark.parametrize("body", [b"", b"[]", b"1", b"null", b"{", b"\xff", b"[" * 200_000])
def test_a_body_that_is_no_object_is_none(body: bytes) -> None:
    assert object_of(body) is None
    assert error_code(body) == 0


def test_discords_error_codes_are_read() -> None:
    assert error_code(b'{"message": "Unknown Webhook", "code": 10015}') == 10015
    assert error_code(b'{"code": "10015"}') == 0


@pytest.mark.parametrize(
    ("retry_after", "reset_after", "seconds"),
    [(376, "0.376", 0.376), (376, None, 0.376), (376, "376.0", 376.0), (2, "2.000", 2.0), (64_570, "64.570", 64.57)],
)
def test_milliseconds_are_checked_against_reset_after(
    retry_after: int, reset_after: str | None, seconds: float
) -> None:
    headers = VIA if reset_after is None else VIA | {"x-ratelimit-reset-after": reset_after}
    lower = {name.lower(): value for name, value in headers.items()}
    report, _ = of_refusal(lower, b'{"retry_after": %d}' % retry_after, in_milliseconds=True)
    assert report.retry_us == round(seconds * 1e6)


def test_a_ban_counts_in_seconds_in_every_version() -> None:
    report, scope = of_refusal({"retry-after": "60"}, b"error code: 1015", in_milliseconds=True)
    assert (report.retry_us, scope) == (60_000_000, "cloudflare")
