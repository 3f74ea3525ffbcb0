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

RunPage = Callable[..., dict[str, Any]]


@pytest.fixture
def run_page(clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> RunPage:
    """Runs the code of a page and returns its names. `store` makes what its `MemoryStore()` is."""

    def run_page(name: str, store: Callable[[], Store] | None = None) -> dict[str, Any]:
        (block,) = blocks(DOCS / "how-to" / f"{name}.md")
        with monkeypatch.context() as patch:
            patch.setattr(asgi_ratelimit, "MemoryStore", store or partial(MemoryStore, clock=clock))
            return run(block)

    return run_page
