"""How a limit is written on a command line: "100/minute", or as in Python, "SlidingWindow(100/hour, name=burst)"."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection
from typing import Any, Final

from asgi_ratelimit.limits import Limit, TokenBucket, as_limits
from asgi_ratelimit.limits.base import SHIPPED

__all__ = ["limits_of"]

EXAMPLES: Final = '"100/minute", "50/s burst 100", "SlidingWindow(100/hour)" or "Quota(5000/month, starts=15)"'

_CALL = re.compile(r"\s*([A-Za-z]\w*)\s*\((.*)\)\s*", re.DOTALL)
_ARGUMENT = re.compile(r"""(?:"[^"]*"|'[^']*'|[^,"'])+""")
_SHARE = re.compile(r"[01]\.[0-9]{1,15}")
_OPTION = re.compile(r"\s*([a-z_]+)\s*=(.*)", re.DOTALL)


def limits_of(texts: Collection[str] | None) -> tuple[Limit, ...]:
    """The limits. Raises ValueError if there is none, or if one of them cannot be read."""
    if not texts:
        raise ValueError(
            f"which limit? A bucket is named after its limit, so write it as the app has it, with --limit: {EXAMPLES}"
        )
    return as_limits([_limit_of(text) for text in texts])


def _limit_of(text: str) -> Limit:
    call = _CALL.fullmatch(text)
    if call is None:
        return TokenBucket(text)
    kind = _kinds().get(call[1].casefold())
    if kind is None:
        names = ", ".join(sorted(kind.__name__ for kind in SHIPPED))
        raise ValueError(f"{call[1]!r} is no kind of limit: it is one of {names}, as in {EXAMPLES}")
    return _made(kind, _ARGUMENT.findall(call[2]), text)


def _kinds() -> dict[str, Callable[..., Limit]]:
    return {kind.__name__.casefold(): kind for kind in SHIPPED}


def _made(kind: Callable[..., Limit], arguments: list[str], text: str) -> Limit:
    known = list(inspect.signature(kind).parameters)
    values: list[Any] = []
    options: dict[str, Any] = {}
    for argument in arguments:
        option = _OPTION.fullmatch(argument)
        if option is None:
            values.append(_value(argument))
        elif option[1] in known and option[1] not in options:
            options[option[1]] = float(option[2]) if _SHARE.fullmatch(option[2].strip()) else _value(option[2])
        else:
            raise ValueError(f"{option[1]!r} in the limit {text!r} is none of its options, which are {_listed(known)}")
    if not values or len(values) > len(known):
        raise ValueError(f"cannot read the limit {text!r}; write {EXAMPLES}")
    try:
        return kind(*values, **options)
    except TypeError:
        raise ValueError(f"the options in the limit {text!r} are {_listed(known)}; write {EXAMPLES}") from None


def _listed(names: list[str]) -> str:
    return ", ".join(names[1:])


def _value(text: str) -> str | int | bool | None:
    """A number, True, False, None, or a text with or without quotes."""
    word = text.strip()
    if re.fullmatch(r"[0-9]{1,15}", word):
        return int(word)
    constants = {"True": True, "False": False, "None": None}
    if word in constants:
        return constants[word]
    return word[1:-1] if len(word) > 1 and word[0] == word[-1] and word[0] in "\"'" else word
