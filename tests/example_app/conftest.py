"""The example app, served on a loopback port, and a browser that looks at it.

A module has one page, which each test finds as if it were new: a page of its own would take a second to start.
"""

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
from playwright.sync_api import Browser, Error, Page, Response, sync_playwright
from starlette.testclient import TestClient

from asgi_ratelimit import MemoryStore
from asgi_ratelimit.testing import ManualClock
from example_app.main import create_app
from example_app.users import MEMBERS

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
LOOKS = [(width, scheme) for width in (1280, 820, 390) for scheme in ("light", "dark")]


def credentials(member: str) -> dict[str, str]:
    """The form with which a member logs in."""
    return {"member": member, "password": MEMBERS[member].password}


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


@pytest.fixture(scope="module")
def listening() -> Iterator[socket.socket]:
    """One port for all apps of a module. Early requests wait in its backlog."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening


@pytest.fixture
def address(served: FastAPI, listening: socket.socket) -> Iterator[str]:
    """Where it is served."""
    server = uvicorn.Server(uvicorn.Config(served, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening.dup()]})
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


@pytest.fixture(scope="module")
def page_at(browser: Browser) -> Callable[[str], Page]:
    """The page of a visitor to an address."""
    pages: dict[str, Page] = {}

    def page_at(address: str) -> Page:
        if address not in pages or pages[address].is_closed():
            pages[address] = browser.new_context(base_url=address).new_page()
        return pages[address]

    return page_at


def leave(page: Page, address: str) -> None:
    """End all that goes on in a page, and forget its visitor."""
    page.unroute_all(behavior="ignoreErrors")
    page.goto("about:blank")
    page.context.clear_cookies()
    devtools = page.context.new_cdp_session(page)
    devtools.send("Storage.clearDataForOrigin", {"origin": address, "storageTypes": "all"})
    devtools.detach()


@pytest.fixture
def page(page_at: Callable[[str], Page], address: str) -> Iterator[Page]:
    """A fresh visitor's page. Whatever a test does on it: no script fails, and all comes from the app itself."""
    page = page_at(address)
    look(page, *DESKTOP, "dark")
    errors: list[str] = []
    answers: list[Response] = []

    def note_error(error: Error) -> None:
        errors.append(str(error))

    def note_answer(answer: Response) -> None:
        answers.append(answer)

    page.on("pageerror", note_error)
    page.on("response", note_answer)
    yield page
    leave(page, address)
    page.remove_listener("pageerror", note_error)
    page.remove_listener("response", note_answer)
    assert errors == []
    assert [answer.url for answer in answers if not answer.url.startswith(f"{address}/")] == []
    assert {answer.status for answer in answers} <= {200, 303, 304, 429}


def look(page: Page, width: int, height: int, scheme: str) -> None:
    """Look at it through a window of this size, at daytime or at night."""
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    page.set_viewport_size({"width": width, "height": height})


def check_that_it_fits(page: Page, width: int) -> None:
    """The page is as wide as its window, once it is drawn."""
    page.evaluate("() => new Promise(drawn => requestAnimationFrame(() => requestAnimationFrame(drawn)))")
    assert page.evaluate("document.documentElement.scrollWidth") == width


@pytest.fixture
def shoot(page: Page) -> Callable[[str], None]:
    """Takes a screenshot of the whole page if SCREENSHOTS names a folder for it."""
    folder = os.environ.get("SCREENSHOTS")

    def take(name: str) -> None:
        if folder:
            page.evaluate("scrollTo(0, 0)")  # else sticky elements stand in the middle
            page.screenshot(path=Path(folder, f"{name}.png"), full_page=True, animations="disabled")

    return take
