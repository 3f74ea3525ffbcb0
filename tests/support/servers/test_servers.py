"""The servers that other tests rely on: each is of its kind, and each verb has its effect."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.support.servers import KINDS, Cluster, Sentinels, Server, binaries, tls_options, wait_until
from tests.support.servers import server as server_module

SOON = 0.1  # seconds after which a client gives up


def client(url: str, *, timeout: float = 5.0) -> redis.Redis:
    """A client that tries nothing twice."""
    return redis.Redis.from_url(url, socket_timeout=timeout, retry=Retry(NoBackoff(), 0), decode_responses=True)


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(request.param) as server:
        yield server


# One server


def test_each_kind_reports_its_name(server: Server) -> None:
    about = server.command("INFO", "server")
    name, version = server.kind.split("-")
    if server.kind in binaries.PACKAGED:
        assert about[f"{name}_version"].startswith(f"{version}.")
    assert about["process_id"] == server.pid
    assert about["tcp_port"] == server.port


def test_a_server_is_reached_at_its_addresses_and_with_its_password() -> None:
    with Server(requirepass='a/b "@\\ secret', maxmemory="3mb", maxmemory_policy="allkeys-lru") as server:
        for url in (server.url, server.unix_url):
            with client(url) as old:
                assert old.config_get("maxmemory*")["maxmemory"] == "3145728"
        with client(server.url.replace("secret", "guess")) as stranger, pytest.raises(redis.AuthenticationError):
            stranger.ping()


def test_options_of_several_words_stay_apart() -> None:
    with Server(client_output_buffer_limit=("pubsub", "1mb", "1mb", 7)) as server:
        assert "pubsub 1048576 1048576 7" in server.command("CONFIG", "GET", "client-output-buffer-limit")[1]


def test_words_may_be_any_bytes() -> None:
    with Server() as server, redis.Redis.from_url(server.url) as plain:
        server.command("SET", "é\udcff", b"\x00")
        assert plain.keys() == ["é".encode() + b"\xff"]
        assert server.command("KEYS", "*") == ["é\udcff"]


def test_a_server_that_cannot_start_says_why() -> None:
    server = Server(maxmemory_policy="whatever")
    with pytest.raises(RuntimeError, match="maxmemory-policy"):
        server.start()
    assert not server.running


def test_a_port_that_is_taken_in_between_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    free = server_module.free_port()
    with socket.create_server(("127.0.0.1", 0)) as other, Server() as first:
        ports = iter([other.getsockname()[1], first.port, free])
        monkeypatch.setattr(server_module, "free_port", lambda: next(ports))
        with Server() as server:
            assert server.port == free
            assert server.pid != first.pid


@pytest.mark.parametrize("end", [Server.stop, Server.kill])
def test_a_server_that_has_ended_refuses_and_comes_back_empty_on_its_port(server: Server, end: object) -> None:
    assert callable(end)
    url, pid = server.url, server.pid
    server.command("SET", "a", 1)
    end(server)
    assert not server.running
    with pytest.raises(redis.ConnectionError, match="refused"):
        server.command("PING")
    server.restart()
    assert (server.url, server.command("EXISTS", "a")) == (url, 0)
    assert server.pid != pid


def test_a_restart_keeps_persisted_records(server: Server) -> None:
    server.command("CONFIG", "SET", "appendonly", "yes")
    server.command("CONFIG", "REWRITE")
    wait_until(lambda: not server.command("INFO", "persistence")["aof_rewrite_in_progress"], "the file is written")
    server.command("SET", "a", 1)
    server.restart()
    assert server.command("GET", "a") == "1"


def test_a_paused_server_runs_its_commands_when_it_goes_on(server: Server) -> None:
    with client(server.url, timeout=SOON) as old, client(server.url, timeout=SOON) as new:
        old.ping()
        server.pause()
        for each in (old, new):
            with pytest.raises(redis.TimeoutError):
                each.incr("a")
    assert server.running
    server.resume()
    wait_until(lambda: server.command("GET", "a") == "1", "the old connection's command is done")


def test_a_paused_server_can_be_paused_again_stopped_and_killed(server: Server) -> None:
    for end in (server.stop, server.kill):
        server.pause()
        server.pause()
        end()
        assert not server.running
        server.restart()


def test_nothing_is_left_of_a_closed_server(server: Server) -> None:
    pid, folder = server.pid, server.folder
    assert (folder / "redis.sock").is_socket()
    server.close()
    server.close()
    assert not folder.exists()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        server.pid  # noqa: B018


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="elsewhere the system does not end them")
def test_servers_end_with_the_tests_even_when_those_are_killed(tmp_path: Path) -> None:
    script = "from tests.support.servers import Server; print(Server().start().port, flush=True); input()"
    with subprocess.Popen(
        [sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    ) as tests:
        assert tests.stdout is not None
        port = int(tests.stdout.readline())
        assert not is_refused(port)
        tests.send_signal(signal.SIGKILL)
    wait_until(lambda: is_refused(port), "the server has ended")


def is_refused(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def test_a_server_speaks_tls_if_it_is_configured(tmp_path: Path) -> None:
    with Server("redis-7.0", **tls_options(tmp_path)) as server:
        with client(server.tls_url) as trusting:
            assert trusting.ping()
        with client(server.tls_url.partition("?")[0]) as doubting, pytest.raises(redis.ConnectionError, match="verify"):
            doubting.ping()


# Binaries


@pytest.mark.parametrize("kind", KINDS)
def test_without_a_binary_a_test_is_skipped_unless_all_is_required(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    for required, outcome in (("", pytest.skip), ("1", pytest.fail)):
        monkeypatch.setenv("REQUIRE_ALL", required)
        with pytest.raises((pytest.skip.Exception, pytest.fail.Exception), match=kind) as caught:
            Server(kind).start()
        assert caught.type is outcome.Exception


def test_an_unknown_kind_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"redis-7\.0"):
        Server("redis-0").start()


# A cluster


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    with Cluster() as cluster:
        yield cluster


def another(cluster: Cluster, than: Server) -> Server:
    return next(node for node in cluster.nodes if node is not than)


def first_line(node: Server, question: bytes) -> str:
    """The first line of the answer, as the server wrote it."""
    with socket.create_connection((node.host, node.port), timeout=5.0) as caller:
        caller.sendall(question + b"\r\n")
        return caller.makefile().readline().rstrip()


def test_every_slot_has_one_of_three_owners(cluster: Cluster) -> None:
    owners = [cluster.owner(slot) for slot in (0, 5460, 5461, 10921, 10922, 10923, 16383)]
    assert set(owners) == set(cluster.nodes)
    assert len(cluster.nodes) == 3
    assert cluster.url == "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in cluster.nodes)
    host, _, port = cluster.url.removeprefix("redis+cluster://").partition(",")[0].partition(":")
    with redis.RedisCluster(host, int(port)) as old:
        assert all(old.set(f"key {n}", n) for n in range(30))
    assert all(node.command("DBSIZE") for node in cluster.nodes)


def test_a_moved_slot_takes_its_keys_along_and_leaves_an_address(cluster: Cluster) -> None:
    slot = cluster.slot_of("a")
    owner = cluster.owner(slot)
    target = another(cluster, owner)
    for n in range(150):
        owner.command("SET", f"{{a}}{n}\udcff", n)
    cluster.move_slot(slot, target)
    assert cluster.owner(slot) is target
    assert target.command("GET", "{a}149\udcff") == "149"
    for node in cluster.nodes:
        if node is not target:
            assert first_line(node, b"GET a") == f"-MOVED {slot} 127.0.0.1:{target.port}"
    cluster.wait_until_ok()


def test_a_slot_on_the_move_answers_ask_for_keys_that_have_moved(cluster: Cluster) -> None:
    slot = cluster.slot_of("b")
    owner = cluster.owner(slot)
    target = another(cluster, owner)
    owner.command("SET", "b", 1)
    cluster.open_slot(slot, target)
    assert owner.command("GET", "b") == "1"
    cluster.carry_keys(slot, target)
    assert first_line(owner, b"GET b") == f"-ASK {slot} 127.0.0.1:{target.port}"
    assert first_line(target, b"GET b") == f"-MOVED {slot} 127.0.0.1:{owner.port}"
    with target.client() as asking, asking.pipeline(transaction=False) as both:
        assert both.execute_command("ASKING").execute_command("GET", "b").execute()[1] == "1"
    cluster.close_slot(slot, target)
    assert target.command("GET", "b") == "1"


def test_a_cluster_with_a_dead_master_is_down_until_it_is_back(cluster: Cluster) -> None:
    dead = cluster.owner(0)
    living = another(cluster, dead)
    dead.kill()
    wait_until(lambda: living.command("CLUSTER INFO")["cluster_state"] == "fail", "the others notice")
    dead.restart()
    cluster.wait_until_ok()
    assert cluster.owner(0) is dead


def test_a_replica_takes_over_from_a_dead_master() -> None:
    with Cluster(replicas=1) as cluster:
        master, replica = cluster.master_and_replica(0)
        assert (master.role, replica.role) == ("master", "slave")
        master.kill()
        wait_until(lambda: replica.role == "master" and cluster.owner(0) is replica, "the replica has its slots")
        master.restart()
        wait_until(lambda: master.role == "slave", "the old master follows the new one")


# Sentinels


def test_sentinels_put_the_replica_in_the_place_of_a_dead_master() -> None:
    with Sentinels() as sentinels:
        old, replica = sentinels.servers
        assert sentinels.master() is old
        old.kill()
        assert sentinels.wait_for_new_master(old) is replica
        addresses = sentinels.url.removeprefix("redis+sentinel://").removesuffix("/service").split(",")
        for host, _, port in (address.partition(":") for address in addresses):
            with redis.Redis(host=host, port=int(port), decode_responses=True) as sentinel:
                assert sentinel.sentinel_get_master_addr_by_name("service") == (replica.host, replica.port)
        assert len(addresses) == 3
