"""The event loop behind it, which all threads share."""

from __future__ import annotations

import asyncio
import gc
import secrets
import threading
import time
import weakref
from typing import Any

import pytest

from asgi_ratelimit import MemoryStore, RateLimited, StoreUnavailable
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.store import Store
from asgi_ratelimit.sync import SyncLimiter, loop_thread
from asgi_ratelimit.testing import ManualClock
from tests.support.servers import Server, wait_until
from tests.support.threads import PATIENCE, PromisingStore, joined, started
from tests.sync.conftest import MakeStore


def test_what_a_memory_store_can_answer_at_once_needs_no_thread(
    monkeypatch: pytest.MonkeyPatch, clock: ManualClock
) -> None:
    monkeypatch.setattr(loop_thread, "_current", loop_thread.LoopThread())
    limiter = SyncLimiter("5/h", store=MemoryStore(clock=clock))
    charged = limiter.try_acquire("a")
    limiter.acquire("a", timeout=0)
    limiter.refund(charged)
    limiter.peek("a")
    limiter.reset("a")
    limiter.block("a", 60)
    assert loop_thread._current._thread is None


def test_all_limiters_share_one_thread(make_store: MakeStore, clock: ManualClock) -> None:
    def loops() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "asgi_ratelimit.sync"]

    for name in ("one", "two", "three"):
        limiter = SyncLimiter("1/h", store=make_store(clock), name=name)
        limiter.acquire("a")
        with pytest.raises(RateLimited):
            limiter.acquire("a", timeout=0)
    assert len(loops()) == 1
    assert loops()[0].daemon


def test_a_call_from_its_own_loop_is_an_error_and_no_deadlock(clock: ManualClock) -> None:
    store = PromisingStore(clock)
    limiter = SyncLimiter("5/h", store=store)
    store.before = lambda: limiter.peek("a")
    with pytest.raises(RuntimeError, match="was called in the event loop behind it"):
        started(limiter.try_acquire, "a").result(PATIENCE)
    store.before = lambda: limiter.acquire("a")
    with pytest.raises(RuntimeError, match="was called in the event loop behind it"):
        started(limiter.try_acquire, "a").result(PATIENCE)
    wait_until(lambda: not loop_thread._current.queues, "nobody stands in line")


def test_a_coroutine_of_another_loop_may_call_it_though_it_holds_up_that_loop(any_store: Store) -> None:
    limiter = SyncLimiter("5/h", store=any_store)

    async def call() -> int:
        return limiter.acquire("a").remaining + limiter.try_acquire("a").remaining

    assert asyncio.run(call()) == 7


def test_a_refusal_says_where_it_was_asked_for_and_leaves_nothing_to_collect(any_store: Store) -> None:
    limiter = SyncLimiter("1/h", store=any_store)
    limiter.acquire("a")

    class Local:
        pass

    def ask() -> tuple[list[str], weakref.ref[Local]]:
        local = Local()
        try:
            limiter.acquire("a", timeout=1)
        except RateLimited as refused:
            frames, trace = [], refused.__traceback__
            while trace is not None:
                frames.append(trace.tb_frame.f_code.co_name)
                trace = trace.tb_next
        return frames, weakref.ref(local)

    gc.collect()
    gc.disable()
    try:
        frames, local = ask()
        wait_until(lambda: local() is None, "the caller's frame is gone", seconds=2)
    finally:
        gc.enable()
    assert frames[:2] == ["ask", "acquire"]
    assert frames[-1] == "_refuse_if_late"


def test_a_store_that_nobody_uses_any_more_is_closed(clock: ManualClock) -> None:
    store = PromisingStore(clock)
    one, two = SyncLimiter("5/h", store=store), SyncLimiter("5/s", store=store)
    one.try_acquire("a")
    del one
    assert two.try_acquire("a").allowed
    assert store.closed == 0
    del two
    wait_until(lambda: store.closed == 1, "the store is closed")
    assert SyncLimiter("5/h", store=store).peek("a").remaining == 4


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_nobody_waits_for_ever_for_a_loop_that_was_ended(clock: ManualClock) -> None:
    store = PromisingStore(clock)
    limiter = SyncLimiter("1/h", store=store)
    limiter.acquire("a")
    waiting = joined(limiter, "a")
    thread = loop_thread._current._thread
    assert thread is not None

    def leave() -> None:
        raise SystemExit

    store.before = leave
    with pytest.raises(SystemExit):
        started(limiter.try_acquire, "b").result(PATIENCE)
    with pytest.raises(StoreUnavailable, match="was stopped"):
        waiting.result(PATIENCE)
    thread.join(PATIENCE)
    store.before = lambda: None
    assert started(limiter.try_acquire, "b").result(PATIENCE).allowed


def test_a_memory_store_that_waits_is_told_apart(clock: ManualClock) -> None:
    class Waiting(MemoryStore):
        def open(self, *args: Any) -> Any:
            return PromisingStore(clock).open(*args)

    with pytest.raises(RuntimeError, match="a MemoryStore answers at once"):
        SyncLimiter("5/h", store=Waiting()).try_acquire("a")


def test_threads_of_one_loop_are_answered_together(server: Server) -> None:
    """Through Redis: many threads' checks travel in far fewer calls."""
    limiter = SyncLimiter("100000/h", store=RedisStore(server.url, prefix=secrets.token_hex(8), timeout=5))
    limiter.try_acquire("a")

    def calls() -> int:
        stats = server.command("INFO", "commandstats")
        return int(stats["cmdstat_evalsha"]["calls"])

    before = calls()

    def acquire_many(number: int) -> None:
        for _ in range(20):
            limiter.try_acquire(str(number))

    began = time.monotonic()
    for each in [started(acquire_many, number) for number in range(64)]:
        each.result(PATIENCE)
    assert time.monotonic() - began < PATIENCE
    assert calls() - before < 64 * 20 / 2
