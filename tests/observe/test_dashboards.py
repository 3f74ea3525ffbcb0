"""The alerts and the dashboard: each metric and label that they name is exported, and promtool accepts the rules."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml

from asgi_ratelimit.events import AnsweredBy
from asgi_ratelimit.observe.metrics import METRICS, Metric

ROOT = Path(__file__).parents[2]
RULES = ROOT / "contrib" / "prometheus"
ALERTS = RULES / "alerts.yml"
DASHBOARD = ROOT / "contrib" / "grafana" / "asgi_ratelimit.json"
PAGE = ROOT / "docs" / "operating.md"

COLUMNS = 24  # of a dashboard
OF_SCRAPE = {"job", "instance"}  # the labels that Prometheus adds
PARTS = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
EXPORTED = {metric.name + part: metric for metric in METRICS for part in PARTS[metric.kind]}
_NAME = re.compile(r"\b(?:ratelimit|discord)_\w+")
_SELECTOR = re.compile(r"(\w+)\{([^}]*)\}")
_MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
_GROUPING = re.compile(r"\bby \(([^)]*)\)")
_OUTCOMES = {"allowed", "limited", "blocked", "shadow", "exempt", "unavailable", "shed", "gone"}


def alerts() -> list[dict[str, Any]]:
    document = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(DASHBOARD.read_text(encoding="utf-8"))
    return document


def panels() -> list[dict[str, Any]]:
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """Those of the alerts and of the dashboard, its variables replaced."""
    yield from (rule["expr"] for rule in alerts())
    for panel in panels():
        yield from (plain(target["expr"]) for target in panel["targets"])


def plain(expression: str) -> str:
    durations = expression.replace("$__rate_interval", "5m").replace("$__range", "1h")
    return durations.replace("$job", ".*").replace("$limiter", ".*")


def metrics_in(expression: str) -> set[Metric]:
    """KeyError for a metric that is not exported."""
    return {EXPORTED[name] for name in _NAME.findall(re.sub(r'"[^"]*"', '""', expression))}


EXPRESSIONS = sorted(set(expressions()))


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_metric_is_exported(expression: str) -> None:
    assert metrics_in(expression)


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_every_label_is_one_of_its_metric(expression: str) -> None:
    for name, matchers in _SELECTOR.findall(expression):
        for label, _, value in _MATCHER.findall(matchers):
            assert label in {*EXPORTED[name].labels, *OF_SCRAPE}
            assert label != "outcome" or set(value.split("|")) <= _OUTCOMES
    for grouping in _GROUPING.findall(expression):
        labels = {label.strip() for label in grouping.split(",")} - {"le"} - OF_SCRAPE
        for metric in metrics_in(expression):
            assert labels <= set(metric.labels)


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {metric for panel in panels() for target in panel["targets"] for metric in metrics_in(target["expr"])}
    assert shown == set(METRICS)


def test_the_variables_of_the_dashboard_exist() -> None:
    text = DASHBOARD.read_text(encoding="utf-8")
    variables = {variable["name"] for variable in dashboard()["templating"]["list"]}
    assert set(re.findall(r"\$\{?(?!__)(\w+)", text)) == variables == {"datasource", "job", "limiter"}
    assert {EXPORTED[name].name for name in _NAME.findall(json.dumps(dashboard()["templating"]))}


def test_the_panels_fill_the_width_and_do_not_overlap() -> None:
    places = [panel["gridPos"] for panel in dashboard()["panels"]]
    for one, other in combinations(places, 2):
        apart = (
            one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        )  # fmt: skip
        assert apart, (one, other)
    for line in {place["y"] for place in places}:
        assert sum(place["w"] for place in places if place["y"] == line) == COLUMNS


def test_every_panel_says_what_it_shows() -> None:
    assert len({panel["id"] for panel in dashboard()["panels"]}) == len(dashboard()["panels"])
    for panel in panels():
        assert panel["title"], panel["id"]
        assert panel["description"], panel["title"]


@pytest.mark.parametrize("rule", alerts(), ids=lambda rule: str(rule["alert"]))
def test_every_alert_says_what_to_do(rule: dict[str, Any]) -> None:
    assert set(rule["annotations"]) == {"summary", "description", "runbook_url"}
    assert rule["labels"]["severity"] in {"info", "warning", "critical"}
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert page == "https://asgi-ratelimit-discord.readthedocs.io/en/latest/operating/"
    assert anchor == rule["alert"].lower()
    assert f"\n### {rule['alert']}\n" in PAGE.read_text(encoding="utf-8")


def test_every_alert_fires_in_a_test_of_its_own() -> None:
    tests = yaml.safe_load((RULES / "alerts_test.yml").read_text(encoding="utf-8"))["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"]]
    assert {case["alertname"] for case in cases if case["exp_alerts"]} == {rule["alert"] for rule in alerts()}


# The page


def rows(first: str) -> list[list[str]]:
    """The cells of the table whose first column is called so."""
    table = PAGE.read_text(encoding="utf-8").partition(f"\n| {first} |")[2].partition("\n\n")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()[2:]]


def test_the_page_lists_the_metrics_with_their_labels() -> None:
    listed = {row[0].strip("`"): tuple(re.findall(r"`(\w+)`", row[1])) for row in rows("metric")}
    assert listed == {metric.name: metric.labels for metric in METRICS}


def test_the_page_lists_the_values_of_labels() -> None:
    assert {row[0].strip("`") for row in rows("`outcome`")} == _OUTCOMES
    assert {row[0].strip("`") for row in rows("`answered_by`")} == set(get_args(AnsweredBy))


def test_the_page_lists_the_alerts_with_their_severity() -> None:
    listed = {re.findall(r"\w+", row[0])[0]: row[1] for row in rows("alert")}
    assert listed == {rule["alert"]: rule["labels"]["severity"] for rule in alerts()}


# promtool


@pytest.fixture(scope="module")
def promtool() -> str:
    found = shutil.which("promtool")
    if found is not None:
        return found
    if os.environ.get("REQUIRE_ALL") == "1":
        pytest.fail("promtool is not installed")
    pytest.skip("promtool is not installed")


def run(promtool: str, *arguments: str | Path) -> None:
    ended = subprocess.run([promtool, *arguments], cwd=RULES, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_promtool_finds_no_fault_in_the_rules(promtool: str) -> None:
    run(promtool, "check", "rules", ALERTS)


def test_the_alerts_fire_when_they_should(promtool: str) -> None:
    run(promtool, "test", "rules", "alerts_test.yml")


def test_the_expressions_of_the_dashboard_can_be_evaluated(promtool: str, tmp_path: Path) -> None:
    rules = [{"record": f"panel:{number}", "expr": expression} for number, expression in enumerate(EXPRESSIONS)]
    file = tmp_path / "dashboard.yml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}), encoding="utf-8")
    run(promtool, "check", "rules", file)
