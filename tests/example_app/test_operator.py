"""The operator's page in a real browser: fresh, under load, in an outage, and closed to others."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import pytest
from fastapi import FastAPI
from playwright.sync_api import Locator, Page, expect
from starlette.testclient import TestClient

from asgi_ratelimit.events import Event
from tests.example_app.conftest import LOOKS, check_that_it_fits, credentials, look
from tests.example_app.test_dashboard import answers, log_in

Shoot = Callable[[str], None]
PLACES = ["", "state", "events", "static/page.js", "static/uplot.js"]
VERBS = ["look-up", "reset", "block"]
OWN = {"Sec-Fetch-Site": "same-origin"}


def open_page(page: Page) -> None:
    log_in(page, "margaret")
    page.get_by_test_id("operator").click()
    expect(page.get_by_test_id("link")).to_have_attribute("data-state", "live")


def row(page: Page, limiter: str) -> Locator:
    return page.get_by_test_id("limiters").get_by_role("row").filter(has=page.get_by_text(limiter, exact=True))


def act(page: Page, verb: str, limiter: str, key: str) -> Locator:
    page.get_by_test_id("act-limiter").select_option(limiter)
    page.get_by_test_id("act-key").fill(key)
    page.get_by_test_id(verb).click()
    return page.get_by_test_id("result")


# Who may see it


@pytest.mark.parametrize("place", PLACES)
def test_a_stranger_is_sent_to_the_log_in(client: TestClient, place: str) -> None:
    answer = client.get(f"/operator/{place}", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/login?to=operator")


@pytest.mark.parametrize(
    ("member", "to", "place"),
    [("margaret", "operator", "/operator/"), ("ada", "operator", "/"), ("margaret", "//evil.example", "/")],
)
def test_the_log_in_leads_back_operators_only(client: TestClient, member: str, to: str, place: str) -> None:
    answer = client.post("/login", params={"to": to}, data=credentials(member), follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, place)


@pytest.mark.parametrize("verb", VERBS)
def test_another_member_is_refused(client: TestClient, verb: str) -> None:
    client.post("/login", data=credentials("grace"))
    assert client.post(f"/operator/{verb}", headers=OWN, json={"limiter": "app", "key": "x"}).status_code == 403
    assert {client.get(f"/operator/{place}").status_code for place in PLACES} == {403}
    assert "/operator/" not in client.get("/").text


def test_the_operator_is_let_in_also_while_the_app_is_full(app: FastAPI, client: TestClient) -> None:
    client.post("/login", data=credentials("margaret"))
    while client.get("/nowhere").status_code != 429:
        pass
    assert client.get("/operator").status_code == 200  # by way of a redirect
    assert client.get("/operator/").status_code == 200
    limiters = {one["name"]: one for one in client.get("/operator/state").json()["limiters"]}
    assert limiters["app"]["refused"] == 1
    assert client.get("/limits/me").json()["limits"][0]["remaining"] == 0


# In a browser


def test_fresh(page: Page, shoot: Shoot) -> None:
    open_page(page)
    expect(page.get_by_test_id("tile-refused")).to_contain_text("0")
    expect(page.get_by_test_id("chart").locator("canvas")).to_be_visible()
    for width, scheme in LOOKS:
        look(page, width, 900, scheme)
        expect(page.get_by_test_id("chart").locator("canvas")).to_be_visible()
        check_that_it_fits(page, width)
        shoot(f"operator-fresh-{width}-{scheme}")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (820, "light"), (390, "light")])
def test_under_load_a_key_is_looked_up_blocked_and_reset(page: Page, width: int, scheme: str, shoot: Shoot) -> None:
    page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
    log_in(page, "margaret")
    page.get_by_test_id("burst-reports").click()
    page.get_by_test_id("burst-search").click()
    expect(answers(page, 429).first).to_be_visible()
    expect(answers(page, 200).first).to_be_visible()
    page.get_by_test_id("operator").click()
    page.set_viewport_size({"width": width, "height": 900})
    expect(row(page, "/api/reports").get_by_role("cell").nth(1)).not_to_have_text("0")  # refused
    expect(page.get_by_test_id("keys").get_by_role("row").first).to_be_visible()

    result = act(page, "look-up", "/api/reports", "user:margaret")
    expect(result).to_contain_text("0 of 12 left")
    expect(page.locator("tr[data-found]").first).to_be_visible()  # it is one of the heaviest
    expect(act(page, "reset", "/api/reports", "user:margaret")).to_contain_text("12 of 12 left")
    expect(act(page, "block", "/api/reports", "user:margaret")).to_contain_text("refused for 10 min")
    shoot(f"operator-load-{width}-{scheme}")
    assert page.request.get("/api/reports").status == 429
    expect(act(page, "reset", "/api/reports", "user:margaret")).to_contain_text("12 of 12 left")
    assert page.request.get("/api/reports").status == 200
    assert page.evaluate("document.documentElement.scrollWidth") == width


def test_what_protects_the_app_is_shown(page: Page, served: FastAPI, shoot: Shoot) -> None:
    log_in(page, "margaret")
    for _ in range(6):
        page.request.post("/protection/log-ins", data={"account": "ada"})
    for _ in range(16):
        page.request.post("/api/knock")
    served.state.store.observers.emit(Event("shed", "load"))
    page.get_by_test_id("operator").click()
    failures = page.get_by_test_id("log-ins").get_by_role("listitem")
    expect(failures).to_have_count(2)
    expect(failures.first).to_contain_text("login:account")
    expect(failures.first).to_contain_text("5 failures, 1 block begun, 1 attempt refused")
    expect(page.get_by_test_id("shed")).to_contain_text("1 request shed")
    choices = page.get_by_test_id("act-limiter").locator("option").all_inner_texts()
    assert "load" not in choices  # it has no keys
    assert {"/api/knock", "login:account"} <= {*choices}
    expect(page.get_by_test_id("shed")).to_contain_text("1 block begun, after too many refusals of a key")
    expect(row(page, "login:account")).to_contain_text("failed log-ins, by account")
    expect(page.get_by_test_id("limiters")).not_to_contain_text("login:account:")
    expect(act(page, "look-up", "login:account", "Ada")).to_contain_text("refused for")
    expect(page.locator("tr[data-found]").first).to_be_visible()
    expect(act(page, "reset", "login:account", "Ada")).to_contain_text("5 of 5 left")
    expect(page.get_by_test_id("act-key")).to_have_attribute("placeholder", "the name of an account")
    for width, scheme in (LOOKS[0], LOOKS[-1]):
        look(page, width, 900, scheme)
        check_that_it_fits(page, width)
        shoot(f"operator-protection-{width}-{scheme}")


@pytest.mark.parametrize(("processes", "shown"), [(1, "2, at most 3"), (4, "2")])
def test_the_most_in_flight_is_that_of_a_lone_process(page: Page, processes: int, shown: str) -> None:
    log_in(page, "margaret")
    state = page.request.get("/operator/state").json()
    state["limiters"][0] |= {"name": "exports", "in_flight": 2, "most_in_flight": 3}
    body = f"event: state\ndata: {json.dumps(state | {'processes': processes})}\n\n"
    page.route("**/operator/events", lambda route: route.fulfill(content_type="text/event-stream", body=body))
    page.goto("/operator/")
    expect(row(page, "exports").get_by_role("cell").nth(7)).to_have_text(shown)


def test_the_chart_follows_the_chosen_limiter(page: Page) -> None:
    log_in(page, "margaret")
    page.get_by_test_id("burst-reports").click()
    expect(answers(page, 429).first).to_be_visible()
    page.get_by_test_id("operator").click()
    page.get_by_role("button", name="/api/reports").click()
    expect(page.get_by_test_id("shown")).to_have_value("/api/reports")
    expect(page.get_by_test_id("chart")).to_have_attribute("aria-label", re.compile(r"/api/reports by minute: \d+ all"))
    expect(page.get_by_test_id("reading")).to_contain_text("Allowed 12")
    page.get_by_test_id("span-hours").check(force=True)
    expect(page.get_by_test_id("chart")).to_have_attribute("aria-label", re.compile("by hour"))


def test_it_is_live_and_comes_back(page: Page) -> None:
    open_page(page)
    page.request.get("/api/reports")
    expect(row(page, "/api/reports").get_by_role("cell").first).to_have_text("1")
    page.route("**/operator/events", lambda route: route.abort())
    page.reload()
    expect(page.get_by_test_id("lost")).to_contain_text("does not answer")
    page.unroute("**/operator/events")
    expect(page.get_by_test_id("link")).to_have_attribute("data-state", "live")
    expect(page.get_by_test_id("lost")).to_be_hidden()


def test_it_says_that_one_is_logged_out(page: Page) -> None:
    open_page(page)
    page.context.clear_cookies()
    expect(act(page, "look-up", "app", "user:ada")).to_contain_text("not let in any more")


def test_an_outage_is_seen(page: Page, served: FastAPI, shoot: Shoot) -> None:
    open_page(page)
    observers = served.state.store.observers
    observers.emit(Event("down", "", node="redis://10.0.0.7:6379", cause="Connection refused"))
    expect(page.get_by_test_id("away")).to_contain_text("redis://10.0.0.7:6379 does not answer since")
    shoot("operator-outage")
    observers.emit(Event("recovered", "", node="redis://10.0.0.7:6379", seconds=12.5, checks=7))
    expect(page.get_by_test_id("away")).to_be_hidden()
    expect(page.get_by_test_id("outages")).to_contain_text("away for 12.5 s")


def test_everything_can_be_reached_with_the_keyboard(page: Page) -> None:
    open_page(page)
    page.get_by_test_id("act-key").fill("user:ada")
    page.get_by_test_id("act-key").press("Enter")
    expect(page.get_by_test_id("result")).to_contain_text("What is left")
    unnamed = page.locator("input, select, button").evaluate_all(
        "all => all.filter(one => !one.ariaLabel && !one.labels?.length && !one.textContent.trim()).map(one => one.id)"
    )
    assert unnamed == []
    assert page.locator("th:not([scope])").count() == 0
