"""The names of accounts: folded, and never in the store."""

from __future__ import annotations

import unicodedata
import warnings
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit import MemoryStore, RateLimitWarning
from asgi_ratelimit.login import LoginGuard, fold_account
from asgi_ratelimit.login.account_names import Digests, fold_address, has_public_secret, secret_of
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.testing import ManualClock
from tests.support.log_ins import RecordingStore, log_in

SPACES = st.text(" \t\n\u00a0\u2003\u3000", max_size=5)
INVISIBLE = st.text("\u200b\u200d\u2060\ufeff\u00ad\x00", max_size=3)


@given(st.text(max_size=200))
def test_to_fold_twice_is_to_fold_once(name: str) -> None:
    assert fold_account(fold_account(name)) == fold_account(name)


IOTA = "\u0345"  # a mark that is a letter in the other case: its place among other marks matters then


@given(st.text(max_size=50).filter(lambda name: IOTA not in unicodedata.normalize("NFD", name)))
def test_neither_case_nor_unicode_form_nor_spaces_count(name: str) -> None:
    folded = fold_account(name)
    for form in ("NFC", "NFD", "NFKC", "NFKD"):
        assert fold_account(unicodedata.normalize(form, name)) == folded
    assert fold_account(name.casefold()) == folded
    assert fold_account(f" \t{name}\n") == folded


def test_each_character_is_folded_once() -> None:
    for name in map(chr, range(0x20000)):
        folded = fold_account(name)
        if folded != name:
            assert fold_account(folded) == folded


@given(st.text(st.sampled_from("a\u03b1\u1fb3\u0345\u0301\u0308\u0327 \u00c5\u212b\uac00\u11a8"), max_size=8))
def test_canonical_forms_of_a_name_are_one(name: str) -> None:
    forms = {fold_account(unicodedata.normalize(form, name)) for form in ("NFC", "NFD")}
    assert forms == {fold_account(name)}


@given(st.lists(st.text("abc.@+-_19", min_size=1, max_size=9), min_size=1, max_size=4), st.data())
def test_spaces_within_a_name_are_one(words: list[str], data: st.DataObject) -> None:
    spaced = "".join(f"{data.draw(INVISIBLE)}{word}{data.draw(INVISIBLE)} {data.draw(SPACES)}" for word in words)
    assert fold_account(f"{data.draw(SPACES)}{spaced}") == " ".join(words)


@given(st.text("abcdefghijklmnopqrstuvwxyz0123456789.+-_@", min_size=1))
def test_an_e_mail_address_stays_as_written(name: str) -> None:
    assert fold_account(name) == name[:1024]


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("STRASSE", "straße"),
        ("ﬁne", "FINE"),
        ("\uff21\uff44\uff41", "ada"),
        ("\u212bngstr\u00f6m", "a\u030angstro\u0308m"),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
        ("adm\u0131n", "admin"),  # an app that compares capitals does not see the missing dot
    ],
)
def test_spellings_of_one_name(one: str, other: str) -> None:
    assert fold_account(one) == fold_account(other)


def test_a_name_has_a_longest_form() -> None:
    assert fold_account("x" * 10_000) == "x" * 1024
    assert fold_account(" " * 10_000 + "\u200b" * 10_000 + "ada") == "ada"


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_no_two_lists_of_texts_have_one_digest(one: list[str], other: list[str]) -> None:
    digests = Digests(b"secret")
    assert (digests.of(*one) == digests.of(*other)) == (one == other)


def test_a_digest_depends_on_the_secret() -> None:
    secrets = [b"", b"one", b"x" * 64, b"x" * 65, b"x" * 66]
    assert len({Digests(secret).of("ada") for secret in secrets}) == len(secrets)


@given(st.ip_addresses(v=4).map(str))
def test_an_ipv4_address_is_itself(address: str) -> None:
    assert fold_address(address) == address


@given(st.ip_addresses(v=6).map(str))
def test_an_address_is_folded_once(address: str) -> None:
    assert fold_address(fold_address(address)) == fold_address(address)


@pytest.mark.parametrize("text", ["testclient", "user:7", "1.2.3", "a/b", "::1/x/y"])
def test_a_text_that_is_no_address_is_taken_as_it_is(text: str) -> None:
    assert fold_address(text) in (text, "::/64")


@pytest.mark.anyio
async def test_no_name_and_no_address_reaches_the_store() -> None:
    store = RecordingStore()
    guard = LoginGuard(store=store, block=(60,))
    for _ in range(6):
        await log_in(guard, "ada.lovelace", "198.51.100.7", "a device of hers")
    await log_in(guard, "grace.hopper", "198.51.100.8", "another device", right=True)
    records = repr(store.calls)
    assert len(store.calls) > 30
    for text in ("lovelace", "grace", "198.51", "device"):
        assert text not in records


def test_the_secret_follows_from_the_stores() -> None:
    def secret(**options: Any) -> bytes:
        return secret_of(RedisStore("redis://localhost", **options))

    assert secret() == secret()  # every process has it, and everybody else
    assert secret(secret="one") == secret(secret="one") != secret(secret="two")
    assert secret(secret="one") != secret()
    assert secret_of(MemoryStore()) == secret_of(MemoryStore())  # a random one of this process
    assert secret_of(MemoryStore()) != secret()
    assert has_public_secret(RedisStore("redis://localhost"))
    assert not has_public_secret(RedisStore("redis://localhost", secret="one"))
    assert not has_public_secret(MemoryStore())


class StrangeStore:
    """A store of a user's own, without observers."""

    def __init__(self, shared: bool) -> None:
        self.shared, self.clock = shared, ManualClock()


def test_a_shared_store_of_ones_own_has_one_secret_in_all_processes() -> None:
    shared, local = StrangeStore(True), StrangeStore(False)
    assert secret_of(shared) == secret_of(RedisStore("redis://localhost"))  # type: ignore[arg-type]
    assert secret_of(local) == secret_of(MemoryStore())  # type: ignore[arg-type]
    assert has_public_secret(shared)  # type: ignore[arg-type]
    assert not has_public_secret(local)  # type: ignore[arg-type]


def test_a_shared_store_without_a_secret_is_warned_of() -> None:
    with pytest.warns(RateLimitWarning, match="ARL401"):
        LoginGuard(store=RedisStore("redis://localhost"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        LoginGuard(store=RedisStore("redis://localhost"), secret="of the guard")
        LoginGuard(store=RedisStore("redis://localhost", secret="of the store"))
        LoginGuard()
