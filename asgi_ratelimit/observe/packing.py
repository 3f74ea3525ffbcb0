"""Snapshots as short texts: for a record in Redis of bounded size."""

from __future__ import annotations

import json
import zlib
from base64 import b64decode, b64encode
from dataclasses import replace
from typing import Final

from asgi_ratelimit.observe.counts import LimiterCounts, Period
from asgi_ratelimit.observe.merging import without_lightest
from asgi_ratelimit.observe.snapshot import Snapshot

__all__ = ["MOST_CHARACTERS", "pack", "unpack"]

MOST_CHARACTERS: Final = 65_536
_MOST_BYTES: Final = 1_500_000  # that a text may become
_STEPS: Final = ((100, 50), (50, 20), (20, 10), (5, 5), (1, 0))  # so many limiters, and so many keys of each


def pack(snapshot: Snapshot) -> str:
    """A text of at most `MOST_CHARACTERS`. The lightest limiters and keys are left out as far as that is needed."""
    for limiters, keys in _STEPS:
        text = _text(_shortened(snapshot, limiters, keys))
        if len(text) <= MOST_CHARACTERS:
            break
    return text


def unpack(text: str | bytes) -> Snapshot:
    """The snapshot in a text. Raises ValueError if there is none: other software wrote it."""
    if len(text) > MOST_CHARACTERS:
        raise ValueError(f"a snapshot has {MOST_CHARACTERS} characters at most, not {len(text)}")
    try:
        unpacking = zlib.decompressobj()
        written = unpacking.decompress(b64decode(text, validate=True), _MOST_BYTES)
        return Snapshot.from_dict(json.loads(written))
    except (zlib.error, RecursionError) as error:
        raise ValueError(f"this is no snapshot: {error}") from error


def _text(snapshot: Snapshot) -> str:
    written = json.dumps(snapshot.to_dict(), separators=(",", ":"))
    return b64encode(zlib.compress(written.encode("ascii"), 1)).decode("ascii")


def _shortened(snapshot: Snapshot, limiters: int, keys: int) -> Snapshot:
    kept = without_lightest(snapshot.limiters.values(), limiters, snapshot.time)
    return replace(snapshot, limiters={name: _with_keys(counts, keys) for name, counts in kept.items()})


def _with_keys(counts: LimiterCounts, most: int) -> LimiterCounts:
    left_out = [key.total + key.error for key in counts.keys[most:]]
    return replace(
        counts,
        keys=counts.keys[:most],
        key_floor=max([counts.key_floor, *left_out]),
        minutes=_without_zeros(counts.minutes),
        hours=_without_zeros(counts.hours),
        shadow_sample=counts.shadow_sample[: 2 * most],
    )


def _without_zeros(periods: tuple[Period, ...]) -> tuple[Period, ...]:
    """Merging puts them in again."""
    return tuple([period for period in periods if period.total])
