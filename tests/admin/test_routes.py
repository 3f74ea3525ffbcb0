"""The operator's page: who is let in, what it says, and what its verbs do."""

from __future__ import annotations

import subprocess
import sys
from typing import Annotated, Any

import pytest
from fastapi import Depends, FastAPI, Header, HTTPException, Response
from fastapi.responses import RedirectResponse
from fastapi.testclient import TestClient

from asgi_ratelimit import Limiter, MemoryStore, StoreUnavailable
from asgi_ratelimit.admin import router
from asgi_ratelimit.discord import Waiting
from asgi_ratelimit.observe import Snapshot, Stats
from asgi_ratelimit.testing import ManualClock

LET_IN = {"x-user": "operator"}
OWN = {**LET_IN, "sec-fetch-site": "same-origin"}
PLACES = ["", "state", "events", "static/page.css", "static/nothing"]
VERBS = ["look-up", "reset", "block"]


def operator(x_user: Annotated[str, Header()] = "") -> None:
    if x_user != "operator":
        raise HTTPException(401)


@pytest.fixture
def stats() -> Stats:
    return Stats()


@pytest.fixture
def store(clock: ManualClock, stats: Stats) -> MemoryStore:
    return MemoryStore(clock=clock, observers=[stats])


@pytest.fixture
def limiter(store: MemoryStore) -> Limiter:
    return Limiter("5/5s", store=store, name="/search")


def page_of(store: MemoryStore, stats: Any, prefix: str = "/ops", **options: Any) -> TestClient:
    app = FastAPI()
    app.include_router(router(store, stats, **{"access": operator, **options}), prefix=prefix)
    return TestClient(app)


# Who is let in


@pytest.mark.parametrize("place", PLACES)
def test_every_place_is_behind_the_users_dependency(store: MemoryStore, stats: Stats, place: str) -> None:
    assert page_of(store, stats).get(f"/ops/{place}").status_code == 401


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("body", [b'{"limiter": "/search", "key": "ada"}', b"{", b"x" * 100_000])
def test_no_body_is_looked_at_before_the_caller_is_let_in(
    store: MemoryStore, stats: Stats, verb: str, body: bytes
) -> None:
    assert page_of(store, stats).post(f"/ops/{verb}", content=body, headers={"origin": "x"}).status_code == 401


@pytest.mark.parametrize("access", [None, True, "operator", Depends()])
def test_there_is_no_page_without_a_dependency(store: MemoryStore, stats: Stats, access: Any) -> None:
    with pytest.raises(ValueError, match="access=operator"):
        router(store, stats, access=access)


def test_access_has_no_default(store: MemoryStore, stats: Stats) -> None:
    with pytest.raises(ValueError, match="lets in operators only"):
        router(store, stats)  # type: ignore[call-arg]


@pytest.mark.parametrize("wrap", [lambda access: access, Depends])
def test_a_dependency_refuses_by_returning_false_too(store: MemoryStore, stats: Stats, wrap: Any) -> None:
    def is_operator(x_user: Annotated[str, Header()] = "") -> bool:
        return x_user == "operator"

    client = page_of(store, stats, access=wrap(is_operator))
    assert client.get("/ops/state").status_code == 403
    assert client.get("/ops/state", headers=LET_IN).status_code == 200


async def is_operator_later() -> bool:
    return True


@pytest.mark.filterwarnings("ignore:coroutine:RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    "answer", [lambda: RedirectResponse("/login"), lambda: Response(status_code=401), is_operator_later, int, str, set]
)
def test_a_result_that_is_no_leave_lets_nobody_in(store: MemoryStore, stats: Stats, answer: Any) -> None:
    def access() -> object:
        return answer()

    assert page_of(store, stats, access=access).get("/ops/state").status_code == 403


# Other sites


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "https://elsewhere.example"},
        {"origin": "null"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "origin": "http://testserver"},
        {"sec-fetch-site": "none"},
    ],
)
def test_a_page_of_another_site_changes_nothing(
    store: MemoryStore, stats: Stats, limiter: Limiter, verb: str, headers: dict[str, str]
) -> None:
    wanted = {"limiter": "/search", "key": "ada", "seconds": 60}
    answer = page_of(store, stats).post(f"/ops/{verb}", json=wanted, headers=LET_IN | headers)
    assert answer.status_code == 403


@pytest.mark.parametrize("headers", [{"sec-fetch-site": "same-origin"}, {"origin": "https://testserver"}])
def test_its_own_page_may(store: MemoryStore, stats: Stats, limiter: Limiter, headers: dict[str, str]) -> None:
    answer = page_of(store, stats).post(
        "/ops/look-up", json={"limiter": "/search", "key": "ada"}, headers=LET_IN | headers
    )
    assert answer.status_code == 200


@pytest.mark.parametrize("place", ["", "state", "static/page.js"])
def test_a_browser_is_held_to_the_page_itself(store: MemoryStore, stats: Stats, place: str) -> None:
    headers = page_of(store, stats).get(f"/ops/{place}", headers=LET_IN).headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-frame-options"] == "DENY"


# The page


@pytest.mark.parametrize("prefix", ["", "/ops", "/a/b/c"])
@pytest.mark.parametrize("root_path", ["", "/proxy"])
def test_all_addresses_are_relative_to_the_page(store: MemoryStore, stats: Stats, prefix: str, root_path: str) -> None:
    inner, app = FastAPI(), FastAPI()
    inner.include_router(router(store, stats, access=operator, title="<Limits>"), prefix=prefix)
    app.mount("/mount", inner)
    client = TestClient(app, root_path=root_path)
    page = client.get(f"{root_path}/mount{prefix}/", headers=LET_IN)
    assert page.status_code == 200
    assert "&lt;Limits&gt;" in page.text
    assert 'src="static/page.js"' in page.text
    assert "http://" not in page.text
    assert ' style="' not in page.text
    for name in (
        "page.js",
        "chart.js",
        "pieces.js",
        "page.css",
        "uplot.js",
        "uplot.css",
        "uplot.LICENSE.txt",
        "drop.svg",
    ):
        assert client.get(f"{root_path}/mount{prefix}/static/{name}", headers=LET_IN).status_code == 200


def test_no_file_of_another_folder_is_served(store: MemoryStore, stats: Stats) -> None:
    client = page_of(store, stats)
    for path in ("../routes.py", "%2e%2e/routes.py", "..%2froutes.py", ""):
        assert client.get(f"/ops/static/{path}", headers=LET_IN).status_code == 404


@pytest.mark.anyio
async def test_the_state_has_limits_counts_and_keys(store: MemoryStore, stats: Stats, limiter: Limiter) -> None:
    for _ in range(7):
        await limiter.try_acquire("user:ada")
    answer = page_of(store, stats).get("/ops/state", headers=LET_IN)
    (shown,) = answer.json()["limiters"]
    assert (shown["name"], shown["limits"]) == ("/search", ["5/5s"])
    assert (shown["allowed"], shown["limited"], shown["refused"]) == (5, 2, 2)
    assert (sum(shown["minutes"]["allowed"]), sum(shown["minutes"]["refused"])) == (5, 2)
    assert shown["keys"] == [{"key": store.observers.digest("user:ada"), "allowed": 5, "refused": 2, "error": 0}]
    assert "ada" not in answer.text
    assert answer.json()["waiting"] is None


@pytest.mark.anyio
async def test_keys_are_in_the_clear_only_if_stats_has_them_so(clock: ManualClock) -> None:
    stats = Stats(keys="clear")
    store = MemoryStore(clock=clock, observers=[stats])
    limiter = Limiter("5/5s", store=store)
    await limiter.try_acquire("user:ada")
    assert "user:ada" in page_of(store, stats).get("/ops/state", headers=LET_IN).text


def test_limiters_of_another_store_are_not_shown(store: MemoryStore, stats: Stats, limiter: Limiter) -> None:
    others = [Limiter("1/s", store=MemoryStore(), name="elsewhere"), Limiter("9/s", store=store, name="/search")]
    (shown,) = page_of(store, stats).get("/ops/state", headers=LET_IN).json()["limiters"]
    assert (shown["name"], shown["limits"]) == ("/search", ["5/5s", str(others[1].limits[0])])


class _Client:
    def __init__(self, *waiting: Waiting) -> None:
        self.waiting = list(waiting)


SHORT = Waiting("GET /gateway", 1, "global", 0.5, "", 50, 0)
LONG = Waiting("POST /channels/{channel_id}/messages", 9, "bucket", 4.5, "abc", 5, 0)


@pytest.mark.parametrize(
    "discord",
    [
        _Client(SHORT, LONG),
        [_Client(SHORT), _Client(LONG), _Client()],
        lambda: [_Client(LONG, SHORT)],
        lambda: _Client(LONG, SHORT),
    ],
)
def test_what_waits_for_discord_is_shown(store: MemoryStore, stats: Stats, discord: Any) -> None:
    waiting = page_of(store, stats, discord=discord).get("/ops/state", headers=LET_IN).json()["waiting"]
    assert [(one["route"], one["calls"], one["seconds"]) for one in waiting] == [
        (LONG.route, 9, 4.5),
        (SHORT.route, 1, 0.5),
    ]


# The verbs


def test_a_key_is_looked_up_blocked_and_reset(store: MemoryStore, stats: Stats, limiter: Limiter) -> None:
    client, wanted = page_of(store, stats), {"limiter": "/search", "key": "user:ada"}

    def post(verb: str, **more: object) -> dict[str, Any]:
        answer = client.post(f"/ops/{verb}", json=wanted | more, headers=OWN)
        assert answer.status_code == 200
        assert answer.json()["digest"] == store.observers.digest("user:ada")
        (part,) = answer.json()["parts"]
        return dict(part)

    assert post("look-up")["remaining"] == 5
    assert post("look-up")["remaining"] == 5  # nothing is charged
    blocked = post("block", seconds=60)
    assert (blocked["blocked"], blocked["allowed"], blocked["retry_after"]) == (True, False, 60.0)
    again = post("reset")
    assert (again["blocked"], again["remaining"]) == (False, 5)


@pytest.mark.anyio
async def test_every_limit_under_a_name_is_looked_up_and_reset(store: MemoryStore, stats: Stats) -> None:
    limiters = [Limiter(limit, store=store, name="app") for limit in ("3/s", ["9/minute", "99/hour"])]
    for limiter in limiters:
        await limiter.try_acquire("ada")
    client, wanted = page_of(store, stats), {"limiter": "app", "key": "ada"}
    parts = client.post("/ops/look-up", json=wanted, headers=OWN).json()["parts"]
    assert [part["remaining"] for part in parts] == [2, 8, 98]
    parts = client.post("/ops/reset", json=wanted, headers=OWN).json()["parts"]
    assert [part["remaining"] for part in parts] == [3, 9, 99]


@pytest.mark.parametrize(
    ("body", "status", "says"),
    [
        (b'{"limiter": "/serch", "key": "ada"}', 404, "no limiter called '/serch'; it has /search"),
        (b'{"limiter": "/search"}', 422, "key: Field required"),
        (b'{"limiter": "/search", "key": "ada", "seconds": -1}', 422, "seconds"),
        (b'{"limiter": "/search", "key": "ada", "seconds": 1e999}', 422, "seconds"),
        (b"[1]", 422, "the body"),
        (b"\xff{", 422, "the body"),
        (b"x" * 20_000, 413, "too long"),
    ],
)
def test_nonsense_is_refused_with_a_reason(
    store: MemoryStore, stats: Stats, limiter: Limiter, body: bytes, status: int, says: str
) -> None:
    answer = page_of(store, stats).post("/ops/block", content=body, headers=OWN)
    assert answer.status_code == status
    assert says in answer.json()["detail"]


def test_an_outage_is_no_error_of_the_page(clock: ManualClock, stats: Stats) -> None:
    store = MemoryStore(max_keys=1, clock=clock)
    limiters = [Limiter("5/5s", store=store)]
    client = page_of(store, stats)
    codes = [
        client.post("/ops/block", json={"limiter": limiters[0].name, "key": key, "seconds": 9}, headers=OWN).status_code
        for key in ("ada", "bob")
    ]
    assert codes == [200, 503]  # a full store has no room for another block


class _Away:
    def snapshot(self) -> Snapshot:
        return Snapshot(1.0)

    async def share(self, store: object) -> Snapshot:
        raise StoreUnavailable("the server is away")


def test_without_the_server_it_shows_the_counts_of_its_own_process(store: MemoryStore) -> None:
    assert page_of(store, _Away()).get("/ops/state", headers=LET_IN).json()["processes"] == 1


@pytest.mark.parametrize("options", [{"every": 0}, {"every": True}, {"every": float("nan")}, {"every": "2"}])
def test_options_are_checked(store: MemoryStore, stats: Stats, options: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="every=2"):
        router(store, stats, access=operator, **options)


def test_stats_is_checked(store: MemoryStore) -> None:
    with pytest.raises(ValueError, match=r"stats := Stats\(\)"):
        router(store, store, access=operator)  # type: ignore[arg-type]


def test_without_its_packages_it_names_the_extra() -> None:
    code = "import sys; sys.modules['sse_starlette'] = None; import asgi_ratelimit.admin"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert "pip install 'asgi-ratelimit-discord[admin]'" in run.stderr.splitlines()[-1]
