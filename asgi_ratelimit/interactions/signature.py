"""The Ed25519 signature of a request, and the moment at which it was signed."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b

try:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
except ImportError as error:
    raise ImportError(
        "asgi_ratelimit.interactions needs cryptography: pip install 'asgi-ratelimit-discord[interactions]'"
    ) from error

__all__ = ["SignatureHeaders", "SignatureVerifier", "Signed"]

_KEY = re.compile("[0-9a-fA-F]{64}")
_SIGNATURE = re.compile(rb"[0-9a-fA-F]{128}")
_TIMESTAMP = re.compile(rb"[0-9]{1,12}")
_TRIALS = 64
_FORGED = bytes([1]) + bytes(63)  # R the neutral element, S = 0: passes under a key that anybody can sign for


@dataclass(frozen=True, slots=True)
class SignatureHeaders:
    """The two headers of a request that may be signed: well-formed, and not verified yet."""

    signature: bytes
    timestamp: bytes

    @classmethod
    def of(cls, headers: Iterable[tuple[bytes, bytes]]) -> SignatureHeaders | None:
        """Those of a request, if each is there once and well-formed; else None."""
        pairs = list(headers)
        signature = _only(pairs, b"x-signature-ed25519", _SIGNATURE)
        timestamp = _only(pairs, b"x-signature-timestamp", _TIMESTAMP)
        if signature is None or timestamp is None:
            return None
        return cls(bytes.fromhex(signature.decode("ascii")), timestamp)


@dataclass(frozen=True, slots=True)
class Signed:
    """A message with a good signature: its moment in epoch seconds, and a digest that identifies it."""

    at: int
    digest: str


class SignatureVerifier:
    """Checks the signatures that Discord makes with the secret half of an application's public key."""

    def __init__(self, public_key: str) -> None:
        if not isinstance(public_key, str) or _KEY.fullmatch(public_key) is None:
            # It may be a token that was pasted here, so it is not shown.
            value = f"{len(public_key)} characters" if isinstance(public_key, str) else f"a {type(public_key).__name__}"
            raise ValueError(
                "public_key must be the 64 hex characters that the application's General Information page shows "
                f'as its Public Key, such as "3b6a27bc…4a29", not {value}'
            )
        self.raw = bytes.fromhex(public_key)
        self._key = Ed25519PublicKey.from_public_bytes(self.raw)
        if any(self._fits(_FORGED, b"%d" % trial) for trial in range(_TRIALS)):
            raise ValueError(f"public_key {public_key!r} is a placeholder: anybody can sign for it, e.g. 64 zeros")

    def verify(self, headers: SignatureHeaders, body: bytes) -> Signed | None:
        """The message, if the signature is good; else None."""
        message = headers.timestamp + body
        if not self._fits(headers.signature, message):
            return None
        return Signed(int(headers.timestamp), blake2b(message, digest_size=16, key=self.raw).hexdigest())

    def _fits(self, signature: bytes, message: bytes) -> bool:
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def _only(headers: Iterable[tuple[bytes, bytes]], wanted: bytes, form: re.Pattern[bytes]) -> bytes | None:
    values = [value for name, value in headers if name.lower() == wanted]
    return values[0] if len(values) == 1 and form.fullmatch(values[0]) else None
