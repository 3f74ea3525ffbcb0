"""The dependency: fields of forms and of JSON, sync endpoints, and the answers to refusals."""

import asyncio
from typing import Annotated, Any

import pytest
from fastapi import Body, Cookie, Depends, FastAPI, Form, HTTPException, Request
from fastapi.responses import JSONResponse
from fastapi.security import OAuth2PasswordRequestForm
from fastapi.testclient import TestClient
from pydantic import BaseModel

from asgi_ratelimit import ClientIP, MemoryStore, RateLimited, RateLimitMiddleware
from asgi_ratelimit.fastapi import document_limits
from asgi_ratelimit.login import Attempt, LoginGuard
from asgi_ratelimit.login.fastapi import GuardedLogin
from asgi_ratelimit.testing import ManualClock
from tests.support.stores import UnavailableStore

PASSWORD = "correct"


def of_form(username: Annotated[str, Form()]) -> str:
    return username


def device(known_device: Annotated[str | None, Cookie()] = None) -> str | None:
    return known_device


def app_of(guard: LoginGuard, *, is_sync: bool = False, scope: Any = "function", **options: Any) -> FastAPI:
    login = GuardedLogin(guard, **{"account": of_form, **options})
    app = FastAPI()

    def check(password: str, attempt: Attempt) -> str:
        if password == "crash":
            raise RuntimeError("the database is down")
        if password != PASSWORD:
            raise HTTPException(401, "wrong")
        attempt.succeeded()
        return "welcome"

    def sync_endpoint(
        password: Annotated[str, Form()], attempt: Annotated[Attempt, Depends(login, scope=scope)]
    ) -> str:
        return check(password, attempt)

    async def endpoint(
        password: Annotated[str, Form()], attempt: Annotated[Attempt, Depends(login, scope=scope)]
    ) -> str:
        return check(password, attempt)

    app.post("/login", responses=login.responses)(sync_endpoint if is_sync else endpoint)
    return app


@pytest.fixture
def guard(store: MemoryStore) -> LoginGuard:
    return LoginGuard(store=store)


def post(client: TestClient, username: str = "ada", password: str = "guess", **options: Any) -> Any:
    return client.post("/login", data={"username": username, "password": password}, **options)


@pytest.mark.parametrize("is_sync", [False, True])
@pytest.mark.parametrize("scope", ["function", "request"])
def test_five_guesses_and_no_more(is_sync: bool, scope: str, guard: LoginGuard) -> None:
    client = TestClient(app_of(guard, is_sync=is_sync, scope=scope))
    assert [post(client).status_code for _ in range(7)] == [401] * 5 + [429] * 2
    assert post(client, password=PASSWORD).status_code == 429
    assert post(client, "bob", PASSWORD).json() == "welcome"


@pytest.mark.parametrize("is_sync", [False, True])
def test_success_costs_nothing(is_sync: bool, guard: LoginGuard) -> None:
    client = TestClient(app_of(guard, is_sync=is_sync))
    for _ in range(9):
        assert [post(client).status_code for _ in range(4)] == [401] * 4
        assert post(client, password=PASSWORD).status_code == 200


def test_a_refusal_is_discords(guard: LoginGuard) -> None:
    client = TestClient(app_of(guard))
    refused = [post(client) for _ in range(6)][-1]
    assert refused.json() == {"message": "You are being rate limited.", "retry_after": 60.0, "global": False}
    assert refused.headers["retry-after"] == "60"
    assert refused.headers["x-ratelimit-remaining"] == "0"
    assert refused.headers["via"] == "1.1 asgi_ratelimit"


def test_refusals_of_right_and_wrong_names_look_alike(guard: LoginGuard) -> None:
    client = TestClient(app_of(guard))
    assert post(client, "ada", PASSWORD, headers={"x-forwarded-for": "1.1.1.1"}).status_code == 200
    for name in ("ada", "nobody"):
        for _ in range(5):
            post(client, name)
    refused = [post(client, "ada"), post(client, "nobody"), post(client, "ada", PASSWORD)]
    assert len({response.text for response in refused}) == 1
    assert len({repr(sorted(response.headers.items())) for response in refused}) == 1


def test_a_crash_is_no_failure(guard: LoginGuard) -> None:
    client = TestClient(app_of(guard), raise_server_exceptions=False)
    assert [post(client, password="crash").status_code for _ in range(60)] == [500] * 60
    assert post(client, password=PASSWORD).status_code == 200


def test_a_form_that_is_not_valid_is_no_failure(guard: LoginGuard) -> None:
    client = TestClient(app_of(guard))
    assert {client.post("/login", data={"username": "ada"}).status_code for _ in range(60)} == {422}
    assert client.post("/login", data={}).status_code == 422
    assert post(client, password=PASSWORD).status_code == 200


def test_a_device_is_read_from_a_cookie(guard: LoginGuard) -> None:
    client = TestClient(app_of(guard, device=device), cookies={"known_device": "a phone"})
    assert post(client, password=PASSWORD).status_code == 200
    other = TestClient(client.app, client=("192.0.2.1", 1))
    assert [post(other).status_code for _ in range(6)] == [401] * 5 + [429]
    known = TestClient(client.app, client=("192.0.2.2", 1), cookies={"known_device": "a phone"})
    assert post(known, password=PASSWORD).status_code == 200
    assert post(other, password=PASSWORD).status_code == 429


async def from_header(conn: Request) -> str | None:
    await asyncio.sleep(0)
    return conn.headers.get("x-client")


@pytest.mark.parametrize("client_of", [ClientIP(hops=1, header="x-client"), from_header], ids=["ClientIP", "async"])
def test_the_address_is_the_apps_own_matter(client_of: Any, store: MemoryStore) -> None:
    client = TestClient(app_of(LoginGuard(address="2/minute", store=store), client=client_of))
    answers = [post(client, f"user {n}", headers={"x-client": f"192.0.2.{n % 2}"}).status_code for n in range(6)]
    assert answers == [401] * 4 + [429] * 2


def test_the_account_of_a_json_body(guard: LoginGuard) -> None:
    class Credentials(BaseModel):
        mail: str
        password: str

    def of_body(credentials: Annotated[Credentials, Body()]) -> str:
        return credentials.mail

    app = FastAPI()

    @app.post("/login")
    def login(
        credentials: Annotated[Credentials, Body()],
        attempt: Annotated[Attempt, Depends(GuardedLogin(guard, account=of_body))],
    ) -> None:
        raise HTTPException(401)

    client = TestClient(app)
    body = {"mail": "ada@example.com", "password": "guess"}
    assert [client.post("/login", json=body).status_code for _ in range(6)] == [401] * 5 + [429]


def test_the_account_of_an_oauth2_form(guard: LoginGuard) -> None:
    def of_oauth(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> str:
        return form.username

    app = FastAPI()

    @app.post("/token", dependencies=[Depends(GuardedLogin(guard, account=of_oauth))])
    async def token(form: Annotated[OAuth2PasswordRequestForm, Depends()]) -> None:
        raise HTTPException(400)

    client = TestClient(app)
    form = {"username": "ada", "password": "guess"}
    assert [client.post("/token", data=form).status_code for _ in range(6)] == [400] * 5 + [429]


def test_the_account_of_the_request_itself(guard: LoginGuard) -> None:
    async def of_request(request: Request) -> object:
        return (await request.json()).get("mail")

    app = FastAPI()

    @app.post("/login", dependencies=[Depends(GuardedLogin(guard, account=of_request))])
    async def login(request: Request) -> None:
        await request.json()
        raise HTTPException(401)

    client = TestClient(app)
    for mail in (None, ["a", "list"], 7):
        assert [client.post("/login", json={"mail": mail}).status_code for _ in range(6)] == [401] * 5 + [429]


def test_a_handler_of_the_app_answers_a_refusal(guard: LoginGuard) -> None:
    app = app_of(guard)

    @app.exception_handler(RateLimited)
    async def answer(request: Request, refused: RateLimited) -> JSONResponse:
        return JSONResponse(f"in {refused.retry_after:g} s", 418, headers=refused.headers)

    refused = [post(TestClient(app)) for _ in range(6)][-1]
    assert (refused.status_code, refused.json(), refused.headers["retry-after"]) == (418, "in 60 s", "60")


def test_a_middleware_around_it_gives_back_its_charge(store: MemoryStore) -> None:
    app = app_of(LoginGuard(store=store))
    app.add_middleware(RateLimitMiddleware, limit="100/minute", store=store)
    client = TestClient(app)
    answers = [post(client) for _ in range(9)]
    assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 4
    assert [answer.headers["x-ratelimit-limit"] for answer in answers] == ["100"] * 5 + ["5"] * 4
    assert answers[-1].headers["retry-after"] == "60"
    assert post(client, "bob").headers["x-ratelimit-remaining"] == "94"


def test_an_outage_that_fails_closed_is_a_503(clock: ManualClock) -> None:
    client = TestClient(app_of(LoginGuard(store=UnavailableStore(clock=clock))))
    refused = post(client)
    assert refused.status_code == 503
    assert refused.headers["retry-after"] == "1"


def test_the_document_shows_the_429(guard: LoginGuard) -> None:
    app = app_of(guard)
    document_limits(app)
    operation = app.openapi()["paths"]["/login"]["post"]
    assert "429" in operation["responses"]
    assert "conn" not in repr(operation)


def test_a_wrong_option_is_named(guard: LoginGuard) -> None:
    wrong: Any = "username"
    with pytest.raises(ValueError, match="account is a function"):
        GuardedLogin(guard, account=wrong)
    with pytest.raises(ValueError, match="device is a function"):
        GuardedLogin(guard, account=of_form, device=wrong)
    with pytest.raises(ValueError, match="client is a function"):
        GuardedLogin(guard, account=of_form, client=wrong)
    with pytest.raises(ValueError, match="the guard is a LoginGuard"):
        GuardedLogin(wrong, account=of_form)


def test_without_depends_it_says_so(guard: LoginGuard) -> None:
    app, login = FastAPI(), GuardedLogin(guard, account=of_form)

    def endpoint(attempt: Any = login) -> None: ...

    app.get("/")(endpoint)
    with pytest.raises(TypeError, match="Depends"):
        TestClient(app).get("/")
