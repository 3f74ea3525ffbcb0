"""The name of an account, an address or a device in the store: a digest of its folded name."""

from __future__ import annotations

import re
import unicodedata
from hashlib import blake2b
from typing import Final

from asgi_ratelimit.events import Event, Observers
from asgi_ratelimit.inbound.addresses import address_bytes, customer
from asgi_ratelimit.store import Store

__all__ = ["Digests", "fold_account", "fold_address", "has_public_secret", "secret_of"]

_LONGEST: Final = 1024  # characters of a name that count
_DIGEST: Final = 16  # bytes
_IPV6_PREFIX: Final = 64  # one customer's (RFC 6177)
_SECRET_PARTS: Final = 8  # of a secret that is derived from a store's, 64 bits each
_INVISIBLE = re.compile("[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f\xad\u034f\u061c\u180b-\u180f\u200b-\u200f\u202a-\u202e"
                        "\u2060-\u206f\ufe00-\ufe0f\ufeff\U000e0000-\U000e0fff]")  # fmt: skip


def fold_account(name: str) -> str:
    """One text for all spellings of an account's name: case, spaces and Unicode forms do not count.

    Invisible characters are left out. Of an e-mail address, dots and what follows a plus stay as written.
    """
    visible = _spaced(_INVISIBLE.sub("", name))[:_LONGEST]
    # Compatibility caseless matching, Unicode 3.13 D146, composed at the end. Some databases compare capitals, and the
    # dotless i has that of the other: so capitals first.
    capitals = unicodedata.normalize("NFD", visible).upper()
    folded = unicodedata.normalize("NFKD", capitals.casefold()).upper().casefold()
    visible = unicodedata.normalize("NFKC", folded)
    return _spaced(_INVISIBLE.sub("", visible))


def _spaced(text: str) -> str:
    return " ".join(text.split())


def fold_address(address: str) -> str:
    """An address as ClientIP writes it: IPv6 by its /64. Any other text is itself."""
    host = address.partition("/")[0]
    return customer(host, _IPV6_PREFIX) if address_bytes(host) else address


class Digests:
    """Texts as digests that are keyed with a secret."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret if len(secret) <= blake2b.MAX_KEY_SIZE else blake2b(secret).digest()

    def of(self, *texts: str) -> str:
        """The digest of some texts. None of them can run into the next."""
        digest = blake2b(key=self._secret, digest_size=_DIGEST)
        for text in texts:
            written = text.encode("utf-8", "surrogatepass")
            digest.update(b"%d:%b" % (len(written), written))
        return digest.hexdigest()


def secret_of(store: Store) -> bytes:
    """A secret that follows from the store's: random for one in memory, no secret for a shared one without."""
    observers = getattr(store, "observers", None)
    if not isinstance(observers, Observers):
        observers = Observers((), store.clock, b"" if store.shared else None)
    return "".join(observers.digest(f"login:{part}") for part in range(_SECRET_PARTS)).encode("ascii")[:64]


def has_public_secret(store: Store) -> bool:
    """Whether all who know a name can make its digest."""
    observers = getattr(store, "observers", None)
    if not isinstance(observers, Observers):
        return store.shared
    return observers.digest("login") == Event("allowed", key="login").key_digest
