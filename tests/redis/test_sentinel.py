"""Sentinels: queried over TLS and with their own password, and the last master when none of them answers."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from redis.asyncio import Sentinel, SSLConnection

from asgi_ratelimit import Limiter, StoreUnavailable
from asgi_ratelimit.redis import RedisStore
from tests.support.listener import Listener
from tests.support.servers import Sentinels, Server, tls_options
from tests.support.servers.server import HOST
from tests.support.stores import PATIENCE, new_store

pytestmark = pytest.mark.anyio

PASSWORDS = {"server": "server-word", "sentinel": "sentinel-word"}


class Secure:
    """A master and its only sentinel, which speak TLS to each other and have different passwords."""

    def __init__(self, master: Server, sentinel: Server, options: dict[str, Any]) -> None:
        self.master, self.sentinel, self.options = master, sentinel, options

    def url(self, *, password: str = PASSWORDS["sentinel"], options: str = "", host: str = HOST) -> str:
        query = "&".join(filter(None, [f"ssl_ca_certs={self.options['tls_ca_cert_file']}", options]))
        query += f"&sentinel_password={password}" if password else ""
        return f"rediss+sentinel://:{PASSWORDS['server']}@{host}:{self.options['tls_port']}/service?{query}"


@pytest.fixture(autouse=True)
async def goodbye() -> AsyncIterator[None]:
    """TLS connections whose opening was cancelled get a moment to end before the event loop does."""
    yield
    await asyncio.sleep(0.05)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secure]:
    files = tls_options(tmp_path_factory.mktemp("tls"))
    ours, theirs = ({**files, "tls_port": tls_options(tmp_path_factory.mktemp("port"))["tls_port"]} for _ in range(2))
    words = {"requirepass": PASSWORDS["server"], "masterauth": PASSWORDS["server"]}
    watching = {**theirs, "tls_replication": "yes", "requirepass": PASSWORDS["sentinel"]}
    with Server("redis-7.0", **{**ours, **words}) as master, Server("redis-7.0", "--sentinel", **watching) as sentinel:
        sentinel.command("SENTINEL", "MONITOR", "service", HOST, str(ours["tls_port"]), 1)
        sentinel.command("SENTINEL", "SET", "service", "auth-pass", PASSWORDS["server"])
        yield Secure(master, sentinel, theirs)


async def reason(store: RedisStore) -> str:
    return (await Limiter("5/day", store=store).try_acquire("a")).reason


async def refusal(store: RedisStore) -> str:
    """The error of a check in a store that fails closed."""
    with pytest.raises(StoreUnavailable) as caught:
        await Limiter("5/day", store=store).try_acquire("a")
    return "".join(traceback.format_exception(caught.value))


# TLS and passwords


async def test_the_sentinels_are_queried_over_tls_and_with_their_own_password(secure: Secure) -> None:
    async with new_store(secure.url()) as store:
        assert await reason(store) == "ok"


async def test_a_sentinel_may_have_another_authority_than_the_server(secure: Secure, tmp_path: Path) -> None:
    other = tls_options(tmp_path)["tls_ca_cert_file"]
    async with new_store(secure.url(options=f"sentinel_ssl_ca_certs={other}")) as store:
        assert "CERTIFICATE_VERIFY_FAILED" in await refusal(store)
    right = secure.options["tls_ca_cert_file"]
    url = secure.url().replace("?ssl_ca_certs", "?sentinel_ssl_ca_certs")
    async with new_store(f"{url}&ssl_ca_certs={right}") as store:
        assert await reason(store) == "ok"


@pytest.mark.parametrize("password", ["", "wrong-word"])
async def test_a_sentinel_that_refuses_the_password_is_an_error_at_the_start(secure: Secure, password: str) -> None:
    store = new_store(secure.url(password=password))
    with pytest.raises(StoreUnavailable, match="a sentinel does not let us in") as caught:
        await store.start()
    text = "".join(traceback.format_exception(caught.value))
    assert not [word for word in (*PASSWORDS.values(), "wrong-word") if word in text]
    assert "sentinel_password" in text
    await store.aclose()


async def test_a_client_s_sentinels_are_queried_with_its_own_settings(secure: Secure) -> None:
    tls = {"ssl": True, "ssl_ca_certs": secure.options["tls_ca_cert_file"]}
    watching: Any = Sentinel(  # type: ignore[no-untyped-call]
        [(HOST, str(secure.options["tls_port"]))], sentinel_kwargs={**tls, "password": PASSWORDS["sentinel"]}
    )
    async with (
        watching.master_for("service", **tls, password=PASSWORDS["server"]) as client,
        new_store(client) as store,
    ):
        assert await reason(store) == "ok"


async def test_nothing_is_sent_in_plain_text_where_the_url_has_tls() -> None:
    with Listener(b"+OK\r\n") as listener:
        url = f"rediss+sentinel://:hunter2@{HOST}:{listener.port}/service?sentinel_password=hunter2"
        async with new_store(url) as store:
            await refusal(store)
    assert listener.received
    assert all(data[:1] == b"\x16" for data in listener.received)  # the first byte of a TLS handshake


async def test_a_stranger_in_the_place_of_a_sentinel_does_not_get_the_server_s_password() -> None:
    """It would name itself as the master."""
    with Listener(b"") as stranger:
        words = [b"name", b"service", b"ip", HOST.encode(), b"port", str(stranger.port).encode(), b"flags", b"master"]
        reply = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        with Listener(reply) as listener:
            async with new_store(f"rediss+sentinel://:hunter2@{HOST}:{listener.port}/service") as store:
                await refusal(store)
    assert stranger.received == []


@pytest.mark.parametrize("form", ["rediss://:{word}@{host}:{port}", "rediss+sentinel://:{word}@{host}:{port}/service"])
async def test_the_name_of_the_host_is_checked(tmp_path: Path, form: str) -> None:
    options = tls_options(tmp_path, host="elsewhere.example")
    with Server("redis-7.0", **options) as server:
        url = form.format(word="hunter2", host=HOST, port=options["tls_port"])
        store = new_store(f"{url}?ssl_ca_certs={options['tls_ca_cert_file']}")
        assert "certificate is not valid for" in await refusal(store)
        await store.aclose()
        with server.client() as client:
            assert client.dbsize() == 0


async def test_the_name_is_checked_and_not_the_address_that_it_has(tmp_path: Path) -> None:
    options = tls_options(tmp_path, host="localhost")
    with Server("redis-7.0", **options):
        for host, is_right in (("localhost", True), (HOST, False)):
            url = f"rediss://{host}:{options['tls_port']}?ssl_ca_certs={options['tls_ca_cert_file']}"
            async with new_store(url) as store:
                assert (await reason(store) == "ok") if is_right else ("not valid for" in await refusal(store))


async def test_no_warning_of_an_outage_has_a_password_in_it(caplog: pytest.LogCaptureFixture) -> None:
    events: list[Any] = []
    url = f"rediss+sentinel://ada:hunter2@{HOST}:1,{HOST}:2/service?sentinel_password=hunter3&sentinel_username=bob"
    async with new_store(url, on_event=events.append) as store:
        text = await refusal(store)
    assert "no sentinel answers" in caplog.text
    assert not [word for word in ("hunter2", "hunter3") if word in text + caplog.text + repr(events) + repr(store)]


# The master


async def test_a_service_that_no_sentinel_knows_is_named(steady_sentinels: Sentinels) -> None:
    async with new_store(steady_sentinels.url.replace("/service", "/other")) as store:
        assert "names no master of 'other' that is up" in await refusal(store)


async def test_the_last_master_is_tried_when_all_sentinels_are_gone(sentinels: Sentinels) -> None:
    events: list[Any] = []
    async with new_store(sentinels.url, on_event=events.append, outage="local") as store:
        assert await reason(store) == "ok"
        for each in sentinels.sentinels:
            each.kill()
        sentinels.servers[0].command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        async with asyncio.timeout(PATIENCE):
            while (await Limiter("5/day", store=store).peek("a")).reason == "degraded":
                await asyncio.sleep(0.01)
    assert "no sentinel answers" not in repr(events)


async def test_a_sentinel_that_answers_wrongly_is_passed_over(steady_sentinels: Sentinels) -> None:
    for reply in (b"+OK\r\n", b"*-1\r\n", b"*1\r\n$-1\r\n", b"*1000000000\r\n", b"-ERR no\r\n"):
        with Listener(reply) as listener:
            url = steady_sentinels.url.replace("//", f"//{HOST}:{listener.port},")
            async with new_store(url) as store:
                assert await reason(store) == "ok"


async def test_a_certificate_need_not_be_checked_with_any_version_of_redis_py(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """6.0 makes no context that checks the name of a certificate, and not the certificate."""
    options = tls_options(tmp_path, host="elsewhere.example")
    made = list[dict[str, Any]]()
    init = SSLConnection.__init__

    def note(connection: SSLConnection, **settings: Any) -> None:
        made.append(settings)
        init(connection, **settings)

    with Server("redis-7.0", **options):
        url = f"rediss://{HOST}:{options['tls_port']}?ssl_cert_reqs=none"
        async with new_store(url) as store:
            monkeypatch.setattr(SSLConnection, "__init__", note)
            assert await reason(store) == "ok"
            await store.aclose()
            assert await reason(store) == "ok"
    assert [settings["ssl_check_hostname"] for settings in made] == [False]
