"""Durations, and texts of others on a terminal."""

from __future__ import annotations

import pytest

from asgi_ratelimit.cli.screen import duration
from asgi_ratelimit.shown import one_line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.0001, "0.001 s"),
        (0.35, "0.35 s"),
        (9.9991, "10 s"),
        (12.1, "13 s"),
        (59.5, "60 s"),
        (250, "4 min 10 s"),
        (3600, "1 h"),
        (3725, "1 h 2 min"),
        (90_000, "1 d 1 h"),
        (86_405, "1 d 5 s"),
    ],
)
def test_a_duration_is_rounded_up(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_no_text_can_command_a_terminal() -> None:
    assert one_line("a\x1b[2J\nb\x07\u202ec\ud800") == "a\ufffd[2J\ufffdb\ufffd\ufffdc\ufffd"
    assert one_line("Ünï 42 [red]") == "Ünï 42 [red]"
