"""The app of a page, in a store that goes by the clock of the test."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

import asgi_ratelimit
from asgi_ratelimit import MemoryStore, Store
from asgi_ratelimit.testing import ManualClock
from tests.docs.markdown import DOCS, blocks
from tests.docs.running import run

NewStore = Callable[[], Store]
RunPage = Callable[..., dict[str, Any]]


@pytest.fixture
def new_store(clock: ManualClock) -> NewStore:
    """What the `MemoryStore()` of a page makes."""
    return partial(MemoryStore, clock=clock)


@pytest.fixture
def run_page(new_store: NewStore, monkeypatch: pytest.MonkeyPatch) -> RunPage:
    """Runs the code of a page and returns its names."""

    def run_page(name: str, store: NewStore = new_store) -> dict[str, Any]:
        (block,) = blocks(DOCS / "how-to" / f"{name}.md")
        with monkeypatch.context() as patch:
            patch.setattr(asgi_ratelimit, "MemoryStore", store)
            return run(block)

    return run_page
