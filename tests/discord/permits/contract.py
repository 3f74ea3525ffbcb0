"""The behaviour of every store's permits, for calls to somebody else's limits."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

from asgi_ratelimit.clock import ManualClock
from asgi_ratelimit.discord.permits import permits_of
from asgi_ratelimit.discord.permits.bucket import ANSWER, FIXED, LATE, SLIDING, Answer, Verdict
from asgi_ratelimit.discord.permits.memory import LEASE_US, SECOND_US, Ask, Lease, Leases, Permit
from asgi_ratelimit.store import Store

__all__ = ["LeaseContract"]

_S = 1_000_000  # microseconds

T = TypeVar("T")


async def _now(answer: T | Awaitable[T]) -> T:
    return await answer if isinstance(answer, Awaitable) else answer


class _Owner:
    """Asks for permits in a row, each under a name of its own."""

    def __init__(self, store: Store, clock: ManualClock, name: str = "bot") -> None:
        self.leases: Leases = permits_of(store, name)
        self.clock = clock
        self._asked = 0

    async def lease(self, route: str = "GET /a", major: str = "1", per_second: int = 50) -> Lease:
        self._asked += 1
        return await _now(self.leases.lease(Ask(f"permit{self._asked}", route, major, per_second)))

    async def permit(self, *place: Any, **options: Any) -> Permit:
        lease = await self.lease(*place, **options)
        assert lease.permit is not None, lease
        assert (lease.why, lease.wait_us) == ("", 0)
        return lease.permit

    async def why(self, *place: Any, **options: Any) -> tuple[str, int]:
        """Why there is no permit, and for how long."""
        lease = await self.lease(*place, **options)
        assert lease.permit is None, lease
        return lease.why, lease.wait_us

    async def settle(self, permit: Permit, verdict: Verdict, *answer: Any, **told: Any) -> None:
        await _now(self.leases.settle(permit, Answer(verdict, *answer, **told)))

    async def learn(self, remaining: int, reset_us: int = _S, *, bucket: str = "b", limit: int = 5) -> None:
        """One call, answered at once."""
        await self.settle(await self.permit(), "answered", bucket, limit, remaining, reset_us)

    def pass_us(self, us: int) -> None:
        self.clock.advance(us / 1e6)


class LeaseContract:
    """Subclassed for each kind of store."""

    def make_store(self, clock: ManualClock) -> Store:
        raise NotImplementedError

    def owner(self) -> _Owner:
        clock = ManualClock()
        return _Owner(self.make_store(clock), clock)

    async def test_while_a_limit_is_unknown_one_call_goes_at_a_time(self) -> None:
        owner = self.owner()
        first = await owner.permit()
        assert first.bucket == ""
        assert await owner.why() == ("answer", ANSWER)
        await owner.permit("GET /b")
        await owner.permit("GET /a", "2")
        await owner.settle(first, "answered")  # without a word about the limit
        await owner.permit()
        await owner.permit()
        assert await owner.why() == ("answer", ANSWER)

    async def test_of_a_known_bucket_as_many_go_at_once_as_remain(self) -> None:
        owner = self.owner()
        await owner.learn(3)
        lease = await owner.lease()
        assert (lease.bucket, lease.limit, lease.remaining, lease.in_flight) == ("b", 5, 3, 1)
        assert lease.permit is not None
        assert lease.permit.bucket == "b"
        for _ in range(2):
            await owner.permit()
        assert await owner.why() == ("answer", ANSWER)

    async def test_a_fixed_window_is_full_again_when_it_ends_and_no_microsecond_earlier(self) -> None:
        owner = self.owner()
        for remaining in (4, 3, 2, 1, 0):
            await owner.learn(remaining)
        lease = await owner.lease()
        assert (lease.kind, lease.why, lease.wait_us, lease.full_us) == (FIXED, "bucket", _S + LATE, _S + LATE)
        owner.pass_us(_S + LATE - 1)
        assert await owner.why() == ("bucket", 1)
        owner.pass_us(1)
        for _ in range(5):
            await owner.permit()
        assert await owner.why() == ("answer", ANSWER)

    async def test_a_sliding_window_lets_one_more_go_at_a_time(self) -> None:
        owner = self.owner()
        await owner.learn(2, _S, limit=3)
        await owner.learn(1, 2 * _S, limit=3)
        await owner.learn(0, 3 * _S, limit=3)
        lease = await owner.lease()
        assert (lease.kind, lease.slot_us, lease.why) == (SLIDING, _S, "bucket")
        assert lease.wait_us == 3 * _S + LATE - 2 * (_S - LATE)
        owner.pass_us(lease.wait_us)
        await owner.permit()
        assert await owner.why() == ("bucket", _S + LATE)

    async def test_a_429_of_a_bucket_stops_the_bucket_and_the_route(self) -> None:
        owner = self.owner()
        await owner.settle(await owner.permit("GET /b"), "answered", "b", 5, 4, _S)
        await owner.learn(3)
        refused = await owner.permit()
        owner.pass_us(1_000)
        await owner.settle(refused, "limited", "b", 5, 0, 2 * _S, 2 * _S)
        assert await owner.why() == ("route", 2 * _S + LATE)
        assert await owner.why("GET /b") == ("bucket", 2 * _S + LATE)
        await owner.permit("GET /a", "2")
        owner.pass_us(2 * _S + LATE)
        await owner.permit("GET /b")

    async def test_a_429_of_one_kind_of_call_stops_that_route_and_resource_alone(self) -> None:
        owner = self.owner()
        await owner.settle(await owner.permit("GET /b"), "answered", "b", 5, 4, _S)
        await owner.learn(3)
        await owner.settle(await owner.permit(), "sublimited", "b", 5, 2, _S, 600 * _S)
        assert await owner.why() == ("route", 600 * _S + LATE)
        await owner.permit("GET /b")
        await owner.permit("GET /a", "2")
        owner.pass_us(600 * _S + LATE)
        await owner.permit()

    async def test_a_429_of_another_bucket_leaves_the_known_one_known(self) -> None:
        owner = self.owner()
        await owner.learn(4)
        await owner.settle(await owner.permit(), "limited", "other", 2, 0, _S, _S)
        lease = await owner.lease()
        assert (lease.bucket, lease.limit, lease.remaining, lease.why) == ("b", 5, 4, "route")

    async def test_in_any_second_no_more_calls_are_out_or_answered_than_the_global_limit(self) -> None:
        owner = self.owner()
        early = await owner.permit(major="1", per_second=2)
        late = await owner.permit(major="2", per_second=2)
        assert await owner.why(major="3", per_second=2) == ("global", ANSWER)
        owner.pass_us(5 * _S)
        await owner.settle(early, "answered")
        assert await owner.why(major="3", per_second=2) == ("global", SECOND_US)
        owner.pass_us(SECOND_US - 1)
        assert await owner.why(major="3", per_second=2) == ("global", 1)
        owner.pass_us(1)
        await owner.permit(major="3", per_second=2)
        assert await owner.why(major="4", per_second=2) == ("global", ANSWER)
        await owner.settle(late, "unsent")
        await owner.permit(major="4", per_second=2)

    async def test_calls_that_the_global_limit_does_not_count_are_not_held_by_it(self) -> None:
        owner = self.owner()
        stopped = await owner.permit(major="1", per_second=1)
        for major in "234":
            await owner.permit(major=major, per_second=0)
        await owner.settle(stopped, "stopped", retry_us=3 * _S)
        await owner.permit(major="5", per_second=0)
        assert await owner.why(major="6", per_second=1) == ("stopped", 3 * _S)
        owner.pass_us(3 * _S)
        await owner.permit(major="6", per_second=1)

    async def test_a_ban_stops_everything_of_its_owner(self) -> None:
        clock = ManualClock()
        store = self.make_store(clock)
        one, other = _Owner(store, clock, "one"), _Owner(store, clock, "other")
        await one.settle(await one.permit(), "banned", retry_us=60 * _S)
        assert await one.why("GET /b", "2", per_second=0) == ("banned", 60 * _S)
        await other.permit()
        clock.advance(60)
        await one.permit("GET /b", "2")

    async def test_each_owner_has_permits_of_its_own_and_the_same_when_opened_twice(self) -> None:
        clock = ManualClock()
        store = self.make_store(clock)
        one, other, again = (_Owner(store, clock, name) for name in ("one", "other", "one"))
        permit = await one.permit(per_second=1)
        await other.permit(per_second=1)
        assert (await again.why())[0] == "answer"
        await again.settle(permit, "unsent")
        await one.permit(per_second=1)

    async def test_a_permit_that_nobody_settles_is_free_again_after_its_lease(self) -> None:
        owner = self.owner()
        await owner.permit(per_second=1)
        owner.pass_us(LEASE_US - 1)
        assert (await owner.why(per_second=1))[0] == "answer"
        assert (await owner.why(major="2", per_second=1)) == ("global", 1)
        owner.pass_us(1)
        await owner.permit(per_second=1)

    async def test_what_was_not_sent_is_given_back_and_what_was_lost_is_counted(self) -> None:
        owner = self.owner()
        await owner.learn(2)
        await owner.settle(await owner.permit(), "unsent")
        assert (await owner.lease()).remaining == 2
        await owner.settle(await owner.permit(), "lost")
        assert (await owner.why())[0] == "answer"

    async def test_permits_move_to_the_bucket_when_it_is_named_and_when_it_is_another(self) -> None:
        owner = self.owner()
        await owner.settle(await owner.permit(), "answered")
        first, second = await owner.permit(), await owner.permit()
        await owner.settle(first, "answered", "b", 5, 3, _S)
        lease = await owner.lease()
        assert (lease.bucket, lease.in_flight) == ("b", 2)
        await owner.settle(second, "answered", "new", 3, 2, _S)
        lease = await owner.lease()
        assert (lease.bucket, lease.limit, lease.in_flight) == ("new", 3, 2)

    async def test_a_permit_comes_back_also_when_another_resources_answer_has_named_the_bucket(self) -> None:
        owner = self.owner()
        first, other = await owner.permit(major="1"), await owner.permit(major="2")
        await owner.settle(first, "answered", "b", 5, 4, _S)
        await owner.settle(other, "answered", "b", 5, 4, _S)
        lease = await owner.lease(major="2")
        assert (lease.bucket, lease.remaining, lease.in_flight) == ("b", 4, 1)

    async def test_what_is_known_of_a_bucket_moves_with_it_when_another_resources_answer_renames_it(self) -> None:
        owner = self.owner()
        first, other = await owner.permit(major="1"), await owner.permit(major="2")
        await owner.settle(first, "answered", "b", 2, 1, _S)
        await owner.settle(other, "answered", "b", 2, 1, _S)
        await owner.permit(major="2")
        await owner.settle(await owner.permit(major="1"), "answered", "new", 2, 0, _S)
        lease = await owner.lease(major="2")
        assert (lease.permit, lease.bucket, lease.limit, lease.remaining, lease.in_flight) == (None, "new", 2, 1, 1)

    async def test_a_route_that_gets_a_bucket_of_its_own_takes_nothing_more_from_those_that_stay(self) -> None:
        owner = self.owner()
        await owner.settle(await owner.permit("GET /b"), "answered", "b", 5, 4, _S)
        await owner.settle(await owner.permit("GET /a"), "answered", "b", 5, 3, _S)
        await owner.settle(await owner.permit("GET /a"), "answered", "own", 5, 4, _S)
        await owner.settle(await owner.permit("GET /b"), "answered", "b", 5, 2, _S)
        await owner.permit("GET /a")
        lease = await owner.lease("GET /b")
        assert (lease.bucket, lease.remaining, lease.in_flight) == ("b", 2, 1)

    async def test_routes_that_turn_out_to_share_a_bucket_share_their_permits(self) -> None:
        owner = self.owner()
        first, second = await owner.permit(), await owner.permit("GET /b")
        await owner.settle(first, "answered", "b", 2, 1, _S)
        await owner.permit()
        await owner.settle(second, "answered", "b", 2, 0, _S)
        for route in ("GET /a", "GET /b"):
            lease = await owner.lease(route)
            assert (lease.permit, lease.bucket, lease.remaining, lease.in_flight) == (None, "b", 0, 1)

    async def test_an_old_answer_does_not_undo_a_newer_one(self) -> None:
        owner = self.owner()
        await owner.learn(4)
        old = await owner.permit()
        owner.pass_us(1_000)
        await owner.learn(0)
        await owner.settle(old, "answered", "b", 5, 3, _S)
        assert (await owner.why())[0] == "bucket"

    async def test_a_permit_of_which_nothing_is_known_is_settled_without_harm(self) -> None:
        owner = self.owner()
        stranger = Permit(Ask("stranger", "GET /a", "1", 2), "b", 0)
        for verdict in ("unsent", "answered"):
            await owner.settle(stranger, verdict)
        await owner.permit(per_second=2)
        assert (await owner.why("GET /b", per_second=2)) == ("global", SECOND_US)  # it was a call

    async def test_a_bucket_that_was_not_used_for_long_is_forgotten(self) -> None:
        owner = self.owner()
        await owner.learn(0)
        owner.pass_us(62 * _S)
        lease = await owner.lease()
        assert (lease.bucket, lease.limit) == ("b", 0)
