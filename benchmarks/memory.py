"""How much memory 100 000 keys take: each candidate fills its store in a process of its own."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

from benchmarks.candidates import CANDIDATES, KINDS, Allowance, Drive, drive_of, keys_of

__all__ = ["memory"]

KEYS = 100_000


def memory(names: Iterable[str], repeats: int) -> dict[str, float | str]:
    """MB by which the resident process grows, the median of several; a string is why a candidate did not run."""
    return {name: _in_processes(name, repeats) for name in names}


def _in_processes(name: str, repeats: int) -> float | str:
    grown = []
    for _ in range(repeats):
        command = [sys.executable, "-m", "benchmarks.memory", name]
        process = subprocess.run(command, cwd=Path(__file__).parent.parent, capture_output=True, text=True, check=False)
        if process.returncode:
            return (process.stderr.strip().splitlines() or ["it ended without a word"])[-1]
        grown.append(float(process.stdout))
    return sorted(grown)[repeats // 2]


async def _measure(name: str) -> float:
    keys = keys_of(KEYS)
    await (await _build(name))(["warm-up"])  # imports, caches
    drive = await _build(name)
    gc.collect()
    before = _resident()
    await drive(keys)
    gc.collect()
    return (_resident() - before) / 1e6


async def _build(name: str) -> Drive:
    allowance = Allowance(100, 3600)
    return await CANDIDATES[name](allowance) if name in CANDIDATES else drive_of(KINDS[name](allowance))


def _resident() -> int:
    status = Path("/proc/self/smaps_rollup").read_text(encoding="ascii")
    return int(status.split("Rss:", 1)[1].split(maxsplit=1)[0]) * 1024


if __name__ == "__main__":
    print(asyncio.run(_measure(sys.argv[1])))
