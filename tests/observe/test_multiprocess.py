"""Prometheus with several workers: what any of them answers is the sum over all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from prometheus_client.multiprocess import MultiProcessCollector

from tests.docs.markdown import DOCS, blocks
from tests.observe.scrapes import samples_in
from tests.support.asgi_servers import ROOT, SECONDS, ServerProcess, served, wait_for
from tests.support.servers import Server, wait_until

COMMAND = ("uvicorn", "--port", "{port}", "--workers", "2", "documented_app:app")
ROUND = 150  # requests


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the workers write their counts."""
    folder = tmp_path / "metrics"
    folder.mkdir()
    return folder


@pytest.fixture
def server(any_redis: Server, folder: Path, tmp_path: Path) -> Iterator[ServerProcess]:
    """The app of the documentation, with two workers."""
    source = next(block.source for block in blocks(DOCS / "operating.md") if "MultiProcessCollector" in block.source)
    source = source.replace("redis://localhost:6379", any_redis.url)
    tmp_path.joinpath("documented_app.py").write_text(source, encoding="utf-8")
    environment = {"PROMETHEUS_MULTIPROC_DIR": str(folder)}
    with served(COMMAND, tmp_path / "log", environment=environment, cwd=tmp_path) as server:
        wait_for(server)
        yield server


def counted(files: list[Path]) -> Counter[str]:
    """The decisions in these files by their outcome."""
    outcomes: Counter[str] = Counter()
    for family in MultiProcessCollector.merge([str(file) for file in files]):
        for sample in family.samples:
            if sample.name == "ratelimit_decisions_total":
                outcomes[sample.labels["outcome"]] += int(sample.value)
    return +outcomes


def workers(folder: Path) -> list[Path]:
    """The files of the workers that have decided anything."""
    return [file for file in sorted(folder.glob("counter_*.db")) if counted([file])]


def request_many(server: ServerProcess) -> Counter[int]:
    """How often the server answered with each status."""
    with ThreadPoolExecutor(8) as threads:
        return Counter(threads.map(lambda _: server.get("/")[0].status, range(ROUND)))


def test_the_counts_of_two_workers_add_up_to_the_load(server: ServerProcess, folder: Path) -> None:
    statuses: Counter[int] = Counter()

    def both_have_decided() -> bool:
        statuses.update(request_many(server))
        return len(workers(folder)) == 2

    wait_until(both_have_decided, "both workers have decided", seconds=SECONDS)
    assert {*statuses} == {404, 429}  # the app has no page at /
    for scrapes in (1, 2, 3):  # of whichever worker
        response, body = server.get("/metrics")
        assert response.status == 200
        assert "text/plain" in response.headers["content-type"]
        samples = samples_in(body.decode())
        outcomes: Counter[str] = Counter()
        for labels, value in samples["ratelimit_decisions_total"]:
            assert set(labels) == {"limiter", "outcome", "answered_by"}
            outcomes[labels["outcome"]] += int(value)
        assert outcomes == {"allowed": statuses[404], "limited": statuses[429], "exempt": scrapes}
        assert [value for _, value in samples["ratelimit_store_up"]] == [1.0]
        assert "127.0.0.1/" not in body.decode()
    server.terminate()
    assert "Traceback" not in server.output
    assert list(folder.glob("gauge_live*")) == []  # of workers that have ended
    assert counted(sorted(folder.glob("counter_*.db"))) == outcomes


FORKED = """
import os, sys
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from asgi_ratelimit.observe import Event, PrometheusObserver

observer = PrometheusObserver()
observer.introduce("redis")
observer(Event("allowed", "app"))
registry = CollectorRegistry()
MultiProcessCollector(registry)

def in_child(*events):
    child = os.fork()
    if not child:
        for event in events:
            observer(event)
        os._exit(0)
    os.waitpid(child, 0)
    labels = {"limiter": "app", "outcome": "allowed", "answered_by": "store"}
    print(registry.get_sample_value("ratelimit_decisions_total", labels))
    print(registry.get_sample_value("ratelimit_store_up", {"store": "redis"}))

in_child(Event("allowed", "app"))
in_child(Event("allowed", "app"), Event("down", node="redis"))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_forked_worker_counts_for_itself_and_reaches_the_server_until_it_reports_an_outage(folder: Path) -> None:
    environment = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    ended = subprocess.run([sys.executable, "-c", FORKED], env=environment, capture_output=True, text=True, check=False)
    assert ended.stdout.split() == ["2.0", "1.0", "3.0", "0.0"], ended.stderr
