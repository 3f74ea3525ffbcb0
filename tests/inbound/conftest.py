"""What the tests of the way in share: a look at what was warned about."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Callable, Iterator

import pytest

from asgi_ratelimit import RateLimitWarning

Said = Callable[[], list[str]]  # the codes of all warnings so far


@pytest.fixture(params=["warned", "logged"])
def said(request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture) -> Iterator[Said]:
    """The codes said so far: as warnings, or, where a filter makes errors of warnings, in the log."""
    with warnings.catch_warnings(record=True) as caught:
        if request.param == "warned":
            warnings.simplefilter("always")
            yield lambda: [_code(str(one.message)) for one in caught if issubclass(one.category, RateLimitWarning)]
        else:
            warnings.simplefilter("error")
            yield lambda: [_code(record.getMessage()) for record in _warnings_in(caplog)]


def _warnings_in(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == "asgi_ratelimit"]


def _code(text: str) -> str:
    found = re.match(r"(ARL\d{3}) [^:]+: \S", text)
    assert found, f"no stable code at the start of {text!r}"
    return found[1]
