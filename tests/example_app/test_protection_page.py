"""The page about protection in a real browser: exports in flight, guesses, a storm."""

from __future__ import annotations

import re
from collections.abc import Callable

from playwright.sync_api import Locator, Page, expect

from tests.example_app.conftest import LOOKS, check_that_it_fits, look

Shoot = Callable[[str], None]
PATIENCE_MS = 20_000  # for a machine that is busy with something else


def runs(page: Page, kind: str) -> Locator:
    return page.get_by_test_id("runs").locator(f"[data-kind={kind}]")


def tries(page: Page, status: int) -> Locator:
    return page.get_by_test_id("tries").locator(f"[data-status='{status}']")


def test_two_exports_run_and_closing_one_frees_its_slot(page: Page) -> None:
    page.goto("/protection")
    slots = page.get_by_test_id("slots")
    expect(slots).to_have_attribute("aria-valuenow", "0")
    page.get_by_test_id("exports").click()
    expect(runs(page, "refused")).to_have_count(2)
    expect(runs(page, "refused").first).to_contain_text("429, retry after 1 s")
    expect(slots).to_contain_text("2 of 2 slots in use, 2 of 3 of your address")
    runs(page, "running").first.get_by_role("button", name="Close export").click()
    expect(runs(page, "closed")).to_contain_text("closed, its slot is free")
    expect(slots).to_contain_text("1 of 2 slots in use")
    page.get_by_test_id("export").click()
    expect(runs(page, "running")).to_have_count(2)
    runs(page, "running").last.get_by_role("button").click()
    expect(page.get_by_test_id("flight-said")).to_have_text("One export: 1 closed.")


def test_guesses_close_an_account_to_strangers_only(page: Page) -> None:
    page.goto("/protection")
    expect(page.get_by_test_id("left-stranger")).to_contain_text("5 of 5 tries left")
    page.get_by_test_id("guess").click()
    expect(tries(page, 401)).to_have_count(5)
    expect(page.get_by_test_id("left-stranger")).to_contain_text(re.compile(r"blocked for \d+\.\d s"))
    expect(page.get_by_test_id("ladder").locator("[aria-current=step]")).to_have_text("10 s")
    page.get_by_test_id("right").click()
    expect(tries(page, 429)).to_have_count(2)
    page.get_by_test_id("place-phone").check(force=True)
    page.get_by_test_id("right").click()
    expect(page.get_by_test_id("log-in-said")).to_have_text("The right password from her phone: welcome.")
    expect(page.get_by_test_id("left-phone")).to_contain_text("5 of 5 tries left")
    page.get_by_test_id("account-grace").check(force=True)
    expect(page.get_by_test_id("left-stranger")).to_contain_text("5 of 5 tries left")


def test_hammering_closes_a_door(page: Page) -> None:
    page.goto("/protection")
    ban, button = page.get_by_test_id("ban"), page.get_by_test_id("hammer")
    expect(ban).to_contain_text("open to you")
    button.click()
    expect(button).to_be_disabled()
    expect(button).to_be_enabled(timeout=PATIENCE_MS)
    expect(ban).to_contain_text(re.compile(r"closed to you for \d\.\d s"))
    expect(page.get_by_test_id("bans-said")).to_contain_text(
        re.compile(r"20 knocks: \d+ let in, \d+ refused, and you are banned for")
    )
    expect(page.get_by_test_id("ban-ladder").locator("[aria-current=step]")).to_have_text("8 s")
    expect(page.get_by_test_id("knocks").locator("[data-status='429']").first).to_contain_text("retry after")


def test_a_storm_is_drawn_by_class(page: Page, shoot: Shoot) -> None:
    page.goto("/protection")
    page.get_by_test_id("exports").click()
    page.get_by_test_id("guess").click()
    page.get_by_test_id("hammer").click()
    expect(tries(page, 429)).to_have_count(1)
    button = page.get_by_test_id("storm")
    page.locator("[name=seconds]:checked").evaluate("chosen => { chosen.value = '0.3'; }")
    button.click()
    expect(button).to_be_disabled()
    expect(button).to_be_enabled(timeout=PATIENCE_MS)
    expect(page.get_by_test_id("storm-said")).to_contain_text(re.compile(r"[\d,]+ requests in .* served, .* shed; "))
    expect(page.get_by_test_id("served")).not_to_have_text("0")
    expect(page.get_by_test_id("class-2").locator("rect").first).to_be_attached()
    expect(page.get_by_test_id("class-2")).to_contain_text(re.compile(r"\d+ of \d+ served"))
    answered, asked = re.findall(r"\d+", page.get_by_test_id("figures").locator(".checks dd").inner_text())[:2]
    assert answered == asked != "0"
    for width, scheme in LOOKS:
        look(page, width, 900, scheme)
        check_that_it_fits(page, width)
        shoot(f"protection-{width}-{scheme}")


def test_a_second_storm_is_refused_in_words(page: Page) -> None:
    page.goto("/protection")
    page.evaluate(
        """() => fetch("/protection/storms", {
            method: "POST", headers: { "Content-Type": "application/json" }, body: '{"flood": 0.5}'
        })"""
    )
    page.get_by_test_id("storm").click()
    expect(page.get_by_test_id("storm-said")).to_contain_text("One storm at a time")


def test_everything_has_a_name_and_a_key_reaches_it(page: Page) -> None:
    page.goto("/protection")
    page.get_by_test_id("wrong").focus()
    page.keyboard.press("Enter")
    expect(tries(page, 401)).to_have_count(1)
    expect(page.get_by_test_id("wrong")).to_be_focused()
    unnamed = page.locator("input, button, ol, [role=meter], svg[role=img]").evaluate_all(
        "all => all.filter(one => !one.ariaLabel && !one.labels?.length && !one.textContent.trim()).map(one => one.id)"
    )
    assert unnamed == []
