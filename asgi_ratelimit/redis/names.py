"""The names of records in Redis: no text of a user can be read from them, or means anything in them."""

from __future__ import annotations

from binascii import b2a_base64, crc_hqx
from functools import lru_cache
from hashlib import blake2b

__all__ = ["SLOTS", "Namer", "slot_of", "tag_of"]

SLOTS = 16_384  # of every cluster

_DIGEST = 15  # bytes: 120 bits, twenty characters
_MOST_RECENT = 16_384  # keys with remembered names


class Namer:
    """Names of the form `prefix:{tag}:rest`; all names with one tag are in one slot of a cluster.

    The tag is a BLAKE2b digest of a limiter's name and a key, keyed with a secret if there is one.
    """

    def __init__(self, prefix: str, secret: bytes) -> None:
        self._prefix = prefix
        self._secret = secret if len(secret) <= blake2b.MAX_KEY_SIZE else blake2b(secret).digest()
        self.recent_names = lru_cache(_MOST_RECENT)(self.names)

    def start(self, *texts: str) -> blake2b:
        """A digest of some texts for `tag` to continue. None of them can run into the next."""
        digest = blake2b(key=self._secret, digest_size=_DIGEST)
        for text in texts:
            written = text.encode("utf-8", "surrogatepass")
            digest.update(b"%d:%b" % (len(written), written))
        return digest

    def tag(self, started: blake2b, text: str) -> str:
        """The digest that `start` has returned, continued with a text."""
        digest = started.copy()
        digest.update(text.encode("utf-8", "surrogatepass"))
        return b2a_base64(digest.digest(), newline=False).decode("ascii")

    def name(self, tag: str, rest: str) -> str:
        return f"{self._prefix}:{{{tag}}}:{rest}"

    def names(self, started: blake2b, key: str, ends: tuple[str, ...]) -> tuple[str, ...]:
        """The names of a key's own records. `recent_names` remembers those of the keys that were used last."""
        tag = self.tag(started, key)
        return tuple([self.name(tag, end) for end in ends])


def slot_of(tag: str) -> int:
    """The slot of a cluster in which all records with this tag are."""
    return crc_hqx(tag.encode(), 0) % SLOTS


def tag_of(name: str) -> str:
    """The tag of a record's name."""
    return name[name.index("{") + 1 : name.index("}")]
