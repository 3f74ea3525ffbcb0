"""`per`: a bucket for each resource, and one only, however its name is spelled in the URL."""

from typing import Any
from uuid import UUID

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient
from starlette.requests import HTTPConnection

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.fastapi import RateLimit
from tests.fastapi.traffic import as_user, statuses


def by_name(conn: HTTPConnection) -> str:
    return conn.headers.get("x-user", "")


def app_with(store: MemoryStore, path: str, *per: str, kind: Any = str) -> TestClient:
    """One route that reads its first parameter as `kind`, once an hour for each `per`."""
    app = FastAPI()

    async def channel(channel_id: Any) -> str:
        return str(channel_id)

    channel.__annotations__["channel_id"] = kind
    app.get(path, dependencies=[Depends(RateLimit("1/hour", key=by_name, per=per, store=store))])(channel)
    return TestClient(app)


def test_each_resource_has_its_own_bucket(store: MemoryStore) -> None:
    client = app_with(store, "/channels/{channel_id}/messages/{message_id}", "channel_id")
    urls = ["/channels/1/messages/1", "/channels/2/messages/1", "/channels/1/messages/2", "/channels/2/messages/2"]
    assert statuses(client, *urls) == [200, 200, 429, 429]


def test_each_user_has_one_for_each_resource(store: MemoryStore) -> None:
    client = app_with(store, "/channels/{channel_id}", "channel_id")
    for url in ("/channels/1", "/channels/2"):
        assert [client.get(url, headers=as_user(u)).status_code for u in ("ada", "bob", "ada")] == [200, 200, 429]


SEVEN = ["7", "007", "0007", "+7", "%207", "7%20", "0_7", "7.0", "7.00", "7.0%20", "%207.0", "%D9%A7"]


@pytest.mark.parametrize("spelling", SEVEN)
def test_whatever_fastapi_reads_as_the_same_number_is_one_resource(store: MemoryStore, spelling: str) -> None:
    client = app_with(store, "/channels/{channel_id}", "channel_id", kind=int)
    assert client.get("/channels/7").json() == "7"
    # Either FastAPI does not take it for a number at all, or it is the seventh channel and that is used up.
    assert client.get(f"/channels/{spelling}").status_code in (422, 429)
    assert client.get("/channels/8").status_code == 200


ONE_UUID = UUID("c0ffee00-1234-4abc-8def-0123456789ab")


@pytest.mark.parametrize(
    "spelling",
    [
        str(ONE_UUID),
        str(ONE_UUID).upper(),
        ONE_UUID.hex,
        ONE_UUID.hex.upper(),
        ONE_UUID.urn,
        f"{{{ONE_UUID}}}",
        f"%7B{ONE_UUID}%7D",
    ],
)
def test_whatever_fastapi_reads_as_the_same_uuid_is_one_resource(store: MemoryStore, spelling: str) -> None:
    client = app_with(store, "/channels/{channel_id}", "channel_id", kind=UUID)
    assert client.get(f"/channels/{ONE_UUID}").json() == str(ONE_UUID)
    assert client.get(f"/channels/{spelling}").status_code == 429
    assert client.get(f"/channels/{UUID(int=1)}").status_code == 200


def test_a_uuid_of_digits_only_is_one_resource(store: MemoryStore) -> None:
    digits = UUID("12345678123456781234567812345678")
    client = app_with(store, "/channels/{channel_id}", "channel_id", kind=UUID)
    assert statuses(client, f"/channels/{digits.hex}", f"/channels/{digits}") == [200, 429]


def test_a_converter_of_the_path_reads_one_resource(store: MemoryStore) -> None:
    client = app_with(store, "/channels/{channel_id:int}", "channel_id", kind=int)
    assert statuses(client, "/channels/7", "/channels/007", "/channels/8") == [200, 429, 200]


def test_names_that_are_no_numbers_stay_apart(store: MemoryStore) -> None:
    client = app_with(store, "/channels/{channel_id}", "channel_id")
    urls = [f"/channels/{name}" for name in ("a", "A", "b", "a%20", "7a", "%D0%B0")]
    assert statuses(client, *urls) == [200] * len(urls)
    assert statuses(client, *urls) == [429] * len(urls)


def test_an_encoded_name_is_the_name(store: MemoryStore) -> None:
    client = app_with(store, "/channels/{channel_id}", "channel_id")
    assert statuses(client, "/channels/abc", "/channels/%61bc", "/channels/a%62%63") == [200, 429, 429]


def test_several_parameters_are_never_run_together(store: MemoryStore) -> None:
    client = app_with(store, "/{channel_id}/{message_id}", "channel_id", "message_id")
    urls = ["/1/11", "/11/1", "/1:1/1", "/1/1:1", "/a/bc", "/ab/c", "/a;b/c", "/a/b;c"]
    assert statuses(client, *urls) == [200] * len(urls)
    assert statuses(client, *urls) == [429] * len(urls)


def test_a_resource_is_never_taken_for_a_user(store: MemoryStore) -> None:
    client = app_with(store, "/channels/{channel_id}", "channel_id")
    pairs = [("a", "b"), ("ab", ""), ("", "ab"), ("1:a1:b", "c"), ("a", "1:bc"), ("1:a", "b")]
    answers = [client.get(f"/channels/{name or 'x'}", headers=as_user(user)).status_code for user, name in pairs]
    assert answers == [200] * len(pairs)


def test_a_resource_with_a_very_long_name_is_one_resource(store: MemoryStore) -> None:
    client = app_with(store, "/channels/{channel_id}", "channel_id")
    long = "9" * 6_000  # more digits than Python turns into a number
    assert statuses(client, f"/channels/{long}", f"/channels/{long}", f"/channels/{long}0") == [200, 429, 200]


def test_a_refusal_names_the_same_bucket_for_all_resources(store: MemoryStore) -> None:
    client = app_with(store, "/channels/{channel_id}", "channel_id")
    buckets = {client.get(f"/channels/{n}").headers["x-ratelimit-bucket"] for n in (1, 1, 2, 2)}
    assert len(buckets) == 1
