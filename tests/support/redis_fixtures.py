"""Real servers, each started when a test first asks for it: single ones, a cluster, sentinels, and a faulty proxy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.support.servers import KINDS, Cluster, Proxy, Sentinels, Server, tls_options


def refresh(server: Server) -> None:
    """As it was when it started, whatever a test has done to it, except for its configuration."""
    if not server.running:
        server.restart()
    server.resume()
    with server.client() as client, client.pipeline(transaction=False) as commands:
        commands.flushall().script_flush().execute()


@pytest.fixture(scope="session")
def fresh_server() -> Iterator[Callable[[str], Server]]:
    """The session's server of a kind, empty. Tests that configure one start their own: it takes milliseconds."""
    servers: dict[str, Server] = {}
    with ExitStack() as stack:

        def fresh(kind: str) -> Server:
            if kind not in servers:
                servers[kind] = stack.enter_context(Server(kind))
            refresh(servers[kind])
            return servers[kind]

        yield fresh


@pytest.fixture(params=KINDS)
def redis_server(request: pytest.FixtureRequest, fresh_server: Callable[[str], Server]) -> Server:
    """An empty server of every kind in turn."""
    return fresh_server(request.param)


@pytest.fixture
def any_redis(fresh_server: Callable[[str], Server]) -> Server:
    """An empty server, where one kind is enough."""
    return fresh_server(KINDS[0])


@pytest.fixture
def proxy(any_redis: Server) -> Iterator[Proxy]:
    """Stands in front of `any_redis`."""
    with Proxy(any_redis) as proxy:
        yield proxy


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[Server]:
    """An empty server that speaks TLS at its `tls_url`."""
    with Server("redis-7.0", **tls_options(tmp_path)) as server:
        yield server


@pytest.fixture(scope="session")
def running_cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(running_cluster: Cluster) -> Cluster:
    """Three empty masters. Slots are where the last test left them, so look up their owner."""
    for node in running_cluster.nodes:
        refresh(node)
    running_cluster.wait_until_ok()
    return running_cluster


@pytest.fixture
def sentinels() -> Iterator[Sentinels]:
    """A master, a replica and three sentinels, for one test only: a failover changes them."""
    with Sentinels() as sentinels:
        yield sentinels


@pytest.fixture(scope="module")
def steady_sentinels() -> Iterator[Sentinels]:
    """Sentinels that keep their master."""
    with Sentinels() as sentinels:
        yield sentinels


@pytest.fixture(params=[*KINDS, "cluster", "sentinel"])
def every_url(request: pytest.FixtureRequest) -> str:
    """The address of every kind of server that a RedisStore can be given, in turn."""
    if request.param == "cluster":
        return str(request.getfixturevalue("cluster").url)
    if request.param == "sentinel":
        return str(request.getfixturevalue("steady_sentinels").url)
    return str(request.getfixturevalue("fresh_server")(request.param).url)
