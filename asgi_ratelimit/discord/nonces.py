"""The nonce of a message, by which Discord recognises one that is sent again: put into a body of any form."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Iterator, MutableMapping, Sequence
from itertools import islice
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from asgi_ratelimit.discord.response_headers import object_of

__all__ = ["Pieces", "with_nonce"]

_BOUNDARY: Final = re.compile(r'boundary="?([^";,]+)')
_FIELDS: Final = ("nonce", "enforce_nonce")
_SPACE: Final = b" \t\r\n"  # of JSON
_MOST_FIELDS: Final = 1_000  # of a form, which takes its time to read
_LONGEST: Final = 2**18  # bytes of a message without its files: Discord refuses far shorter ones
_NAME: Final = re.compile(rb'[; ]name="([^"]*)"')


Pieces = Sequence[bytes | memoryview]


def with_nonce(kind: str, body: bytes) -> tuple[Pieces, bool]:
    """The body of a message with a nonce, its own if it has one, and whether Discord enforces it.

    `kind` is the Content-Type. A body that cannot be read stays as it is. It comes in pieces, so that large files are
    not copied. https://discord.com/developers/docs/resources/message#create-message
    """
    boundary = _BOUNDARY.search(kind) if kind.startswith("multipart/form-data") else None
    if boundary is not None:
        return _parts_with_nonce(b"--" + boundary[1].encode(errors="replace"), body)
    is_enforced = False
    if kind.startswith("application/json"):
        body, is_enforced = _json_with_nonce(body)
    elif kind.startswith("application/x-www-form-urlencoded") and len(body) <= _LONGEST:
        body, is_enforced = _form_with_nonce(body)
    return (body,), is_enforced


def _json_with_nonce(body: bytes) -> tuple[bytes, bool]:
    message = object_of(body) if len(body) <= _LONGEST else None
    if message is None:
        return body, False
    is_plain = body.lstrip(_SPACE)[:1] == b"{" and not any(
        name in message and message[name] is None for name in _FIELDS
    )
    comma = b"," if message else b""
    added = _complete(message, enforced=True)
    if added and is_plain:  # all else stays as it was written: not every number can be read and written again
        body = body.replace(b"{", json.dumps(added, separators=(",", ":")).encode()[:-1] + comma, 1)
    elif added:
        body = json.dumps(message, separators=(",", ":")).encode()
    return body, bool(message.get("enforce_nonce"))


def _form_with_nonce(body: bytes) -> tuple[bytes, bool]:
    try:
        fields = dict(parse_qsl(body.decode(errors="replace"), keep_blank_values=True, max_num_fields=_MOST_FIELDS))
    except ValueError:
        return body, False
    if "payload_json" in fields:
        payload, is_enforced = _json_with_nonce(fields["payload_json"].encode())
        return urlencode(fields | {"payload_json": payload}).encode(), is_enforced
    added = _complete(fields, enforced="true")
    more = urlencode(added).encode()
    return b"&".join(text for text in (body, more) if text), _is_true(fields.get("enforce_nonce", ""))


def _parts_with_nonce(mark: bytes, body: bytes) -> tuple[Pieces, bool]:
    parts = list(islice(_parts(mark, body), _MOST_FIELDS + 1))
    places = {name: (start, end) for name, start, end in parts}
    if not places or len(parts) > _MOST_FIELDS:
        return (body,), False
    if "payload_json" in places:
        start, end = places["payload_json"]
        payload, is_enforced = _json_with_nonce(body[start:end])
        whole = memoryview(body)
        return (whole[:start], payload, whole[end:]), is_enforced
    own = {name: body[slice(*places[name])].decode(errors="replace") for name in places if name in _FIELDS}
    added = _complete(own, enforced="true")
    more = b"".join(_part(mark, *field) for field in added.items())
    return (more, body), _is_true(own.get("enforce_nonce", ""))


def _complete(message: MutableMapping[str, Any], *, enforced: object) -> dict[str, Any]:
    """Add the missing fields to the message, and return them. With a nonce of the user's own it stays as it is."""
    if message.get("nonce") is not None:
        return {}
    wanted = {"nonce": secrets.token_hex(12), "enforce_nonce": enforced}  # 25 characters at most
    added = {name: value for name, value in wanted.items() if message.get(name) is None}
    message.update(added)
    return added


def _parts(mark: bytes, body: bytes) -> Iterator[tuple[str, int, int]]:
    """The parts of a multipart body: each one's name, and where its content begins and ends."""
    at = 0
    while body.startswith(mark + b"\r\n", at):
        start = body.find(b"\r\n\r\n", at) + 4
        end = body.find(b"\r\n" + mark, start)
        if start < 4 or end < 0:
            return
        name = _NAME.search(body, at, start)
        if name is not None:
            yield name[1].decode(errors="replace"), start, end
        at = end + 2


def _part(mark: bytes, name: str, value: str) -> bytes:
    return mark + f'\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()


def _is_true(text: str) -> bool:
    return text.lower() not in ("", "0", "false")
