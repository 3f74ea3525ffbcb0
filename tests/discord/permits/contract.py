"""The behaviour of permits in every store."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any, TypeVar

from asgi_ratelimit.clock import ManualClock
from asgi_ratelimit.discord.permits import permits_of
from asgi_ratelimit.discord.permits.bucket import AWAIT_RESPONSE, FIXED, LATE, SLIDING, CallReport, Verdict
from asgi_ratelimit.discord.permits.memory import EXPIRY_US, SECOND_US, Granted, Permit, Permits, Wait
from asgi_ratelimit.store import Store
from tests.discord.permits.replies import cause_of, permit_of, wait_of

__all__ = ["PermitContract"]

_S = 1_000_000  # microseconds

_COUNTED: tuple[Verdict, ...] = ("lost", "answered", "sublimited")

T = TypeVar("T")


async def _now(answer: T | Awaitable[T]) -> T:
    return await answer if isinstance(answer, Awaitable) else answer


class _Owner:
    """Takes permits in a row, each under a name of its own."""

    def __init__(self, store: Store, clock: ManualClock, name: str = "bot") -> None:
        self.permits: Permits = permits_of(store, name)
        self.clock = clock
        self._calls = 0

    async def take(
        self, route: str = "GET /a", major: str = "1", per_second: int = 50, **options: Any
    ) -> Granted | Wait:
        self._calls += 1
        return await _now(self.permits.take(f"permit{self._calls}", route, major, per_second, **options))

    async def permit(self, *place: Any, **options: Any) -> Permit:
        return permit_of(await self.take(*place, **options))

    async def cause(self, *place: Any, **options: Any) -> tuple[str, int]:
        """Why there is no permit, and for how long."""
        reply = await self.take(*place, **options)
        assert isinstance(reply, Wait), reply
        return reply.cause, reply.wait_us

    async def settle(self, permit: Permit, verdict: Verdict, *report: Any, **fields: Any) -> None:
        await _now(self.permits.settle(permit, CallReport(verdict, *report, **fields)))

    async def learn(self, remaining: int, reset_us: int = _S, *, bucket: str = "b", limit: int = 5) -> None:
        """One call with an immediate response."""
        await self.settle(await self.permit(), "answered", bucket, limit, remaining, reset_us)

    def pass_us(self, us: int) -> None:
        self.clock.advance(us / 1e6)


class PermitContract:
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
        assert await owner.cause() == ("answer", AWAIT_RESPONSE)
        await owner.permit("GET /b")
        await owner.permit("GET /a", "2")
        await owner.settle(first, "answered")  # without a word about the limit
        await owner.permit()
        await owner.permit()
        assert await owner.cause() == ("answer", AWAIT_RESPONSE)

    async def test_of_a_learned_bucket_as_many_go_at_once_as_remain(self) -> None:
        owner = self.owner()
        await owner.learn(3)
        reply = await owner.take()
        assert (reply.bucket, reply.limit, reply.remaining, reply.in_flight) == ("b", 5, 3, 1)
        assert permit_of(reply).bucket == "b"
        for _ in range(2):
            await owner.permit()
        assert await owner.cause() == ("answer", AWAIT_RESPONSE)

    async def test_a_fixed_window_is_full_again_when_it_ends_and_no_microsecond_earlier(self) -> None:
        owner = self.owner()
        for remaining in (4, 3, 2, 1, 0):
            await owner.learn(remaining)
        reply = await owner.take()
        assert (reply.kind, cause_of(reply), wait_of(reply), reply.full_us) == (FIXED, "bucket", _S + LATE, _S + LATE)
        owner.pass_us(_S + LATE - 1)
        assert await owner.cause() == ("bucket", 1)
        owner.pass_us(1)
        for _ in range(5):
            await owner.permit()
        assert await owner.cause() == ("answer", AWAIT_RESPONSE)

    async def test_a_sliding_window_lets_one_more_go_at_a_time(self) -> None:
        owner = self.owner()
        await owner.learn(2, _S, limit=3)
        await owner.learn(1, 2 * _S, limit=3)
        await owner.learn(0, 3 * _S, limit=3)
        reply = await owner.take()
        assert (reply.kind, reply.slot_us, cause_of(reply)) == (SLIDING, _S, "bucket")
        assert wait_of(reply) == 3 * _S + LATE - 2 * (_S - LATE)
        owner.pass_us(wait_of(reply))
        await owner.permit()
        assert await owner.cause() == ("bucket", _S + LATE)

    async def test_a_429_of_a_bucket_stops_the_bucket_and_the_route(self) -> None:
        owner = self.owner()
        await owner.settle(await owner.permit("GET /b"), "answered", "b", 5, 4, _S)
        await owner.learn(3)
        refused = await owner.permit()
        owner.pass_us(1_000)
        await owner.settle(refused, "limited", "b", 5, 0, 2 * _S, 2 * _S)
        assert await owner.cause() == ("route", 2 * _S + LATE)
        assert await owner.cause("GET /b") == ("bucket", 2 * _S + LATE)
        await owner.permit("GET /a", "2")
        owner.pass_us(2 * _S + LATE)
        await owner.permit("GET /b")

    async def test_a_429_of_one_kind_of_call_stops_that_route_and_resource_alone(self) -> None:
        owner = self.owner()
        await owner.settle(await owner.permit("GET /b"), "answered", "b", 5, 4, _S)
        await owner.learn(3)
        await owner.settle(await owner.permit(), "sublimited", "b", 5, 2, _S, 600 * _S)
        assert await owner.cause() == ("route", 600 * _S + LATE)
        await owner.permit("GET /b")
        await owner.permit("GET /a", "2")
        owner.pass_us(600 * _S + LATE)
        await owner.permit()

    async def test_so_it_does_where_all_resources_share_the_bucket(self) -> None:
        owner = self.owner()
        await owner.settle(await owner.permit(together=True), "answered", "b", 5, 4, _S)
        await owner.settle(await owner.permit(together=True), "sublimited", "b", 5, 2, _S, 600 * _S)
        assert await owner.cause(together=True) == ("route", 600 * _S + LATE)
        assert (await owner.take("GET /a", "2", together=True)).in_flight == 1
        assert (await owner.take("GET /a", "3", together=True)).in_flight == 2

    async def test_only_the_first_call_on_a_bucket_finds_it_untouched(self) -> None:
        owner = self.owner()
        first = await owner.permit()
        await owner.settle(first, "unsent")
        second = await owner.permit()
        await owner.settle(second, "answered", "b", 5, 4, _S)
        third = await owner.permit()
        assert [first.untouched, second.untouched, third.untouched] == [True, True, False]
        assert (await owner.permit(major="2")).untouched
        assert not (await owner.permit(major="3", spare=1)).untouched, "others use the token"

    async def test_a_call_that_may_have_been_counted_has_touched_it(self) -> None:
        for verdict in _COUNTED:
            owner = self.owner()
            await owner.settle(await owner.permit(), verdict)
            owner.pass_us(LATE)
            assert not (await owner.permit()).untouched, verdict

    async def test_a_429_of_another_bucket_leaves_the_learned_one_as_it_is(self) -> None:
        owner = self.owner()
        await owner.learn(4)
        await owner.settle(await owner.permit(), "limited", "other", 2, 0, _S, _S)
        reply = await owner.take()
        assert (reply.bucket, reply.limit, reply.remaining, cause_of(reply)) == ("b", 5, 4, "route")

    async def test_in_any_second_no_more_calls_are_out_or_answered_than_the_global_limit(self) -> None:
        owner = self.owner()
        early = await owner.permit(major="1", per_second=2)
        late = await owner.permit(major="2", per_second=2)
        assert await owner.cause(major="3", per_second=2) == ("global", AWAIT_RESPONSE)
        owner.pass_us(5 * _S)
        await owner.settle(early, "answered")
        assert await owner.cause(major="3", per_second=2) == ("global", SECOND_US)
        owner.pass_us(SECOND_US - 1)
        assert await owner.cause(major="3", per_second=2) == ("global", 1)
        owner.pass_us(1)
        await owner.permit(major="3", per_second=2)
        assert await owner.cause(major="4", per_second=2) == ("global", AWAIT_RESPONSE)
        await owner.settle(late, "unsent")
        await owner.permit(major="4", per_second=2)

    async def test_calls_that_the_global_limit_does_not_count_are_not_held_by_it(self) -> None:
        owner = self.owner()
        stopped = await owner.permit(major="1", per_second=1)
        for major in "234":
            await owner.permit(major=major, per_second=0)
        await owner.settle(stopped, "stopped", retry_us=3 * _S)
        await owner.permit(major="5", per_second=0)
        assert await owner.cause(major="6", per_second=1) == ("stopped", 3 * _S)
        owner.pass_us(3 * _S)
        await owner.permit(major="6", per_second=1)

    async def test_a_global_429_stops_exempt_calls_once_it_has_refused_one(self) -> None:
        owner = self.owner()
        first, second = await owner.permit(), await owner.permit(major="2", per_second=0)
        await owner.settle(first, "stopped", retry_us=2 * _S)
        assert await owner.cause(major="3") == ("stopped", 2 * _S)
        await owner.settle(await owner.permit(major="4", per_second=0), "answered")
        await owner.settle(second, "stopped", retry_us=3 * _S)
        for per_second in (0, 50):
            assert await owner.cause(major="5", per_second=per_second) == ("stopped", 3 * _S)
        owner.pass_us(3 * _S)
        await owner.permit(major="6", per_second=0)

    async def test_a_ban_stops_everything_of_its_owner(self) -> None:
        clock = ManualClock()
        store = self.make_store(clock)
        one, other = _Owner(store, clock, "one"), _Owner(store, clock, "other")
        await one.settle(await one.permit(), "banned", retry_us=60 * _S)
        assert await one.cause("GET /b", "2", per_second=0) == ("banned", 60 * _S)
        await other.permit()
        clock.advance(60)
        await one.permit("GET /b", "2")

    async def test_each_owner_has_permits_of_its_own_and_the_same_when_opened_twice(self) -> None:
        clock = ManualClock()
        store = self.make_store(clock)
        one, other, again = (_Owner(store, clock, name) for name in ("one", "other", "one"))
        permit = await one.permit(per_second=1)
        await other.permit(per_second=1)
        assert (await again.cause())[0] == "answer"
        await again.settle(permit, "unsent")
        await one.permit(per_second=1)

    async def test_a_permit_that_is_not_settled_expires(self) -> None:
        owner = self.owner()
        await owner.permit(per_second=1)
        owner.pass_us(EXPIRY_US - 1)
        assert (await owner.cause(per_second=1))[0] == "answer"
        assert (await owner.cause(major="2", per_second=1)) == ("global", 1)
        owner.pass_us(1)
        await owner.permit(per_second=1)

    async def test_an_unsent_call_returns_its_permit_and_a_lost_one_is_counted(self) -> None:
        owner = self.owner()
        await owner.learn(2)
        await owner.settle(await owner.permit(), "unsent")
        assert (await owner.take()).remaining == 2
        await owner.settle(await owner.permit(), "lost")
        assert (await owner.cause())[0] == "answer"

    async def test_permits_move_to_the_bucket_when_it_is_named_and_when_it_is_another(self) -> None:
        owner = self.owner()
        await owner.settle(await owner.permit(), "answered")
        first, second = await owner.permit(), await owner.permit()
        await owner.settle(first, "answered", "b", 5, 3, _S)
        reply = await owner.take()
        assert (reply.bucket, reply.in_flight) == ("b", 2)
        await owner.settle(second, "answered", "new", 3, 2, _S)
        reply = await owner.take()
        assert (reply.bucket, reply.limit, reply.in_flight) == ("new", 3, 2)

    async def test_a_permit_comes_back_also_when_another_resources_answer_has_named_the_bucket(self) -> None:
        owner = self.owner()
        first, other = await owner.permit(major="1"), await owner.permit(major="2")
        await owner.settle(first, "answered", "b", 5, 4, _S)
        await owner.settle(other, "answered", "b", 5, 4, _S)
        reply = await owner.take(major="2")
        assert (reply.bucket, reply.remaining, reply.in_flight) == ("b", 4, 1)

    async def test_a_bucket_moves_when_another_resources_response_renames_it(self) -> None:
        owner = self.owner()
        first, other = await owner.permit(major="1"), await owner.permit(major="2")
        await owner.settle(first, "answered", "b", 2, 1, _S)
        await owner.settle(other, "answered", "b", 2, 1, _S)
        await owner.permit(major="2")
        await owner.settle(await owner.permit(major="1"), "answered", "new", 2, 0, _S)
        reply = await owner.take(major="2")
        seen = (reply.bucket, reply.limit, reply.remaining, reply.in_flight)
        assert (cause_of(reply), *seen) == (
            "answer",
            "new",
            2,
            1,
            1,
        )

    async def test_a_route_that_gets_a_bucket_of_its_own_takes_nothing_more_from_those_that_stay(self) -> None:
        owner = self.owner()
        await owner.settle(await owner.permit("GET /b"), "answered", "b", 5, 4, _S)
        await owner.settle(await owner.permit("GET /a"), "answered", "b", 5, 3, _S)
        await owner.settle(await owner.permit("GET /a"), "answered", "own", 5, 4, _S)
        await owner.settle(await owner.permit("GET /b"), "answered", "b", 5, 2, _S)
        await owner.permit("GET /a")
        reply = await owner.take("GET /b")
        assert (reply.bucket, reply.remaining, reply.in_flight) == ("b", 2, 1)

    async def test_routes_that_turn_out_to_share_a_bucket_share_their_permits(self) -> None:
        owner = self.owner()
        first, second = await owner.permit(), await owner.permit("GET /b")
        await owner.settle(first, "answered", "b", 2, 1, _S)
        await owner.permit()
        await owner.settle(second, "answered", "b", 2, 0, _S)
        for route in ("GET /a", "GET /b"):
            reply = await owner.take(route)
            assert (cause_of(reply), reply.bucket, reply.remaining, reply.in_flight) == ("bucket", "b", 0, 1)

    async def test_an_old_answer_does_not_undo_a_newer_one(self) -> None:
        owner = self.owner()
        await owner.learn(4)
        old = await owner.permit()
        owner.pass_us(1_000)
        await owner.learn(0)
        await owner.settle(old, "answered", "b", 5, 3, _S)
        assert (await owner.cause())[0] == "bucket"

    async def test_an_unrecorded_permit_is_settled_without_harm(self) -> None:
        owner = self.owner()
        stranger = Permit("stranger", "GET /a", "1", 2, "b", 0)
        for verdict in ("unsent", "answered"):
            await owner.settle(stranger, verdict)
        await owner.permit(per_second=2)
        assert (await owner.cause("GET /b", per_second=2)) == ("global", SECOND_US)  # it was a call

    async def test_a_bucket_that_was_not_used_for_long_is_forgotten(self) -> None:
        owner = self.owner()
        await owner.learn(0)
        owner.pass_us(62 * _S)
        reply = await owner.take()
        assert (reply.bucket, reply.limit) == ("b", 0)
