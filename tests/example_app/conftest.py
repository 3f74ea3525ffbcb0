"""The example app, served on a loopback port, and a browser that looks at it."""

from __future__ import annotations

import os
import shutil
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, Page, Response, sync_playwright
from starlette.testclient import TestClient

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.testing import ManualClock
from example_app.main import create_app

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
# As root there is no sandbox, and a browser in a test has no server to call home to.
CHROMIUM_OPTIONS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP = (1280, 1440)


@pytest.fixture(autouse=True)
def _names(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app answers to the name that Starlette's test client gives it, and to that of a browser."""
    monkeypatch.setenv("ALLOWED_HOSTS", "testserver, 127.0.0.1")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def app(clock: ManualClock) -> FastAPI:
    return create_app(MemoryStore(clock=clock))


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.fixture
def served() -> FastAPI:
    """The app that is served, with a store of its own."""
    return create_app()


@pytest.fixture
def address(served: FastAPI) -> Iterator[str]:
    """Where it is served."""
    with socket.create_server(("127.0.0.1", 0)) as listening:  # early requests wait in its backlog
        server = uvicorn.Server(uvicorn.Config(served, log_level="warning", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    chromium = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if chromium is None:
        absent = f"none of {', '.join(CHROMIUMS)} is installed"
        pytest.fail(absent) if os.environ.get("REQUIRE_ALL") == "1" else pytest.skip(absent)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=list(CHROMIUM_OPTIONS))
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, address: str) -> Iterator[Page]:
    """A fresh visitor's page. Whatever a test does on it: no script fails, and all comes from the app itself."""
    width, height = DESKTOP
    context = browser.new_context(base_url=address, viewport={"width": width, "height": height}, color_scheme="dark")
    page = context.new_page()
    errors: list[str] = []
    strangers: list[str] = []
    answered: list[int] = []

    def note(response: Response) -> None:
        answered.append(response.status)
        if not response.url.startswith(f"{address}/"):
            strangers.append(response.url)

    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("response", note)
    yield page
    context.close()
    assert errors == []
    assert strangers == []
    assert set(answered) <= {200, 303, 304, 429}


@pytest.fixture
def shoot(page: Page, tmp_path: Path) -> Callable[[str], None]:
    """Takes a screenshot of the whole page; SCREENSHOTS names the folder for it."""
    folder = Path(os.environ.get("SCREENSHOTS") or tmp_path)

    def take(name: str) -> None:
        page.evaluate("scrollTo(0, 0)")  # else sticky elements stand in the middle
        page.screenshot(path=folder / f"{name}.png", full_page=True, animations="disabled")

    return take
