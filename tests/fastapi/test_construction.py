"""A limit that makes no sense is a ValueError where it is written down; a missing FastAPI is one sentence."""

import subprocess
import sys
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from fastapi.testclient import TestClient

from asgi_ratelimit import FixedWindow, LeakyBucket, MemoryStore, SlidingWindow, TokenBucket
from asgi_ratelimit.fastapi import RateLimit


def run(code: str) -> str:
    """What a fresh interpreter prints for that code, the last line of its errors included."""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)
    return (done.stdout + (done.stderr.strip().splitlines() or [""])[-1]).strip()


@pytest.mark.parametrize(
    "limit",
    [
        "5/5s",
        "100/minute",
        "50/s burst 100",
        TokenBucket("50/s", burst=100),
        LeakyBucket("5/s"),
        SlidingWindow("100/hour"),
        FixedWindow("5/5s"),
        ["10/s", "1000/day"],
        [TokenBucket("5/s"), TokenBucket("100/s", scope="global")],
        lambda conn: "5/s",
        None,
    ],
)
def test_every_kind_of_limit_is_taken(limit: Any) -> None:
    assert callable(RateLimit(limit))


@pytest.mark.parametrize("limit", ["5/", "", "-1/s", "nan/s", "5/0s", 5, [], ["5/s", "5/s"], {"5/s": 1}, b"5/s"])
def test_a_bad_limit_is_refused_with_a_right_one_as_an_example(limit: Any) -> None:
    with pytest.raises(ValueError, match=r"\d/\w|TokenBucket|twice"):
        RateLimit(limit)


@pytest.mark.parametrize("cost", [0, -1, 6, 1.5, "1", True, float("nan"), None])
def test_a_bad_cost_is_refused(cost: Any) -> None:
    with pytest.raises(ValueError, match="cost must be a whole number from 1 to 5, the capacity"):
        RateLimit("5/5s", cost=cost)


def test_a_cost_above_the_smallest_capacity_of_a_list_is_refused() -> None:
    with pytest.raises(ValueError, match="from 1 to 3"):
        RateLimit(["3/s", "100/hour"], cost=4)


def test_a_cost_of_the_whole_capacity_is_taken() -> None:
    RateLimit("5/5s", cost=5)


def test_resources_are_a_list_and_no_string() -> None:
    with pytest.raises(ValueError, match=r"""\("channel_id",\), not the string 'channel_id'"""):
        RateLimit(per="channel_id")


@pytest.mark.parametrize("headers", ["Discord", "", "x", True, 1, ["discord"]])
def test_a_bad_style_of_headers_is_refused(headers: Any) -> None:
    with pytest.raises(ValueError, match='"discord", "ietf", "both" or None'):
        RateLimit(headers=headers)


@pytest.mark.parametrize("key", ["user", 5, None, b"x"])
def test_a_key_that_is_neither_a_function_nor_a_dependency_is_refused(key: Any) -> None:
    with pytest.raises(ValueError, match="key must be a function"):
        RateLimit(key=key)


@pytest.mark.parametrize("max_wait", [-1, float("inf"), float("nan"), "1", None])
def test_a_bad_wait_is_refused(max_wait: Any) -> None:
    with pytest.raises(ValueError, match="max_wait must be seconds"):
        RateLimit(max_wait=max_wait)


@pytest.mark.parametrize("name", ["", 5, b"x", True])
def test_a_bad_name_is_refused_where_it_is_written(name: Any) -> None:
    with pytest.raises(ValueError, match="name"):
        RateLimit(name=name)


def test_options_are_given_by_name() -> None:
    with pytest.raises(TypeError):
        RateLimit("5/5s", lambda conn: "x")  # type: ignore[call-arg]


def test_the_class_itself_is_no_dependency_that_silently_limits_nothing() -> None:
    app = FastAPI()
    try:
        app.get("/", dependencies=[Depends(RateLimit)])(lambda: None)
    except Exception:
        return  # refused where it is written: the best of all
    assert TestClient(app, raise_server_exceptions=False).get("/").status_code != 200


BLOCK = "import sys; sys.modules.update(dict.fromkeys({names!r}))\n"


def test_without_fastapi_its_door_says_in_one_sentence_what_to_install() -> None:
    last = run(BLOCK.format(names=["fastapi"]) + "import asgi_ratelimit.fastapi")
    assert last == "ImportError: asgi_ratelimit.fastapi needs FastAPI: pip install 'asgi-ratelimit-discord[fastapi]'"


def test_the_core_needs_no_extra() -> None:
    names = ["fastapi", "redis", "httpx", "httpx2", "tqdm", "pydantic"]
    assert run(BLOCK.format(names=names) + "import asgi_ratelimit; print(asgi_ratelimit.Limiter.__name__)") == "Limiter"


def test_the_core_does_not_import_fastapi_where_it_is_installed() -> None:
    assert run("import sys, asgi_ratelimit; print('fastapi' in sys.modules)") == "False"


UNTOUCHED = """
import inspect, sys
import fastapi, fastapi.applications, fastapi.dependencies.utils, fastapi.openapi.utils, fastapi.routing
import starlette.applications, starlette.middleware.exceptions, starlette.requests, starlette.responses
import starlette.routing, starlette._exception_handler, fastapi.testclient

def everything():
    seen = {}
    for name, module in sorted(sys.modules.items()):
        if name.partition(".")[0] in ("fastapi", "starlette"):
            for attribute, value in vars(module).items():
                if attribute.startswith("__"):
                    continue
                seen[name, attribute] = id(value)
                if inspect.isclass(value) and value.__module__ == name:
                    for inner, method in vars(value).items():
                        if not inner.startswith("__abstract") and inner != "_abc_impl":
                            seen[name, attribute, inner] = id(method)
    return seen

modules = set(sys.modules)
before = everything()
from asgi_ratelimit.fastapi import RateLimit, document_limits
app = fastapi.FastAPI(dependencies=[fastapi.Depends(RateLimit("1/hour"))])
app.get("/")(lambda: None)
document_limits(app)
app.openapi()
client = fastapi.testclient.TestClient(app)
statuses = [client.get("/").status_code for _ in range(2)]
after = everything()
changed = [what for what in before if after.get(what) != before[what]]
added = [what for what in after if what not in before and what[0] in modules]
submodules = [what for what in added if f"{what[0]}.{what[1]}" in sys.modules]
print(statuses, changed, [what for what in added if what not in submodules], len(before) > 500)
"""


def test_nothing_of_fastapis_or_starlettes_is_changed() -> None:
    assert run(UNTOUCHED) == "[200, 429] [] [] True"


def test_a_limit_may_stand_in_several_annotations() -> None:
    limit = RateLimit("5/5s", store=MemoryStore())
    assert Depends(limit) == Depends(limit)
    assert hash(limit) == hash(limit)
