"""Where the servers are: every kind of URL and client, and the messages that name them."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any
from unittest.mock import AsyncMock

import pytest
from redis import Redis as SyncRedis
from redis.asyncio import BlockingConnectionPool, Connection, ConnectionPool, Redis, RedisCluster, Sentinel
from redis.credentials import CredentialProvider
from redis.exceptions import RedisError

from asgi_ratelimit import Limiter, StoreUnavailable
from asgi_ratelimit.redis import RedisStore
from asgi_ratelimit.redis.address import locate
from tests.support.servers import Cluster, Sentinels, Server
from tests.support.stores import calls_of_the_script, names_of, new_store

PASSWORD = "hunter2-éè"
QUOTED = "hunter2-%C3%A9%C3%A8"


@pytest.fixture
def locked() -> Iterator[Server]:
    """A server that asks clients for a password."""
    with Server(requirepass="master-word") as server:
        server.command("ACL", "SETUSER", "ada", "on", f">{PASSWORD}", "~*", "+@all")
        yield server


async def counts(store: RedisStore, key: str = "a") -> bool:
    """Whether it counts in Redis, once."""
    limiter = Limiter("1/day", store=store)
    return [(await limiter.try_acquire(key)).reason for _ in range(2)] == ["ok", "limited"]


# URLs that work


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("form", "db"),
    [
        ("redis://127.0.0.1:{port}", 0),
        ("redis://127.0.0.1:{port}/", 0),
        ("redis://127.0.0.1:{port}/7", 7),
        ("redis://127.0.0.1:{port}?db=7", 7),
        ("redis://127.0.0.1:{port}/0?socket_timeout=3&max_connections=5&health_check_interval=1", 0),
        ("redis://127.0.0.1:{port}?decode_responses=true&protocol=3&client_name=ours", 0),
        ("redis://localhost:{port}", 0),
        ("unix://{socket}", 0),
        ("unix://{socket}?db=7", 7),
    ],
)
async def test_a_url_of_one_server_leads_there(any_redis: Server, form: str, db: int) -> None:
    async with new_store(form.format(port=any_redis.port, socket=any_redis.folder / "redis.sock")) as store:
        assert await counts(store)
    with any_redis.client() as client:
        client.execute_command("SELECT", db)
        assert client.dbsize() >= 1


@pytest.mark.anyio
async def test_a_url_may_name_a_user_and_a_quoted_password(locked: Server) -> None:
    for credentials in (f"ada:{QUOTED}", ":master-word", "default:master-word"):
        async with new_store(f"redis://{credentials}@127.0.0.1:{locked.port}") as store:
            assert await counts(store)
    async with new_store(f"unix://ada:{QUOTED}@{locked.folder / 'redis.sock'}") as store:
        assert await counts(store)


@pytest.mark.anyio
async def test_a_url_with_two_s_speaks_tls_and_checks_the_certificate(tls_server: Server) -> None:
    async with new_store(tls_server.tls_url) as store:
        assert await counts(store)
    async with new_store(tls_server.tls_url.partition("?")[0]) as store:
        with pytest.raises(StoreUnavailable, match=r"CERTIFICATE_VERIFY_FAILED"):
            await Limiter("1/day", store=store).try_acquire("a")


@pytest.mark.anyio
async def test_a_url_of_a_cluster_needs_one_node_that_answers(cluster: Cluster) -> None:
    addresses = [f"127.0.0.1:{node.port}" for node in cluster.nodes]
    for url in (
        f"redis+cluster://{','.join(addresses)}",
        f"redis+cluster://{addresses[0]}",
        f"redis+cluster://127.0.0.1:1,{addresses[1]}",
    ):
        async with new_store(url) as store:
            assert all([await counts(store, key) for key in "abcdefgh"])
    assert all(names_of(node) for node in cluster.nodes)


@pytest.mark.anyio
async def test_a_url_of_sentinels_leads_to_the_master(sentinels: Sentinels) -> None:
    dead = sentinels.url.replace("//", "//127.0.0.1:1,")
    for url in (sentinels.url, dead, f"{sentinels.url}/7"):
        async with new_store(url) as store:
            assert await counts(store)
    with sentinels.master().client() as client:
        assert client.dbsize() >= 2
        client.execute_command("SELECT", 7)
        assert client.dbsize() >= 1


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("redis://", "localhost:6379"),
        ("redis://host", "host:6379"),
        ("redis://user:word@host:1/2", "host:1"),
        ("rediss://user:word@host", "host:6379"),
        ("redis://[::1]:7", "::1:7"),
        ("unix://user:word@/run/redis.sock", "/run/redis.sock"),
        ("redis+cluster://user:word@one,two:2", "cluster one:6379,two:2"),
        ("rediss+cluster://one", "cluster one:6379"),
        ("redis+sentinel://user:word@one,two:2/mine", "mine of sentinel one:26379,two:2"),
        ("redis+sentinel://one/my%20service/3", "my service of sentinel one:26379"),
    ],
)
def test_a_place_is_called_by_its_addresses(url: str, name: str) -> None:
    assert locate(url).name == name


# Those that cannot


@pytest.mark.parametrize("where", [None, 6379, b"redis://localhost", ["redis://localhost"], object()])
def test_anything_but_a_url_or_a_client_is_a_value_error(where: Any) -> None:
    with pytest.raises(ValueError, match=r'a RedisStore takes "redis://localhost:6379/0"'):
        RedisStore(where)


def test_a_synchronous_client_is_a_value_error(any_redis: Server) -> None:
    with any_redis.client() as client, pytest.raises(ValueError, match=r"or a redis\.asyncio client, not "):
        RedisStore(client)


class Connected(Connection):
    """As fakeredis' connections, which are no sockets."""


def test_a_client_that_only_pretends_is_refused_in_one_sentence() -> None:
    pool = ConnectionPool(connection_class=Connected)
    with pytest.raises(ValueError, match=r"Connected is no connection of redis-py to a real server.*MemoryStore\(\)"):
        RedisStore(Redis(connection_pool=pool))


def test_a_client_that_is_a_mock_is_a_value_error() -> None:
    with pytest.raises(ValueError, match=r'a RedisStore takes "redis://localhost:6379/0".*, not a AsyncMock'):
        RedisStore(AsyncMock(spec=Redis))


def test_the_error_for_a_synchronous_client_names_the_right_one_and_no_password(any_redis: Server) -> None:
    client = SyncRedis(host="localhost", password="hunter2", username="ada")
    with pytest.raises(ValueError, match=r"not the synchronous redis\.Redis: use redis\.asyncio\.Redis") as caught:
        RedisStore(client)  # type: ignore[arg-type]
    assert "hunter2" not in str(caught.value)


@pytest.mark.anyio
async def test_tls_files_that_cannot_be_read_are_an_error_at_the_start(any_redis: Server) -> None:
    store = RedisStore(f"rediss://127.0.0.1:{any_redis.port}?ssl_ca_certs=/nowhere/ca.pem")
    with pytest.raises(StoreUnavailable, match=r"the TLS options cannot be used: .*No such file"):
        await store.start()
    await store.aclose()


class Provider(CredentialProvider):
    """Gets its token from elsewhere."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def get_credentials(self) -> tuple[str]:
        raise self._error

    async def get_credentials_async(self) -> tuple[str]:
        raise self._error


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["single", "cluster"])
async def test_a_credential_provider_that_fails_is_an_error_at_the_start_and_an_outage_later(
    any_redis: Server, cluster: Cluster, kind: str
) -> None:
    provider = Provider(RuntimeError("no token today"))
    where: Any = Redis(port=any_redis.port, credential_provider=provider)
    if kind == "cluster":
        where = RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port, credential_provider=provider)
    store = RedisStore(where)
    with pytest.raises(StoreUnavailable, match="cannot be connected to: no token today"):
        await store.start()
    assert (await Limiter("5/day", store=store).try_acquire("a")).reason == "degraded"
    await store.aclose()
    await where.aclose()


@pytest.mark.anyio
@pytest.mark.parametrize("error", [OSError("unreachable"), TimeoutError("too late"), RedisError("not now")])
async def test_a_credential_provider_that_is_down_is_an_outage(any_redis: Server, error: Exception) -> None:
    events: list[Any] = []
    client = Redis(port=any_redis.port, credential_provider=Provider(error))
    async with client, RedisStore(client, on_event=events.append):
        pass
    assert [event.kind for event in events] == ["down"]


@pytest.mark.parametrize(
    "url",
    [
        "redis://ada:hunter2@localhost",
        "unix://ada:hunter2@/run/redis.sock",
        "redis+cluster://ada:hunter2@one,two",
        "redis+sentinel://ada:hunter2@one/service",
    ],
)
def test_the_repr_of_a_store_has_no_password_in_it(url: str) -> None:
    store = RedisStore(url, secret="hunter2")
    assert "hunter2" not in repr(store) + str(store) + repr(Limiter("1/s", store=store))


@pytest.mark.anyio
@pytest.mark.parametrize("credentials", ["ada:wrong-word@", ":wrong-word@", ""])
async def test_the_error_of_a_refused_log_in_has_no_password_in_it(locked: Server, credentials: str) -> None:
    store = new_store(f"redis://{credentials}127.0.0.1:{locked.port}")
    with pytest.raises(StoreUnavailable) as caught:
        await store.start()
    assert "wrong-word" not in "".join(traceback.format_exception(caught.value))
    await store.aclose()


@pytest.mark.anyio
async def test_events_and_logs_of_an_outage_have_no_password_in_them(
    any_redis: Server, caplog: pytest.LogCaptureFixture
) -> None:
    events: list[Any] = []
    store = new_store("redis://ada:hunter2@127.0.0.1:1", outage="local", on_event=events.append)
    await store.start()
    await Limiter("1/s", store=store).try_acquire("a")
    assert events
    assert "hunter2" not in repr(events) + caplog.text
    await store.aclose()


# Clients

Maker = Callable[[Server], Redis]
MAKERS: dict[str, Maker] = {
    "a plain one": lambda server: Redis(port=server.port),
    "one that decodes": lambda server: Redis(port=server.port, decode_responses=True),
    "one that speaks RESP3": lambda server: Redis(port=server.port, protocol=3),
    "one with timeouts": lambda server: Redis.from_url(server.url, health_check_interval=1, socket_timeout=3),
    "one with a pool of its own": lambda server: Redis(connection_pool=ConnectionPool.from_url(server.url)),
    "one that waits for a connection": lambda server: Redis(
        connection_pool=BlockingConnectionPool.from_url(server.url, max_connections=1)
    ),
    "one on a socket": lambda server: Redis(unix_socket_path=str(server.folder / "redis.sock")),
    "one of a single connection": lambda server: Redis(port=server.port, single_connection_client=True),
}


@pytest.fixture(params=MAKERS)
async def client(request: pytest.FixtureRequest, any_redis: Server) -> AsyncIterator[Redis]:
    client = MAKERS[request.param](any_redis)
    yield client
    await client.aclose(close_connection_pool=True)


@pytest.mark.anyio
async def test_a_client_s_settings_are_used_and_the_client_goes_on_working(client: Redis) -> None:
    await client.set("theirs", "1")
    async with new_store(client) as store:
        assert await counts(store)
        assert await client.get("theirs") in ("1", b"1")
    assert await client.get("theirs") in ("1", b"1")


@pytest.mark.anyio
async def test_a_client_s_pool_is_not_used_up(any_redis: Server) -> None:
    pool = ConnectionPool.from_url(any_redis.url, max_connections=1)
    async with Redis(connection_pool=pool) as client, new_store(client) as store:
        taken = await pool.get_connection()  # type: ignore[no-untyped-call]
        assert await counts(store)
        await pool.release(taken)
        assert len(pool._available_connections) == 1
    await pool.aclose()


@pytest.mark.anyio
async def test_a_pool_will_do_too(any_redis: Server) -> None:
    pool = ConnectionPool.from_url(any_redis.url)
    async with new_store(pool) as store:
        assert await counts(store)
    await pool.aclose()


@pytest.mark.anyio
async def test_a_client_s_user_and_database_are_taken(locked: Server) -> None:
    async with Redis(port=locked.port, db=3, username="ada", password=PASSWORD) as client, new_store(client) as store:
        assert await counts(store)
        assert await client.dbsize() >= 1


@pytest.mark.anyio
async def test_a_client_of_tls_stays_one(tls_server: Server) -> None:
    async with Redis.from_url(tls_server.tls_url) as client, new_store(client) as store:
        assert await counts(store)


@pytest.mark.anyio
async def test_a_cluster_s_client_will_do(cluster: Cluster) -> None:
    async with RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as client, new_store(client) as store:
        assert all([await counts(store, key) for key in "abcdefgh"])
        assert await client.set("theirs", "1")
    assert all(names_of(node, "store*") for node in cluster.nodes)


@pytest.mark.anyio
async def test_a_master_that_redis_py_s_sentinel_names_will_do(sentinels: Sentinels) -> None:
    watching: Any = Sentinel([("127.0.0.1", each.port) for each in sentinels.sentinels])  # type: ignore[no-untyped-call]
    async with watching.master_for("service") as client, new_store(client) as store:
        assert await counts(store)
        assert await client.set("theirs", "1")
    for watcher in watching.sentinels:
        await watcher.aclose()
    assert names_of(sentinels.master(), "store*")


@pytest.mark.anyio
async def test_nothing_is_sent_twice_whatever_retries_the_client_has(any_redis: Server, proxy: Any) -> None:
    client = Redis.from_url(proxy.url)
    store = new_store(client, outage="local")
    await store.start()
    any_redis.command("CONFIG", "RESETSTAT")
    proxy.cut_answers(to=["EVALSHA", "EVAL"])
    assert (await Limiter("5/day", store=store).try_acquire("a")).reason == "degraded"
    assert calls_of_the_script(any_redis) <= 2  # the check, and perhaps a probe
    with any_redis.client() as asking:
        charged = [asking.get(name) for name in names_of(any_redis)]
    assert len(charged) <= 1
    await store.aclose()
    await client.aclose()
