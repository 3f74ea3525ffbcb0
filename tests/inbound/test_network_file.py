"""Networks in a file: what it may hold, and what happens when it changes while the app runs."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asgi_ratelimit import ClientIP, MemoryStore, NetworkFile, RateLimitMiddleware, by_ip
from asgi_ratelimit.inbound import network_file
from asgi_ratelimit.testing import ManualClock
from tests.support.asgi import hello, statuses

pytestmark = pytest.mark.anyio

IN, OUT = "10.1.2.3", "192.0.2.9"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "networks.txt"
    path.write_text("10.0.0.0/8\n")
    return path


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Callable[[], list[str]]:
    """The lines of the log so far: their levels, and their texts without the path."""
    caplog.set_level(logging.INFO, "asgi_ratelimit")
    return lambda: [f"{one.levelname} {one.getMessage().partition('.txt: ')[2]}" for one in caplog.records]


def replace(path: Path, text: str | bytes) -> None:
    """As a careful writer does."""
    new = path.with_suffix(".new")
    new.write_bytes(text.encode() if isinstance(text, str) else text)
    age(new)
    new.replace(path)


def age(path: Path) -> None:
    """Its last change is long ago."""
    os.utime(path, (1_600_000_000, 1_600_000_000 + time.monotonic_ns() % 1_000_000))


def test_what_a_line_may_have(path: Path) -> None:
    path.write_bytes(
        b"\xef\xbb\xbf# partners\r\n\r\n10.0.0.0/8   # the office\r\n192.0.2.7\n\n  2001:db8::/32\n"
        b"::ffff:198.51.100.0/120\n2001:DB8:1::9#one\n172.16.0.0/255.240.0.0"
    )
    networks = NetworkFile(path)
    assert len(networks) == 6
    inside = (IN, "192.0.2.7", "2001:db8::1", "198.51.100.200", "::ffff:198.51.100.1", "2001:db8:1::9", "172.31.0.1")
    for host in inside:
        assert host in networks, host
    outside = ("11.0.0.1", "192.0.2.8", "2001:db9::1", "198.51.101.1", "172.32.0.1", "nonsense", "", None)
    assert not [host for host in outside if host in networks]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("10.0.0.0/8\n10.0.0.300\n", "line 2 of .*txt is a network such as \"10.0.0.0/8\", not '10.0.0.300'"),
        ("\n\n10.0.0.1/8", "line 3 of .*host bits set"),
        ("0.0.0.0/0", "line 1 of .*every address is in it"),
        ("10.0.0.0/8 192.0.2.0/24", "line 1 of .*'10.0.0.0/8 192.0.2.0/24'"),
        (b"10.0.0.0/8\n\xff\xfe\n", "line 2 of .* is no UTF-8"),
    ],
)
def test_a_bad_line_at_the_start_is_named(path: Path, text: Any, says: str) -> None:
    replace(path, text)
    with pytest.raises(ValueError, match=says):
        NetworkFile(path)


def test_a_comment_ends_where_its_line_does(path: Path) -> None:
    """Not at any of the other characters at which Python splits texts."""
    replace(path, "# a\u2028192.0.2.0/24\x0b192.0.2.0/24\x1c192.0.2.0/24\r10.0.0.0/8\r\n")
    assert len(NetworkFile(path)) == 1


@pytest.mark.parametrize("bad", ["", None, 5, ["10.0.0.0/8"], b"", b"networks.txt", "a\0b"])
def test_a_path_is_a_path(bad: Any) -> None:
    with pytest.raises(ValueError, match=r'a text file with a network such as "10.0.0.0/8" on each line'):
        NetworkFile(bad)


def test_a_file_that_is_not_there_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.txt is not there as a text file with .*No such file"):
        NetworkFile(tmp_path / "none.txt")
    with pytest.raises(ValueError, match=r"is not there as a text file with .*Is a directory"):
        NetworkFile(tmp_path)


def test_nothing_that_never_ends_is_read(tmp_path: Path) -> None:
    become_a_pipe(tmp_path / "pipe")
    for endless in (tmp_path / "pipe", "/dev/zero"):
        with pytest.raises(ValueError, match=r"is not there as a text file with .*it is no plain file"):
            NetworkFile(endless)


def test_a_file_of_a_gigabyte_is_refused_unread(path: Path, clock: ManualClock, lines: Callable[[], list[str]]) -> None:
    networks = NetworkFile(path, clock=clock)
    os.truncate(path, 1 << 30)
    with pytest.raises(ValueError, match=r"has more than 32 MB; it is a text file with"):
        NetworkFile(path)
    age(path)
    clock.advance(1)
    assert IN in networks
    while not lines():
        clock.advance(1)
        assert IN in networks
    assert "more than 32 MB" in lines()[0]


def test_a_change_counts_once_the_file_is_looked_at_again(
    path: Path, clock: ManualClock, lines: Callable[[], list[str]]
) -> None:
    networks = NetworkFile(path, clock=clock)
    replace(path, "192.0.2.0/24")
    assert IN in networks  # it is not looked at with each request
    clock.advance(0.499)
    assert IN in networks
    clock.advance(0.001)
    assert (IN in networks, OUT in networks) == (False, True)
    assert lines() == ["INFO 1 networks from now on"]


def test_a_file_that_is_being_written_is_left_until_it_rests(path: Path, clock: ManualClock) -> None:
    networks = NetworkFile(path, clock=clock)
    text = ""
    for number in range(10):
        text += f"192.0.2.{number}\n"
        path.write_text(text)
        now = clock.wall()
        os.utime(path, (now, now))
        clock.advance(0.3)
        assert IN in networks
    clock.advance(0.5)
    assert (IN in networks, OUT in networks, len(networks)) == (False, True, 10)


def test_a_file_from_the_future_rests_as_well(path: Path, clock: ManualClock) -> None:
    """The clock of a network drive may be ahead."""
    networks = NetworkFile(path, clock=clock)
    replace(path, "192.0.2.0/24")
    os.utime(path, (clock.wall() + 1e6, clock.wall() + 1e6))
    clock.advance(0.5)
    assert OUT not in networks
    clock.advance(0.5)
    assert OUT in networks


def become_a_pipe(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda path: path.unlink(), "No such file or directory"),
        (lambda path: replace(path, ""), "it is empty. If no network is meant, write a line with a # alone"),
        (lambda path: replace(path, "192.0.2.0/24\n192.0."), "line 2 of .*not '192.0.'"),
        (lambda path: replace(path, b"\x00\xff\x00"), "line 1 of .*no UTF-8"),
        (lambda path: (path.unlink(), path.mkdir()), "it is no plain file"),
        (become_a_pipe, "it is no plain file"),
    ],
    ids=["gone", "empty", "half", "binary", "a folder", "a pipe"],
)
def test_the_last_good_networks_stay_and_one_line_says_so(
    path: Path,
    clock: ManualClock,
    lines: Callable[[], list[str]],
    spoil: Callable[[Path], object],
    says: str,
) -> None:
    networks = NetworkFile(path, clock=clock)
    spoil(path)
    for _ in range(20):
        clock.advance(1)
        assert (IN in networks, OUT in networks) == (True, False)
    (line,) = lines()
    assert line.startswith("WARNING ")
    assert line.endswith(". Its last 1 networks still count")
    assert re.search(says, line)
    if path.is_dir():
        path.rmdir()
    replace(path, "192.0.2.0/24")
    clock.advance(1)
    assert OUT in networks
    assert lines()[1:] == ["INFO 1 networks from now on"]


def test_a_file_that_is_gone_twice_is_said_twice(
    path: Path, clock: ManualClock, lines: Callable[[], list[str]]
) -> None:
    networks = NetworkFile(path, clock=clock)
    for _ in range(2):
        path.parent.rename(path.parent.with_suffix(".old"))  # as a drive that comes and goes
        clock.advance(1)
        assert IN in networks
        path.parent.with_suffix(".old").rename(path.parent)
        clock.advance(1)
        assert IN in networks
    assert [line.partition(" ")[0] for line in lines()] == ["WARNING", "INFO"] * 2


def test_a_bad_file_is_read_once(path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    networks, read = NetworkFile(path, clock=clock), network_file._read
    times: list[str] = []

    def counting(path: str) -> Any:
        times.append(path)
        return read(path)

    monkeypatch.setattr(network_file, "_read", counting)
    replace(path, "nonsense")
    for _ in range(20):
        clock.advance(1)
        assert IN in networks
    assert len(times) == 1


def test_a_list_that_is_empty_on_purpose(path: Path, clock: ManualClock) -> None:
    networks = NetworkFile(path, clock=clock)
    replace(path, "# none at present\n")
    clock.advance(1)
    assert IN not in networks
    assert len(networks) == 0
    assert networks


def test_an_empty_file_is_no_mistake_at_the_start(path: Path, clock: ManualClock) -> None:
    path.write_text("")
    networks = NetworkFile(path, clock=clock)
    assert IN not in networks
    replace(path, "10.0.0.0/8")
    clock.advance(1)
    assert IN in networks


def test_links_that_are_swapped_are_followed(tmp_path: Path, clock: ManualClock) -> None:
    """As Kubernetes does it with a ConfigMap: the file is a link into a folder, which is a link itself."""
    for name, text in (("v1", "10.0.0.0/8"), ("v2", "192.0.2.0/24")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "networks.txt").write_text(text)
        age(tmp_path / name / "networks.txt")
    (tmp_path / "..data").symlink_to("v1")
    (tmp_path / "networks.txt").symlink_to("..data/networks.txt")
    networks = NetworkFile(tmp_path / "networks.txt", clock=clock)
    assert IN in networks
    (tmp_path / "new").symlink_to("v2")
    (tmp_path / "new").replace(tmp_path / "..data")
    clock.advance(1)
    assert (IN in networks, OUT in networks) == (False, True)


def test_a_folder_that_is_left_changes_nothing(path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    networks = NetworkFile("networks.txt", clock=clock)
    monkeypatch.chdir("/")
    replace(path, "192.0.2.0/24")
    clock.advance(1)
    assert OUT in networks


def test_a_large_file_is_read_beside_the_requests(path: Path, clock: ManualClock) -> None:
    networks = NetworkFile(path, clock=clock)
    replace(path, "".join(f"192.{a}.{b}.0/24\n" for a in range(20) for b in range(256)))
    clock.advance(1)
    deadline = time.monotonic() + 10
    while OUT not in networks:
        assert time.monotonic() < deadline
        clock.advance(1)
    assert len(networks) == 20 * 256
    assert IN not in networks


async def test_a_file_exempts_clients_as_it_changes(path: Path, store: MemoryStore, clock: ManualClock) -> None:
    client_ip = ClientIP(trusted_proxies=["10.0.0.0/8"])
    partners = NetworkFile(path, clock=clock)
    replace(path, "203.0.113.0/24")
    app = RateLimitMiddleware(
        hello, limit="1/hour", key=client_ip, store=store, exempt=client_ip.within(partners, "198.51.100.0/24")
    )
    assert await statuses(app, 2) == [200, 429]
    assert await statuses(app, 2, client=("198.51.100.9", 1)) == [200, 200]
    clock.advance(1)
    assert await statuses(app, 3) == [200] * 3
    behind: dict[str, Any] = {"client": ("10.0.0.1", 1), "headers": [("x-forwarded-for", "203.0.113.99")]}
    assert await statuses(app, 3, **behind) == [200] * 3
    path.unlink()  # noqa: ASYNC240
    clock.advance(1)
    assert await statuses(app, 3) == [200] * 3


async def test_a_file_as_a_list_of_clients_that_are_refused(path: Path, store: MemoryStore, clock: ManualClock) -> None:
    banned = by_ip.within(NetworkFile(path, clock=clock))
    app = RateLimitMiddleware(hello, limit=lambda conn: 0 if banned(conn) else "9/hour", store=store)
    assert await statuses(app, 2, client=(IN, 1)) == [429, 429]
    assert await statuses(app, 2) == [200, 200]


async def test_only_the_clients_of_a_file_are_limited(path: Path, store: MemoryStore, clock: ManualClock) -> None:
    app = RateLimitMiddleware(hello, limit="1/hour", store=store, only=by_ip.within(NetworkFile(path, clock=clock)))
    assert await statuses(app, 2, client=(IN, 1)) == [200, 429]
    assert await statuses(app, 3) == [200] * 3
