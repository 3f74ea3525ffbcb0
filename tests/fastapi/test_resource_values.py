"""`per`: one bucket for each value that the endpoint gets, whatever the text in the URL is."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from typing import Annotated, Any
from urllib.parse import quote
from uuid import UUID

import pytest
from fastapi import APIRouter, Depends, FastAPI, Path, Request
from fastapi.testclient import TestClient
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BeforeValidator, StringConstraints
from starlette.requests import HTTPConnection

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.fastapi import RateLimit
from asgi_ratelimit.fastapi.resources import one_spelling
from asgi_ratelimit.testing import ManualClock
from tests.fastapi.traffic import statuses


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


def client_for(store: MemoryStore, kind: Any, limit: str = "5/hour", per: Any = ("value",)) -> TestClient:
    app = FastAPI()

    async def endpoint(value: Any) -> None: ...

    endpoint.__annotations__["value"] = kind
    app.get("/channels/{value}", dependencies=[Depends(RateLimit(limit, per=per, store=store))])(endpoint)
    return TestClient(app)


def ask_all(client: TestClient, texts: list[str]) -> list[int]:
    return statuses(client, *(f"/channels/{quote(text, safe='')}" for text in texts))


@pytest.mark.parametrize("kind", [int, Annotated[int, Path(ge=0)], float, Decimal])
def test_two_hundred_spellings_of_one_number_are_one_bucket(store: MemoryStore, kind: Any) -> None:
    client = client_for(store, kind)
    texts = [f"0{'_' * (n % 3)}{'0' * n}7" for n in range(100)] + [f"{'0' * n}7.{'0' * n}" for n in range(1, 101)]
    answers = ask_all(client, texts)
    assert answers.count(200) <= 5
    assert 429 in answers
    assert ask_all(client, ["8"]) == [200]


SPELLINGS = [
    (float, ["7", "7.0", "07.00", "7e0", "0.7e1", "70e-1", "+7", "7."], "8"),
    (Decimal, ["7", "7.0", "7.000", "7e0", "0.7E1", "70e-1", "+7", "07"], "8"),
    (Decimal, ["70", "70.0", "7e1", "0.7e2", "700e-1", "+70"], "700"),
    (float, ["0", "-0", "0.0", "-0.0", "0e9"], "1"),
    (bool, ["true", "1", "on", "yes", "t", "y", "TRUE", "True"], "false"),
    (date, ["2026-01-02", "2026-01-02T00:00:00", "1767312000", "1767312000000"], "2026-01-03"),
    (datetime, ["2026-01-02T03:00:00Z", "2026-01-02T04:00:00+01:00", "2026-01-02 03:00:00.000+00:00"], "2027-01-01"),
    (time, ["12:00:00Z", "13:00:00+01:00", "12:00:00.000Z"], "11:00:00Z"),
    (timedelta, ["PT1H", "01:00:00", "3600", "PT60M"], "PT2H"),
    (UUID, [UUID(int=7).hex, str(UUID(int=7)), f"urn:uuid:{UUID(int=7)}", f"{{{UUID(int=7)}}}"], UUID(int=8).hex),
    (Size, ["large"], "small"),
    (Annotated[str, StringConstraints(to_lower=True, strip_whitespace=True)], ["ada", "ADA", " ada", "Ada "], "bob"),
]


@pytest.mark.parametrize(("kind", "same", "other"), SPELLINGS)
def test_equal_values_are_one_bucket(store: MemoryStore, kind: Any, same: list[str], other: str) -> None:
    client = client_for(store, kind, "1/hour")
    first, *rest = ask_all(client, same)
    assert first == 200
    assert set(rest) <= {429, 422}, dict(zip(same[1:], rest, strict=True))
    assert ask_all(client, [other]) == [200]


def test_what_does_not_validate_shares_one_bucket(store: MemoryStore) -> None:
    client = client_for(store, int, "3/hour")
    assert ask_all(client, [f"nonsense-{n}" for n in range(5)]) == [422, 422, 422, 429, 429]
    assert ask_all(client, ["7"]) == [200]


def test_texts_stay_texts(store: MemoryStore) -> None:
    client = client_for(store, str, "1/hour")
    assert ask_all(client, ["7", "007", "7.0", "seven", "Seven", "7"]) == [200] * 5 + [429]


def test_a_function_says_which_texts_are_one(store: MemoryStore) -> None:
    client = client_for(store, str, "1/hour", per={"value": lambda text: text.strip().casefold()})
    assert ask_all(client, ["Ada@Example.org", "ada@example.org", " ADA@EXAMPLE.ORG ", "bob@example.org"]) == [
        200,
        429,
        429,
        200,
    ]
    assert ask_all(client_for(MemoryStore(), str, "1/hour", per={"value": str.casefold}), ["A", "a"]) == [200, 429]


@pytest.mark.parametrize("per", ["value", {"value": "lower"}, [7], {7: str}])
def test_a_per_that_is_none_is_refused(per: Any) -> None:
    with pytest.raises(ValueError, match="per is a list of path parameters such as"):
        RateLimit(per=per)


def test_a_parameter_with_an_alias_of_an_included_router(store: MemoryStore) -> None:
    router = APIRouter(prefix="/guilds/{guild_id}")

    @router.get("/x", dependencies=[Depends(RateLimit("1/hour", per=["guild_id"], store=store))])
    async def endpoint(guild: Annotated[int, Path(alias="guild_id")]) -> None: ...

    app = FastAPI()
    app.include_router(router, prefix="/v1")
    client = TestClient(app)
    assert statuses(client, "/v1/guilds/7/x", "/v1/guilds/0__7/x", "/v1/guilds/8/x") == [200, 429, 200]


def test_a_parameter_that_only_a_dependency_reads(store: MemoryStore) -> None:
    async def channel(channel_id: int) -> int:
        return channel_id

    app = FastAPI(dependencies=[Depends(channel)])
    limit = Depends(RateLimit("1/hour", per=["channel_id"], store=store))

    @app.get("/{channel_id}", dependencies=[limit])
    async def endpoint(request: Request) -> None: ...

    assert statuses(TestClient(app), "/7", "/0__7", "/0007") == [200, 429, 429]


def test_a_parameter_that_the_endpoint_reads_itself(store: MemoryStore) -> None:
    app = FastAPI()

    @app.get("/{channel_id}", dependencies=[Depends(RateLimit("1/hour", per=["channel_id"], store=store))])
    async def endpoint(request: Request) -> int:
        return int(request.path_params["channel_id"])

    assert statuses(TestClient(app), "/7", "/0_7", "/%D9%A7", "/%207%20", "/+7", "/8") == [200, *[429] * 4, 200]


def test_a_huge_number_is_no_error(store: MemoryStore) -> None:
    client = client_for(store, int, "1/hour")
    assert ask_all(client, ["9" * 4300, "9" * 4300, "9" * 4301]) == [200, 429, 422]


def key(conn: HTTPConnection) -> str:
    return "ada"


@given(st.lists(st.integers(-(10**6), 10**6), min_size=1, max_size=20), st.sampled_from([int, float, Decimal]))
def test_there_is_one_bucket_per_number(numbers: list[int], kind: Any) -> None:
    store = MemoryStore(clock=ManualClock())
    ask_all(client_for(store, kind), [str(number) for number in numbers])
    assert len(store) == len(set(numbers))


@given(st.decimals(allow_nan=False), st.decimals(allow_nan=False))
def test_decimals_have_one_spelling_if_and_only_if_they_are_equal(one: Decimal, other: Decimal) -> None:
    assert (one_spelling(one) == one_spelling(other)) == (one == other)
    assert one_spelling(one) == one_spelling(Decimal(f"{one}"))


OFFSETS = st.integers(-14, 14).map(lambda hours: timezone(timedelta(hours=hours)))


@given(st.datetimes(timezones=OFFSETS), st.datetimes(timezones=OFFSETS))
def test_moments_have_one_spelling_if_they_are_equal(one: datetime, other: datetime) -> None:
    assert (one_spelling(one) == one_spelling(other)) == (one == other)


class Channel:
    """An object of a user's, without a text of its own."""

    def __init__(self, text: str) -> None:
        self.number = int(text)


class StoredChannel(Channel):
    @property
    def id(self) -> int:
        return self.number


@pytest.mark.parametrize(
    "kind",
    [
        Annotated[Any, BeforeValidator(Channel)],
        Annotated[Any, BeforeValidator(StoredChannel)],
        Annotated[Any, BeforeValidator(lambda text: [Channel(text)])],
    ],
)
def test_an_object_without_a_text_of_its_own_is_one_bucket(store: MemoryStore, kind: Any) -> None:
    client = client_for(store, kind, "2/hour")
    assert ask_all(client, ["7", "7", "07", "0_7"]) == [200, 200, 429, 429]
    assert ask_all(client, ["8"]) == [200]


def test_a_dependency_that_reads_a_number_counts_before_an_endpoint_that_takes_the_text(store: MemoryStore) -> None:
    app = FastAPI()
    limit = RateLimit("2/hour", per=["value"], store=store)

    async def number(value: int) -> None: ...

    @app.get("/channels/{value}", dependencies=[Depends(limit), Depends(number)])
    async def endpoint(value: str) -> None: ...

    client = TestClient(app)
    assert ask_all(client, ["7", "007", "0__7"]) == [200, 200, 429]
