"""Tools for tracing wrap the handlers of an app. A refusal is Discord's all the same, or the app's own."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.support.traced_app import TOOLS


@pytest.mark.parametrize("tool", TOOLS)
def test_a_refusal_is_discords_or_the_apps_own(tool: str) -> None:
    # In a process of its own: most tools cannot be removed any more.
    command = [sys.executable, "-m", "tests.support.traced_app", tool]
    output = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
    discords, owned = map(json.loads, output.splitlines()[-2:])
    status, text, headers = discords
    body = json.loads(text)
    assert (status, body["message"], body["global"]) == (429, "You are being rate limited.", False)
    assert 0 < body["retry_after"] <= 3600
    assert (headers["content-type"], headers["via"]) == ("application/json", "1.1 asgi_ratelimit")
    assert owned[0] == 418
