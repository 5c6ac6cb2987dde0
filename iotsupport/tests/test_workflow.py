"""What runs at every push runs what people run, with nothing that could be another thing tomorrow."""

from __future__ import annotations

import re
from typing import Any

import yaml

from iotsupport.settings import BASE_DIR

TEXT = (BASE_DIR / ".github" / "workflows" / "test.yml").read_text()
WORKFLOW: dict[Any, Any] = yaml.safe_load(TEXT)
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
COMMANDS = [step["run"] for step in STEPS if "run" in step]


def test_runs_at_pushes_and_pull_requests_of_whoever():
    events = WORKFLOW[True]  # YAML 1.1 reads "on" so

    assert set(events) == {"push", "pull_request"}
    assert events["push"]["branches"] == ["**"]


def test_its_commands_are_those_of_the_makefile():
    targets = set(re.findall(r"^([a-z-]+):", (BASE_DIR / "Makefile").read_text(), re.MULTILINE))

    named = {target for command in COMMANDS for target in re.findall(r"^make ([a-z-]+)$", command, re.MULTILINE)}

    assert named == {"test", "upgrade-test"}
    assert named <= targets


def test_tries_each_python_that_the_readme_names():
    [named] = re.findall(r"tried are ([\d., and]+)\.\n", (BASE_DIR / "README.md").read_text())

    assert WORKFLOW["jobs"]["test"]["strategy"]["matrix"]["python"] == re.findall(r"\d\.\d+", named)


def test_actions_are_pinned_and_may_only_read():
    used = re.findall(r"uses: (\S+)(.*)", TEXT)

    assert len(used) == len(WORKFLOW["jobs"])
    assert all(re.fullmatch(r"actions/[a-z-]+@[0-9a-f]{40}", action) for action, _ in used)
    assert all(re.fullmatch(r" # v\d+\.\d+\.\d+", version) for _, version in used)
    assert WORKFLOW["permissions"] == {"contents": "read"}
    assert not any("permissions" in job for job in WORKFLOW["jobs"].values())
    assert all(step["with"]["persist-credentials"] is False for step in STEPS if "uses" in step)
    assert "secrets" not in TEXT


def test_what_others_can_name_gets_into_no_command():
    """A branch may be called anything; a shell reads what is put into its text."""
    assert not [command for command in COMMANDS if "${{" in command]
