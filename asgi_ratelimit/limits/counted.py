"""What the limits have in common that count in a window with an end: FixedWindow and Quota."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from asgi_ratelimit.limits.base import Limit, Measure

__all__ = ["Counted", "Use"]

# The end of the window in µs, the cost used in it, the part of that which is owed to the next window if it does not
# fit into this one, and what this window has in addition to the count.
Use = tuple[int, int, int, int]


class Counted(Limit):
    """The arithmetic of a count in a window. A subclass knows where its windows end."""

    def present(self, state: Use | None, now_us: int) -> Use | None:
        """The use of the present window; None: nothing is used, or no window is open."""
        raise NotImplementedError

    def fresh(self, now_us: int) -> Use:
        """A present window of which nothing is used."""
        raise NotImplementedError

    def following_end(self, end: int, now_us: int) -> int:
        """When the window ends that follows the present one, which has this end."""
        raise NotImplementedError

    def owed(self, state: Use) -> int:
        """The use at the start of the next window, at most the capacity."""
        _, used, debt, extra = state
        return min(debt, self.capacity, max(0, used - self.room(extra)))

    def room(self, extra: int) -> int:
        """What a window holds. A limit that was lowered, or set to zero, gives no more in addition than it holds."""
        return self.capacity + min(extra, self.capacity)

    def take(self, state: Use | None, now_us: int, cost: int) -> Use | None:
        end, used, debt, extra = self.present(state, now_us) or self.fresh(now_us)
        return (end, used + cost, debt, extra) if used + cost <= self.room(extra) else None

    def give_back(self, state: Use | None, now_us: int, cost: int, charged: Use, charged_at: int) -> Use | None:
        present = self.present(state, now_us)
        if present is None or present[0] != charged[0]:  # that window is over
            return present
        end, used, debt, extra = present
        used = max(0, used - cost)
        debt = min(debt, max(0, used - self.room(extra)))
        return (end, used, debt, extra) if used or self.keeps_unused else None

    def owe(self, state: Use | None, now_us: int, cost: int) -> tuple[Use | None, bool]:
        end, used, debt, extra = self.present(state, now_us) or self.fresh(now_us)
        room = self.room(extra)
        after = min(used + cost, max(used, room + self.capacity))
        debt += max(0, after - max(used, room))
        return (end, after, debt, extra) if after or self.keeps_unused else None, after < used + cost

    @property
    def keeps_unused(self) -> bool:
        """Whether a window of which nothing is used differs from none."""
        return False

    def cut(self, state: Use | None, now_us: int) -> Use | None:
        present = self.present(state, now_us) if state and self.capacity else None
        return present if present is not None and state is not None and present[0] < state[0] else state

    def measure(self, state: Use | None, now_us: int, cost: int) -> Measure:
        if not self.capacity:
            return self._never
        present = self.present(state, now_us)
        if present is None:
            return self.capacity, 0, 0
        end, used, _, extra = present
        room, owed = self.room(extra), self.owed(present)
        full_us = (self.following_end(end, now_us) if owed else end) - now_us if used else 0
        if used + cost <= room:
            return room - used, full_us, 0
        free_at = end if owed + cost <= self.capacity else self.following_end(end, now_us)
        return max(0, room - used), full_us, free_at - now_us

    def encode_charge(self, charged: Use, charged_at: int) -> Sequence[int]:
        return charged[:1]

    def decode(self, reply: Sequence[Any], place: int) -> tuple[Use | None, int]:
        end, used, debt, extra = reply[place : place + 4]
        if not type(end) is type(used) is type(debt) is type(extra) is int:
            raise TypeError("a reply has a state that is no number")
        return (end, used, debt, extra) if end else None, place + 4
