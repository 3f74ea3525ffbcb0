"""The dashboard in a real browser: its view before, while and after being limited."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.example_app.conftest import LOOKS, check_that_it_fits, look

Shoot = Callable[[str], None]


def log_in(page: Page, member: str = "ada") -> None:
    page.goto("/")
    page.get_by_test_id("log-in").click()
    page.get_by_test_id(f"log-in-{member}").click()
    expect(page.get_by_test_id("dashboard")).to_be_visible()


def left(page: Page, gauge: str) -> Locator:
    return page.get_by_test_id(f"gauge-{gauge}").locator("[data-part=remaining]")


def answers(page: Page, status: int) -> Locator:
    pill = page.locator("[data-part=status]", has_text=re.compile(f"^{status}$"))
    return page.get_by_test_id("answers").get_by_role("listitem").filter(has=pill)


def test_fresh_then_limited(page: Page, shoot: Shoot) -> None:
    log_in(page)
    expect(page.get_by_test_id("visitor")).to_contain_text("Ada")
    expect(left(page, "search")).to_have_text("5")
    expect(left(page, "reports")).to_have_text("6")
    expect(page.get_by_test_id("empty")).to_be_visible()
    expect(page.get_by_test_id("countdown")).to_have_attribute("data-state", "idle")
    shoot("dashboard-fresh")

    page.get_by_test_id("burst-messages-general").click()
    page.get_by_test_id("burst-reports").click()
    expect(answers(page, 429).filter(has_text="/api/reports")).to_have_count(9)
    page.get_by_test_id("burst-search").click()
    expect(answers(page, 429).filter(has_text="/api/search").first).to_be_visible()

    countdown = page.get_by_test_id("countdown")
    expect(countdown).to_have_attribute("data-state", "counting")
    shown = page.get_by_test_id("countdown-value")
    expect(shown).to_have_text(re.compile(r"^\d+\.\d+$"))
    assert 0 < float(shown.inner_text()) <= 20
    expect(page.get_by_test_id("empty")).to_be_hidden()
    expect(left(page, "reports")).to_have_text("0")
    expect(page.get_by_test_id("gauge-reports")).to_contain_text("next in")
    shoot("dashboard-limited")


def test_the_countdown_ends_when_the_next_call_is_allowed(page: Page) -> None:
    log_in(page)
    page.get_by_test_id("burst-messages-general").click()
    expect(page.get_by_test_id("countdown")).to_have_attribute("data-state", "counting")
    expect(page.get_by_test_id("countdown-text")).to_have_text("#general has refused you: 4 per 6 s.")
    expect(page.get_by_test_id("countdown")).to_have_attribute("data-state", "ready", timeout=10_000)
    expect(page.get_by_test_id("countdown-text")).to_have_text("Now. #general lets you pass again.")

    page.get_by_test_id("clear").click()
    expect(page.get_by_test_id("empty")).to_be_visible()
    page.get_by_test_id("call-messages-general").click()
    expect(answers(page, 200)).to_have_count(1)
    expect(answers(page, 429)).to_have_count(0)


def test_a_gauge_refills_without_a_request(page: Page) -> None:
    log_in(page)
    meter = page.get_by_test_id("gauge-search").get_by_role("meter")
    expect(meter).to_have_attribute("aria-valuenow", "5")
    page.get_by_test_id("burst-search").click()
    expect(meter).not_to_have_attribute("aria-valuenow", "5")
    page.route("**/api/gauges", lambda route: route.abort())
    expect(page.get_by_role("alert")).to_be_visible()
    expect(meter).to_have_attribute("aria-valuenow", re.compile("[34]"))
    expect(meter).to_have_attribute("aria-valuenow", "5", timeout=10_000)


def test_an_answer_shows_its_headers(page: Page) -> None:
    page.goto("/")
    page.get_by_test_id("burst-reports").click()
    expect(answers(page, 429)).to_have_count(12)  # the newest comes first: wait for the last of them
    refusal = answers(page, 429).first
    expect(refusal).to_contain_text("remaining 0")
    expect(refusal.get_by_text("X-RateLimit-Bucket")).to_be_hidden()
    refusal.locator("summary").click()
    for header in ("Retry-After", "X-RateLimit-Bucket", "X-RateLimit-Reset-After", "X-RateLimit-Scope"):
        expect(refusal.get_by_text(header, exact=True)).to_be_visible()
    expect(refusal.locator("pre")).to_contain_text("You are being rate limited.")


def test_a_red_card_names_the_limit_that_refused(page: Page) -> None:
    log_in(page)
    page.get_by_test_id("burst-messages-general").click()
    expect(answers(page, 429).first.locator("[data-part=why]")).to_have_text("Refused by #general, 4 per 6 s")
    page.get_by_test_id("frames-many").click()
    expect(answers(page, 4008).locator("[data-part=why]")).to_have_text("Refused by Echo, 12 per 10 s on one socket")
    page.get_by_test_id("call-messages-random").click()
    expect(answers(page, 200).first.locator("[data-part=why]")).to_be_hidden()


def test_a_red_card_names_the_limit_of_the_whole_app(page: Page) -> None:
    page.goto("/")
    expect(left(page, "app")).to_have_text(re.compile(r"\d+"))
    while page.request.get("/nowhere").status != 429:
        pass
    page.get_by_test_id("burst-search").click()
    expect(answers(page, 429).first.locator("[data-part=why]")).to_have_text(
        "Refused by your limit for the whole app, 60 per minute"
    )
    expect(page.get_by_test_id("countdown-text")).to_have_text(
        re.compile(
            r"Your limit for the whole app has refused you: 60 per minute\.|Now\. Your limit for the whole app lets"
        )
    )


@pytest.mark.parametrize("width", [360, 390])
@pytest.mark.parametrize("store", ["in memory, 1 process", "Redis is away, each worker counts alone"])
def test_the_header_fits_a_phone_in_two_rows(page: Page, width: int, store: str) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    for path in ("/", "/login", "/discord", "/protection"):
        page.goto(path)
        page.get_by_test_id("kept").evaluate("(badge, text) => { badge.textContent = text; }", store)
        middles = page.locator(".bar > *").evaluate_all(
            "parts => parts.map(part => part.getBoundingClientRect()).map(box => Math.round(box.top + box.height / 2))"
        )
        assert len(set(middles)) == 2
        assert page.evaluate("document.documentElement.scrollWidth") == width


def test_the_header_of_a_member_fits_a_phone_in_two_rows(page: Page) -> None:
    log_in(page)
    page.set_viewport_size({"width": 390, "height": 844})
    tops = page.locator(".bar > *").evaluate_all(
        "parts => parts.map(part => part.getBoundingClientRect()).map(box => Math.round(box.top + box.height / 2))"
    )
    assert len(set(tops)) == 2


def test_a_burst_is_announced(page: Page) -> None:
    page.goto("/")
    page.get_by_test_id("burst-reports").click()
    expect(page.get_by_role("status")).to_contain_text("Reports: 3 allowed, 12 refused. Next allowed call in")
    expect(page.get_by_test_id("tally")).to_have_text(re.compile(r"3\s+allowed\s+12\s+refused"))


def test_the_leaky_bucket_holds_calls_back(page: Page) -> None:
    log_in(page)
    page.get_by_test_id("burst-pictures").click()
    expect(answers(page, 429).first).to_be_visible()
    held = answers(page, 200).filter(has=page.locator("[data-part=took]", has_text=re.compile(r"^[12]\.\d\d s$")))
    expect(held.first).to_be_visible()


def test_channels_have_buckets_of_their_own(page: Page) -> None:
    log_in(page)
    page.get_by_test_id("burst-messages-general").click()
    expect(left(page, "messages-general")).to_have_text("0")
    expect(left(page, "messages-random")).to_have_text("4")


def test_too_many_frames_close_the_socket(page: Page) -> None:
    log_in(page)
    state = page.get_by_test_id("echo-state")
    page.get_by_test_id("frames-few").click()
    expect(state).to_have_text("Open: 4 frames came back")
    page.get_by_test_id("frames-many").click()
    expect(state).to_have_text("Closed with 4008 after 12 frames: rate limited")
    expect(answers(page, 4008)).to_have_count(1)


def test_nothing_sticks_out(page: Page, shoot: Shoot) -> None:
    page.goto("/login")
    for width, scheme in LOOKS:
        look(page, width, 844 if width < 500 else 1440, scheme)
        check_that_it_fits(page, width)
        shoot(f"login-{width}-{scheme}")
    page.get_by_test_id("log-in-grace").click()
    expect(left(page, "app")).to_have_text(re.compile(r"\d+"))
    page.get_by_test_id("burst-messages-random").click()
    expect(answers(page, 429)).to_have_count(2)
    answers(page, 429).first.locator("summary").click()
    for width, scheme in LOOKS:
        look(page, width, 844 if width < 500 else 1440, scheme)
        check_that_it_fits(page, width)
        assert page.get_by_test_id("answers").evaluate("list => list.scrollWidth - list.clientWidth") == 0
        shoot(f"dashboard-{width}-{scheme}")


def test_it_says_when_the_app_is_gone(page: Page) -> None:
    page.goto("/")
    expect(left(page, "search")).to_have_text("5")
    expect(page.get_by_role("alert")).to_be_hidden()
    page.route("**/api/gauges", lambda route: route.abort())
    expect(page.get_by_role("alert")).to_be_visible()
    page.unroute("**/api/gauges")
    expect(page.get_by_role("alert")).to_be_hidden()
