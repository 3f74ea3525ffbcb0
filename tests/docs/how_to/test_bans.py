"""Clients that hammer: the page's apps block as its table says, and its files decide."""

from __future__ import annotations

from pathlib import Path

from starlette.applications import Starlette
from starlette.testclient import TestClient

from asgi_ratelimit import NetworkFile, Store
from asgi_ratelimit.testing import ManualClock
from tests.docs.how_to.conftest import NewStore
from tests.docs.markdown import DOCS, Block, blocks, rows
from tests.docs.running import run

PAGE = DOCS / "how-to" / "bans.md"
HAMMERING, FILES = blocks(PAGE)


def app_of(block: Block, store: Store, **replacements: str) -> Starlette:
    app: Starlette = run(block, **replacements)["app"]
    (middleware,) = app.user_middleware
    middleware.kwargs["store"] = store
    return app


def test_a_client_is_blocked_as_the_table_says(new_store: NewStore, clock: ManualClock) -> None:
    client = TestClient(app_of(HAMMERING, new_store()))
    for seconds in (60, 600, 600):
        assert [client.get("/").status_code for _ in range(120)] == [404] * 100 + [429] * 20
        refused = client.get("/")
        assert refused.headers["retry-after"] == str(seconds)
        assert refused.json()["retry_after"] == seconds
        assert refused.headers["x-ratelimit-remaining"] == "0"
        assert refused.headers["x-ratelimit-reset-after"] == f"{seconds}.000"
        assert refused.headers["x-ratelimit-scope"] == "user"
        clock.advance(seconds / 2)
        assert client.get("/").headers["retry-after"] == str(seconds // 2)
        clock.advance(seconds / 2)


def test_the_table_of_answers_is_about_this_app() -> None:
    cells = [cell for row in rows(PAGE) for cell in row]
    assert "1 to 100" in cells
    assert "more, for 60 s" in cells
    assert "more, for 600 s" in cells


def test_partners_are_exempt_and_banned_clients_refused(new_store: NewStore, networks: dict[str, str]) -> None:
    app = app_of(FILES, new_store(), **networks)

    def statuses(address: str, times: int) -> list[int]:
        client = TestClient(app, client=("10.0.0.1", 1), headers={"x-forwarded-for": address})
        return [client.get("/").status_code for _ in range(times)]

    assert statuses("192.0.2.7", 101) == [404] * 101
    assert statuses("198.51.100.7", 2) == [429] * 2
    assert statuses("203.0.113.7", 101) == [404] * 100 + [429]


def test_the_file_that_is_shown_can_be_read(networks: dict[str, str]) -> None:
    (shown,) = blocks(PAGE, "text")
    Path(networks["partners.txt"]).write_text(shown.source)
    assert len(NetworkFile(networks["partners.txt"])) == 3
