"""The dashboard for Grafana: any installation can import it, and it asks for what there is, as Prometheus reads it."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from django.test import Client

from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.fixtures import *  # noqa: F403
from notifications.tests.test_alerts import promtool

DASHBOARD: dict[str, Any] = json.loads((BASE_DIR / "deploy" / "grafana.json").read_text())
PANELS: list[dict[str, Any]] = DASHBOARD["panels"]
SOURCE = {"type": "prometheus", "uid": "${datasource}"}

# What Grafana puts in their place.
VARIABLES = {"$__rate_interval": "5m", "$job": "iotsupport", "$instance": "a|b"}


def expressions() -> list[str]:
    return [target["expr"] for panel in PANELS for target in panel.get("targets", [])]


def labels_of(text: str) -> set[str]:
    return set(re.findall(r"(\w+)=[~\"]", text)) | {
        name for group in re.findall(r"by \(([\w, ]+)\)", text) for name in group.split(", ")
    }


def test_is_of_no_installation():
    assert (DASHBOARD["id"], DASHBOARD["uid"]) == (None, None)
    [source, *others] = DASHBOARD["templating"]["list"]
    assert (source["name"], source["type"], source["query"]) == ("datasource", "datasource", "prometheus")
    asked = [panel for panel in PANELS if panel["type"] != "row"]
    targets = [target for panel in asked for target in panel["targets"]]
    assert all(each["datasource"] == SOURCE for each in [*others, *asked, *targets])
    assert all('job=~"$job", instance=~"$instance"' in expression for expression in expressions())


def test_its_panels_have_a_place_each():
    places = [panel["gridPos"] for panel in PANELS]

    assert len({panel["id"] for panel in PANELS}) == len(PANELS)
    assert all(place["x"] >= 0 and place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        assert beside or one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
    for panel in PANELS:
        refs = [target["refId"] for target in panel.get("targets", [])]
        assert len(set(refs)) == len(refs)


@pytest.mark.processes
def test_promtool_reads_each_query(tmp_path: Path):
    rules = []
    for number, expression in enumerate(expressions()):
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)
        assert "$" not in expression
        rules.append({"record": f"panel:{number}", "expr": expression})
    file = tmp_path / "rules.json"  # which YAML takes in
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))

    assert f"SUCCESS: {len(rules)} rules found" in promtool("check", "rules", file)


@pytest.mark.django_db
def test_each_metric_and_label_is_there(signed_in: Client, directories: Any):
    signed_in.get("/configs")  # so that answers have been counted
    page = signed_in.get("/metrics").content.decode()

    found: dict[str, set[str]] = {}
    for name, labels in re.findall(r"^(\w+)(?:\{(.*)\})? ", page, re.MULTILINE):
        found.setdefault(name, set()).update(re.findall(r'(\w+)="', labels))
    asked = [*expressions(), *(each["definition"] for each in DASHBOARD["templating"]["list"][1:])]
    for text in asked:
        names = set(re.findall(r"\b(?:mqtt|iot|django)_\w+", text))
        assert names and names <= found.keys(), text
        of_these = {label for name in names for label in found[name]}
        assert labels_of(text) - {"job", "instance"} <= of_these, text
    legends = [(target["expr"], target["legendFormat"]) for panel in PANELS for target in panel.get("targets", [])]
    for expression, legend in legends:
        used = set(re.findall(r"\{\{(\w+)\}\}", legend))
        grouped = labels_of(expression) if " by (" in expression else {"instance", "version", "directory"}
        assert used <= grouped, legend
