"""Scripts in processes of their own: how they end, and how long that takes."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
import threading
import time

__all__ = ["LATE", "Program", "run"]

PATIENCE = 30.0
LATE = 3.0  # seconds after which a program has not ended when it was told to: a second, and a busy machine's lateness


class Program:
    """A script that runs. It prints "told" when it is about to end, or wants to be told to."""

    def __init__(self, source: str, *args: str, beginning: str = "") -> None:
        command = [sys.executable, "-W", "error", "-c", beginning + textwrap.dedent(source), *args]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def tell(self, number: signal.Signals) -> None:
        """Send a signal once it says that it is ready."""
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "told\n", self._process.communicate(timeout=PATIENCE)
        self._process.send_signal(number)

    def end(self) -> tuple[int, str, str, float]:
        """Its exit code, what it has printed after "told", and to stderr, and how long the end has taken."""
        assert self._process.stdout is not None
        watch = threading.Timer(4 * PATIENCE, self._process.kill)  # one that hangs says nothing
        watch.start()
        try:
            line = self._process.stdout.readline()
            started = time.monotonic()
            out, err = self._process.communicate(timeout=PATIENCE)
        finally:
            watch.cancel()
            self._process.kill()
        return self._process.returncode, out if line == "told\n" else line + out, err, time.monotonic() - started


def run(source: str, *args: str, beginning: str = "", complaint: str = "") -> None:
    """Run a script that ends as soon as it is told to, and says nothing but this."""
    code, out, err, took = Program(source, *args, beginning=beginning).end()
    assert (code, out, err) == (0, "", complaint), (code, out, err)
    assert took < LATE
