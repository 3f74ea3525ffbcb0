"""The resource of a request: the values of its `per=` path parameters, as the endpoint sees them."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Final
from uuid import UUID

from fastapi.dependencies.utils import request_params_to_args
from pydantic import BaseModel
from starlette.types import Scope

from asgi_ratelimit.inbound.route_names import matched_route
from asgi_ratelimit.inbound.users import user_of
from asgi_ratelimit.store import resource_text

__all__ = ["PerSource", "per_functions", "resource_of"]

Spelling = Callable[[Any], object]  # of a value: values with one spelling share a bucket
PerSource = Iterable[str] | Mapping[str, Spelling]

INVALID: Final = "\0invalid"  # what the route's own field refuses shares one bucket
_MISSING: Final = object()
_ADDRESS: Final = re.compile(r" at 0x[0-9a-fA-F]+\b")  # an object that is new for each request has a text of its own


def per_functions(per: PerSource) -> dict[str, Spelling | None]:
    """The parameters of `per=`, each with its spelling, if it has one. Raises ValueError if it is neither form."""
    if isinstance(per, str):
        raise ValueError(f'per is a list of path parameters such as ("channel_id",), not the string {per!r}')
    if not isinstance(per, Iterable):
        raise ValueError(f'per is a list of path parameters such as ("channel_id",), not {per!r}')
    spellings = dict(per) if isinstance(per, Mapping) else dict.fromkeys(per)
    for name, spelling in spellings.items():
        if not isinstance(name, str) or (isinstance(per, Mapping) and not callable(spelling)):
            raise ValueError(
                'per is a list of path parameters such as ("channel_id",), or a dict of functions such as '
                f'{{"email": str.casefold}}, not {per!r}'
            )
    return spellings


def resource_of(scope: Scope, per: Mapping[str, Spelling | None], on_missing: Callable[[str], None]) -> str:
    """One text for the values of these path parameters. `on_missing` is called for one that the path does not have."""
    values = scope.get("path_params", {})
    texts = []
    for name, spelling in per.items():
        if name not in values:
            on_missing(name)
            texts.append("")
            continue
        value = _value_seen(scope, name, values)
        if spelling is not None and value is not INVALID:
            value = spelling(value)
        texts.append(_lasting_text(value, values[name]))
    return resource_text(texts)


def _value_seen(scope: Scope, name: str, values: Mapping[str, Any]) -> Any:
    """The value that the endpoint or one of its dependencies gets, else a reading of the text.

    If some of them get the text itself, another one's value counts: it has fewer spellings.
    """
    seen = None
    for field in _path_fields(getattr(matched_route(scope), "dependant", None)):
        value = _validated(field, name, values)
        if value is INVALID or not (value is _MISSING or isinstance(value, str)):
            return value
        if value is not _MISSING and seen is None:
            seen = value
    return _reading(values[name]) if seen is None else seen


def _path_fields(dependant: Any) -> Iterator[Any]:
    """The path parameters of an endpoint, then those of its dependencies."""
    if dependant is not None:
        yield from dependant.path_params
        for inner in dependant.dependencies:
            yield from _path_fields(inner)


def _validated(field: Any, name: str, values: Mapping[str, Any]) -> Any:
    """The field's value for this parameter. INVALID: it refuses the text. _MISSING: it is another parameter's."""
    model = field.field_info.annotation
    attribute = _attribute_of(model, name) if isinstance(model, type) and issubclass(model, BaseModel) else None
    if attribute is None and field.alias != name:
        return _MISSING
    seen, errors = request_params_to_args([field], values)
    if errors:
        return INVALID
    value = next(iter(seen.values()))
    return value if attribute is None else getattr(value, attribute)


def _attribute_of(model: type[BaseModel], name: str) -> str | None:
    """The attribute of a model of path parameters that this parameter becomes."""
    return next((attribute for attribute, info in model.model_fields.items() if name in (attribute, info.alias)), None)


def _reading(text: Any) -> Any:
    """What an endpoint most likely makes of a text that it reads itself: Python's int, or a UUID in any form."""
    if not isinstance(text, str):  # a converter of the path has read it
        return text
    for reads in (int, UUID):
        try:
            return reads(text)
        except ValueError:
            continue
    return text


def _lasting_text(value: Any, raw: Any) -> str:
    """One text for a value. An object without one has that of its `identity`, `id` or `sub`, else of what was sent."""
    text = one_spelling(value)
    if isinstance(value, str) or not _ADDRESS.search(text):
        return text
    identity = user_of(value)
    return one_spelling(_reading(raw) if identity is None else identity)


def one_spelling(value: object) -> str:
    """One text for all values that are equal."""
    if isinstance(value, Enum):
        return one_spelling(value.value)
    if isinstance(value, float):
        return repr(value + 0.0)  # 0.0 is -0.0
    if isinstance(value, Decimal):
        return _decimal(value)
    if isinstance(value, (date, time)):
        return _moment(value)
    if isinstance(value, timedelta):
        return str(value // timedelta(microseconds=1))
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, bytes):
        return value.decode("latin-1")
    return hex(value) if type(value) is int and value.bit_length() > 10_000 else str(value)


def _decimal(value: Decimal) -> str:
    if not value.is_finite():
        return str(value).lower()
    sign, digits, exponent = value.as_tuple()
    text = "".join(map(str, digits)).lstrip("0")
    plain = text.rstrip("0")
    return f"{'-' * sign}{plain}e{int(exponent) + len(text) - len(plain)}" if plain else "0"


def _moment(value: date | time) -> str:
    """A moment in UTC, if it has an offset."""
    if isinstance(value, time) and value.utcoffset() is not None:
        return datetime.combine(date(2000, 1, 2), value).astimezone(UTC).time().isoformat()
    if isinstance(value, datetime) and value.utcoffset() is not None:
        try:
            return value.astimezone(UTC).isoformat()
        except OverflowError:  # at the edge of the calendar
            return value.isoformat()
    return value.isoformat()
