"""The alert rules for Prometheus: promtool takes them, they fire when they should, and they know our metrics."""

from __future__ import annotations

import re
import subprocess
from typing import Any

import pytest
from django.test import Client

from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.fixtures import *  # noqa: F403
from iotsupport.tests.support.waiting import LIMIT

RULES = BASE_DIR / "deploy" / "prometheus-alerts.yml"
TESTS = sorted((BASE_DIR / "deploy").glob("*.test.yml"))


def promtool(*arguments: Any) -> str:
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=LIMIT)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def alerts() -> list[str]:
    return re.findall(r"- alert: (\w+)", RULES.read_text())


@pytest.mark.processes
def test_promtool_takes_the_rules():
    assert f"SUCCESS: {len(alerts())} rules found" in promtool("check", "rules", RULES)


@pytest.mark.processes
def test_the_alerts_fire_when_they_should_and_not_otherwise():
    assert "SUCCESS" in promtool("test", "rules", *TESTS)


@pytest.mark.parametrize("alert", alerts())
def test_each_alert_is_seen_firing(alert: str):
    tests = "".join(path.read_text() for path in TESTS)

    assert f'alertname="{alert}", alertstate="firing", severity=' in tests or re.search(
        rf'alertname: {alert}\n +exp_alerts|alertname="{alert}"[^\n]*\n[^\n]*\n +exp_samples', tests
    )


@pytest.mark.django_db
def test_each_metric_that_the_rules_ask_for_is_there(signed_in: Client, directories: Any):
    signed_in.get("/configs")  # so that answers have been counted
    page = signed_in.get("/metrics").content.decode()

    expressions = re.findall(r"expr: (.+?)\n +for:", RULES.read_text(), re.DOTALL)
    names = set(re.findall(r"\b(?:mqtt|iot|django)_\w+", " ".join(expressions)))
    assert len(expressions) == len(alerts())
    assert names >= {"mqtt_owed_announcements", "mqtt_acknowledgements_total", "iot_config_operations_total"}
    assert {name for name in names if f"\n{name}{{" not in page and f"\n{name} " not in page} == set()


@pytest.mark.django_db
def test_each_label_that_the_rules_ask_for_is_there(client: Client, directories: Any):
    page = client.get("/metrics").content.decode()

    outcomes = set(re.findall(r'outcome="(\w+)"', page))
    wanted = re.findall(r'outcome=~?"([\w|]+)"', RULES.read_text())
    assert {outcome for group in wanted for outcome in group.split("|")} | {"success"} == outcomes
