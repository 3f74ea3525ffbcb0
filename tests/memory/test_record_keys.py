"""The keys of records in memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from asgi_ratelimit.memory.record_keys import record_key, stored_key


@given(st.text(), st.text(), st.text(), st.text())
def test_two_callers_or_resources_never_share_a_record(key: str, per: str, other: str, resource: str) -> None:
    same = (key, per) == (other, resource)
    assert (record_key("user", key, per) == record_key("user", other, resource)) is same
    assert (record_key("shared", key, per) == record_key("shared", other, resource)) is (per == resource)
    assert record_key("global", key, per) == record_key("global", other, resource)


@pytest.mark.parametrize(("key", "per"), [("k" * 257, ""), ("k" * 200, "p" * 57), ("", "p" * 257)])
def test_a_long_key_is_kept_as_a_digest_of_its_own(key: str, per: str) -> None:
    record = record_key("user", key, per)
    assert isinstance(record, bytes)
    assert len(record) <= 32
    assert record != record_key("user", key + "x", per)
    assert record != record_key("user", key + per[:1], per[1:]) or not per


@pytest.mark.parametrize("bad", [None, 5, b"user", ["user"], ("user", 1)])
def test_a_key_is_a_string(bad: object) -> None:
    with pytest.raises(TypeError, match="a key is a string such as"):
        stored_key(bad)  # type: ignore[arg-type]
