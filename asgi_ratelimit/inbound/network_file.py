"""NetworkFile: networks in a text file, which may change while the app runs."""

from __future__ import annotations

import io
import logging
import os
import threading
from errno import EINVAL
from stat import S_ISREG
from typing import Final, NamedTuple

from asgi_ratelimit.clock import Clock, SystemClock
from asgi_ratelimit.inbound.network_set import NetworkSet, parse_network
from asgi_ratelimit.shown import shown

__all__ = ["NetworkFile"]

logger = logging.getLogger("asgi_ratelimit")

_LOOK_US: Final = 500_000  # from one look at the file to the next
_SETTLED_US: Final = 500_000  # a file that was written to more recently may be half of one
_SMALL: Final = 16_384  # bytes, which are read in 3 ms
_LARGEST: Final = 1 << 25  # bytes: two million networks
_NO_FILE: Final = "it is no plain file"
_NO_WAIT: Final = getattr(os, "O_NONBLOCK", 0)  # a pipe would wait for its writer
_EXAMPLE: Final = 'a text file with a network such as "10.0.0.0/8" on each line'


class _Version(NamedTuple):
    """The file that was there at some moment. A link is followed."""

    device: int
    inode: int
    size: int
    modified_ns: int
    changed_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> _Version:
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


class NetworkFile:
    """Networks in a text file: `ClientIP(...).within(NetworkFile("partners.txt"))`.

    path: of the file. Each line has a network or an address, IPv4 or IPv6. `#` begins a comment
    clock: for tests, instead of the system's clock

    The file is looked at twice a second at most, when it is used, and read anew once it has changed and half a second
    has passed without another change. A file above 16 kB is read by a thread, and until then its last version counts.
    So it does if the file is gone, is empty or has a line that is no network: a line in the log says so, once.
    Raises ValueError if the file cannot be read at first.
    """

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock | None = None) -> None:
        text = os.fspath(path) if isinstance(path, (str, os.PathLike)) else ""
        if not isinstance(text, str) or not text or "\0" in text:
            raise ValueError(f"a NetworkFile is the path of {_EXAMPLE}, not {shown(path)}")
        self._path = os.path.abspath(text)  # the folder may be left
        self._clock: Clock = SystemClock() if clock is None else clock
        self._next_look_us = self._clock.now_us() + _LOOK_US
        self._reader: threading.Thread | None = None
        self._complaint = ""
        try:
            version, self._networks = _read(self._path)
        except OSError as error:
            raise ValueError(f"{self._path} is not there as {_EXAMPLE}: {error.strerror}") from None
        self._version: _Version | None = version  # of which the content is known
        self._seen = version, 0

    def __repr__(self) -> str:
        return f"NetworkFile({self._path!r})"

    def __len__(self) -> int:
        """The number of networks, as they count now."""
        return len(self._networks)

    def __bool__(self) -> bool:
        """True, also of an empty one."""
        return True

    def __contains__(self, host: object) -> bool:
        """Whether a host is an address in one of the networks."""
        if self._clock.now_us() >= self._next_look_us:
            self._look()
        return isinstance(host, str) and host in self._networks

    def _look(self) -> None:
        """Read the file if it has changed."""
        now_us = self._clock.now_us()
        self._next_look_us = now_us + _LOOK_US
        if self._reader is not None and self._reader.is_alive():
            return
        try:
            status = os.stat(self._path)
        except OSError as error:
            self._version = None  # it is read once it is back
            self._keep(error.strerror)
            return
        if not S_ISREG(status.st_mode):
            self._keep(_NO_FILE)
            return
        version = _Version.of(status)
        if version == self._version or not self._is_settled(version, now_us):
            return
        if version.size <= _SMALL:
            self._renew()
        else:
            self._reader = threading.Thread(target=self._renew, name="NetworkFile", daemon=True)
            self._reader.start()

    def _is_settled(self, version: _Version, now_us: int) -> bool:
        """Whether nothing has written to the file for a moment, by its own time or by ours."""
        if version != self._seen[0]:
            self._seen = version, now_us
        age_us = round(self._clock.wall() * 1e6) - version.modified_ns // 1000
        return age_us >= _SETTLED_US or now_us - self._seen[1] >= _SETTLED_US

    def _renew(self) -> None:
        try:
            version, networks = _read(self._path)
        except OSError as error:
            self._keep(error.strerror)
            return
        except ValueError as error:
            self._version = self._seen[0]  # it is not read again before it changes
            self._keep(str(error))
            return
        if version != self._seen[0]:  # it has changed again: the next look goes on from that
            return
        self._version = version
        if not version.size and len(self._networks):
            self._keep("it is empty. If no network is meant, write a line with a # alone")
            return
        self._networks, self._complaint = networks, ""
        logger.info("%s: %d networks from now on", self._path, len(networks))

    def _keep(self, cause: str | None) -> None:
        """Go on with the last version, and say so once."""
        cause = cause or "it cannot be read"
        if cause != self._complaint:
            self._complaint = cause
            logger.warning("%s: %s. Its last %d networks still count", self._path, cause, len(self._networks))


def _read(path: str) -> tuple[_Version, NetworkSet]:
    """The file as it is. Raises ValueError that names the first line which is no network."""
    version, raw = _content(path)
    if len(raw) > _LARGEST:
        raise ValueError(f"{path} has more than {_LARGEST >> 20} MB; it is {_EXAMPLE}")
    try:
        lines = io.StringIO(raw.decode("utf-8-sig"), newline=None)  # a comment ends where an editor says so
    except UnicodeDecodeError as error:
        number = raw.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {number} of {path} is no UTF-8; it is {_EXAMPLE}") from None
    texts = ((number, line.partition("#")[0].strip()) for number, line in enumerate(lines, 1))
    return version, NetworkSet(parse_network(text, f"line {number} of {path}") for number, text in texts if text)


def _content(path: str) -> tuple[_Version, bytes]:
    """What is in the file, up to a byte more than it may have. Raises OSError if it is no plain file."""
    with open(path, "rb", opener=_open_at_once) as file:
        if not S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(EINVAL, _NO_FILE)
        raw = file.read(_LARGEST + 1)
        return _Version.of(os.fstat(file.fileno())), raw


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | _NO_WAIT)
