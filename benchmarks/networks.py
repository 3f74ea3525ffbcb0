"""A file of 100,000 networks: how long a look-up takes, and how long a change holds up the event loop.

Run `python -m benchmarks.networks`. Three quarters of the networks are IPv4 and one quarter is IPv6.
"""

from __future__ import annotations

import asyncio
import random
from ipaddress import IPv6Address
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from asgi_ratelimit import NetworkFile

NETWORKS, LOOK_UPS = 100_000, 200_000
LENGTHS_4, LENGTHS_6 = (12, 16, 20, 22, 23, 24, 25, 26, 28, 30, 32), (29, 32, 40, 48, 56, 64, 128)
ADDED = "203.0.113.7"


def network(number: int) -> str:
    bits, lengths = (128, LENGTHS_6) if number % 4 == 0 else (32, LENGTHS_4)
    length = random.choice(lengths)
    first = random.getrandbits(bits) >> (bits - length) << (bits - length)
    if bits == 128:
        return f"{IPv6Address(first)}/{length}"
    return f"{'.'.join(str(part) for part in first.to_bytes(4, 'big'))}/{length}"


def write(path: Path) -> None:
    new = path.with_suffix(".new")
    new.write_text("\n".join(map(network, range(NETWORKS))))
    new.replace(path)


def time_look_ups(networks: NetworkFile, host: str) -> float:
    """Microseconds for each."""
    started = perf_counter()
    for _ in range(LOOK_UPS):
        host in networks  # noqa: B015
    return (perf_counter() - started) / LOOK_UPS * 1e6


async def longest_lag(networks: NetworkFile, seconds: float) -> tuple[float, int]:
    """The longest that the loop was held up, in milliseconds, while the file is looked at all the time."""
    lag, ends, pause = 0.0, perf_counter() + seconds, 0.0005
    while (started := perf_counter()) < ends:
        await asyncio.sleep(pause)
        ADDED in networks  # noqa: B015
        lag = max(lag, perf_counter() - started - pause)
    return lag * 1e3, len(networks)


async def main() -> None:
    random.seed(1)
    with TemporaryDirectory() as folder:
        path = Path(folder, "networks.txt")
        write(path)
        started = perf_counter()
        networks = NetworkFile(path)
        print(f"read: {perf_counter() - started:.2f} s for {len(networks)} different networks")
        for host in ("198.18.0.1", "2001:db8::1"):
            print(f"look-up of {host}: {time_look_ups(networks, host):.2f} µs")
        before, _ = await longest_lag(networks, 2)
        write(path)
        during, _ = await longest_lag(networks, 3)
        print(f"longest lag of the loop: {before:.1f} ms, and {during:.1f} ms while a change is read")


if __name__ == "__main__":
    asyncio.run(main())
