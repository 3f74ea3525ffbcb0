"""`asgi-ratelimit doctor` on real servers: well, and in each way in which they are not."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from asgi_ratelimit.cli.examination.of_redis import latency
from tests.support.command import Ended, asgi_ratelimit
from tests.support.servers import Cluster, Proxy, Sentinels, Server

RIGHTS = ("+eval", "+evalsha", "+get", "+set", "+del", "+time", "~ratelimit:*")
CALM = ("--store-timeout", "30")  # the machine may be busy


def doctor(url: str, *options: str) -> Ended:
    return asgi_ratelimit("doctor", "--redis", url, *CALM, *options)


def found(ended: Ended) -> dict[str, Any]:
    """The findings of a report in JSON, by what they are about."""
    return {finding["about"]: finding for finding in ended.json["findings"]}


def not_well(ended: Ended) -> dict[str, str]:
    return {about: finding["level"] for about, finding in found(ended).items() if finding["level"] != "ok"}


@pytest.fixture
def user(any_redis: Server) -> Iterator[Server]:
    yield any_redis
    any_redis.command("ACL", "DELUSER", "app")


def url_of_user(server: Server, *rights: str) -> str:
    server.command("ACL", "SETUSER", "app", "reset", "on", ">hush", "-@all", *rights)
    return f"redis://app:hush@127.0.0.1:{server.port}"


def test_a_server_that_is_well(redis_server: Server) -> None:
    ended = doctor(redis_server.url)
    lines = ended.out.splitlines()
    assert ended.code == 0
    assert lines[0] == f"Redis: 127.0.0.1:{redis_server.port}"
    assert [line.split()[:2] for line in lines if line.startswith("ok")] == [
        ["ok", about]
        for about in ("connection", "transport", "version", "role", "eviction", "room", "clock", "checks", "latency")
    ]
    assert lines[-1] == "Well."
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in ended.out
    name, version = redis_server.kind.split("-")
    assert f"version {name.capitalize()} {version}" in ended.text


def test_it_leaves_nothing_behind(any_redis: Server) -> None:
    assert doctor(any_redis.url, "--prefix", "mine").code == 0
    assert any_redis.command("KEYS", "*") == []


def test_colours_say_nothing_that_words_do_not(any_redis: Server) -> None:
    ended = asgi_ratelimit("doctor", "--redis", any_redis.url, *CALM, FORCE_COLOR="1")
    assert "\x1b[32mok" in ended.out
    grey = asgi_ratelimit("doctor", "--redis", any_redis.url, *CALM, FORCE_COLOR="1", NO_COLOR="1")
    assert "\x1b[32m" not in grey.out


def test_a_server_that_evicts_is_not_well() -> None:
    with Server(maxmemory="100mb", maxmemory_policy="allkeys-lru") as server:
        text, ended = doctor(server.url), doctor(server.url, "--json")
    assert text.code == ended.code == 1
    assert not_well(ended) == {"eviction": "bad"}
    assert ended.json["well"] is False
    assert "bad eviction allkeys-lru: a full server throws buckets and blocks away" in text.text
    assert "-> Set maxmemory-policy noeviction" in text.text
    assert text.out.splitlines()[-1] == "Not well: 1 bad."


def test_a_full_server_is_not_well() -> None:
    with Server() as server:
        server.command("SET", "a", "x" * 3_000_000)
        server.command("CONFIG", "SET", "maxmemory", "3000000")
        ended = doctor(server.url, "--json")
    assert ended.code == 1
    assert not_well(ended) == {"room": "bad", "checks": "bad"}
    assert "maxmemory" in found(ended)["checks"]["says"]


def test_the_rights_of_the_docs_are_enough_and_what_is_unknown_is_a_warning(user: Server) -> None:
    ended = doctor(url_of_user(user, *RIGHTS), "--json")
    assert ended.code == 0
    assert not_well(ended) == dict.fromkeys(("version", "eviction", "room"), "warning")
    assert found(ended)["checks"]["level"] == "ok"


@pytest.mark.parametrize("missing", ["+evalsha", "+set", "~ratelimit:*"])
def test_a_right_that_is_missing_is_named(user: Server, missing: str) -> None:
    url = url_of_user(user, "+info", *(right for right in RIGHTS if right != missing))
    text, ended = doctor(url), doctor(url, "--json")
    assert ended.code == 1
    assert not_well(ended) == {"checks": "bad"}
    assert ("key" if missing[0] == "~" else f"'{missing[1:]}'") in found(ended)["checks"]["says"]
    assert f"+eval +evalsha +get +set +del +time {RIGHTS[-1]}" in text.text
    assert "hush" not in text.text + ended.out


def test_the_prefix_is_the_one_that_is_tried(user: Server) -> None:
    url = url_of_user(user, "+info", *RIGHTS)
    assert doctor(url, "--prefix", "mine").code == 1


def test_a_wrong_password_is_not_well(user: Server) -> None:
    url = url_of_user(user, *RIGHTS).replace("hush", "guess")
    ended = doctor(url)
    assert ended.code == 1
    assert "bad connection" in ended.text
    assert "guess" not in ended.text


def test_no_server_is_one_line(any_redis: Server) -> None:
    ended = doctor("redis://app:hush@127.0.0.1:1", "--json")
    assert ended.code == 1
    assert [finding["says"] for finding in ended.json["findings"]] == [
        "127.0.0.1:1 does not answer as it should: Connection refused."
    ]


def test_a_port_of_something_else_is_not_well(proxy: Proxy) -> None:
    proxy.reply(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    ended = doctor(proxy.url)
    assert ended.code == 1
    assert ended.out.splitlines()[-1] == "Not well: 1 bad."


@pytest.mark.parametrize(("seconds", "level"), [(-20, "warning"), (3600, "bad")])
def test_a_clock_that_is_off(proxy: Proxy, any_redis: Server, seconds: int, level: str) -> None:
    now = int(any_redis.command("TIME")[0]) + seconds
    proxy.reply(b"*2\r\n$%d\r\n%d\r\n$1\r\n0\r\n" % (len(str(now)), now), to=["TIME"])
    ended = doctor(proxy.url, "--json")
    assert not_well(ended) == {"clock": level}
    assert ended.code == (1 if level == "bad" else 0)
    assert "NTP" in found(ended)["clock"]["advice"]


def test_a_cluster_and_its_nodes(cluster: Cluster) -> None:
    ended = doctor(cluster.url)
    assert ended.code == 0
    assert "ok cluster 3 masters have all 16384 slots." in ended.text
    node = doctor(cluster.nodes[0].url, "--json")
    assert node.code == 1
    assert found(node)["role"]["advice"] == f"Write redis+cluster://127.0.0.1:{cluster.nodes[0].port}."


def test_a_single_server_is_no_cluster(any_redis: Server) -> None:
    ended = doctor(f"redis+cluster://127.0.0.1:{any_redis.port}")
    assert ended.code == 1
    assert "it is no cluster: write the URL without +cluster" in ended.text


def test_sentinels_their_master_and_its_replica(steady_sentinels: Sentinels) -> None:
    assert "role The master that the sentinels name." in doctor(steady_sentinels.url).text
    replica = next(server for server in steady_sentinels.servers if server.role == "slave")
    assert not_well(doctor(replica.url, "--json"))["role"] == "bad"
    sentinel = doctor(steady_sentinels.sentinels[0].url, "--json")
    assert "redis+sentinel://" in found(sentinel)["role"]["advice"]


def test_tls(tls_server: Server) -> None:
    assert "ok transport TLS, with a certificate that is checked." in doctor(tls_server.tls_url).text
    url, _, authority = tls_server.tls_url.partition("?")
    unchecked = doctor(f"{url}?ssl_cert_reqs=none", "--json")
    assert not_well(unchecked) == {"transport": "warning"}
    unknown = doctor(url, "--json")
    assert unknown.code == 1
    assert "ssl_ca_certs" in found(unknown)["connection"]["advice"]
    assert authority


def test_a_unix_socket(any_redis: Server) -> None:
    assert "ok transport A socket of this machine." in doctor(any_redis.unix_url).text


def test_latency_is_compared_with_the_timeout_of_the_store() -> None:
    quick, slow = [0.001] * 98, 0.06
    assert latency([*quick, slow, slow], 0.5).level == "ok"
    assert latency([*quick, slow, slow], 0.1).level == "warning"
    assert latency([*quick, slow, slow], 0.05).level == "bad"
    assert "1.00 ms (p50), 60.00 ms (p99) from here; 100 were made" in latency([*quick, slow, slow], 1.0).says


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "what to look at?"),
        (["localhost:6379"], "redis://"),
        (["ftp://localhost"], "a RedisStore takes"),
        (["--redis", "redis://h:x"], "the port of a server"),
        (["--redis", "redis://h", "--store-timeout", "0"], "--store-timeout"),
        (["http://"], "a URL of an app"),
        (["http://[", "--json"], "a URL of an app"),
        (["http://a", "--header", "hush"], "a header is written"),
        (["http://a", "--header", "@/no/file"], "No such file"),
    ],
)
def test_a_wrong_call_is_a_sentence_and_the_exit_code_2(arguments: list[str], says: str) -> None:
    ended = asgi_ratelimit("doctor", *arguments)
    assert ended.code == 2
    assert says in ended.err
    assert "hush" not in ended.err
    assert ended.out == ""
