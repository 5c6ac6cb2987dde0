"""What the documentation names is there: files, tests, other pages and places in them."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from urllib.parse import unquote

import pytest

from iotsupport.settings import BASE_DIR

PAGES = sorted([*BASE_DIR.glob("*.md"), *BASE_DIR.glob("docs/**/*.md"), *BASE_DIR.glob("deploy/**/*.md")])

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# In backquotes: a path from the root, or the name of a file beside the last one that was named with its directory.
NAMED = re.compile(r"`([\w.-]+(?:/[\w.-]+)*/?(?:::test_\w+)?)`")
KINDS = ("py", "md", "html", "js", "css", "conf", "toml", "yml", "yaml", "txt", "service")
# Made when something runs, or somebody else's.
NOT_OURS = {
    "acl_file",
    "blobs/",
    "data/",
    "docs/coverage.md",
    "mosquitto.conf",
    "password_file",
    "pip.conf",
    "postgresql.conf",
}


def text_of(page: Path) -> str:
    """Without blocks of code: those show what people type and get."""
    return re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


@cache
def anchors_of(page: Path) -> set[str]:
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", text_of(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def ids(page: Path) -> str:
    return str(page.relative_to(BASE_DIR))


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for target in LINK.findall(text_of(page)):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        there = (page.parent / path).resolve() if path else page
        if not there.exists() or (anchor and anchor not in anchors_of(there)):
            broken.append(target)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=ids)
def test_files_and_tests_that_are_named_exist(page: Path) -> None:
    missing = []
    for named in NAMED.findall(text_of(page)):
        path, _, test = named.partition("::")
        if not is_file_name(path) or path in NOT_OURS:
            continue
        found = find(path)
        if not found or (test and not any(f"def {test}(" in each.read_text() for each in found)):
            missing.append(named)
    assert not missing


def is_file_name(text: str) -> bool:
    return text.endswith("/") or text.rpartition(".")[2] in KINDS


def find(path: str) -> list[Path]:
    """Files of that path, or of that name wherever they are."""
    here = BASE_DIR / path
    if here.exists():
        return [here]
    return [BASE_DIR / name for name in tracked_files() if name.endswith(f"/{path}")] if "/" not in path else []


@cache
def tracked_files() -> list[str]:
    return [
        str(path.relative_to(BASE_DIR))
        for top in ["assets", "benchmarks", "deploy", "devices", "docs", "iotsupport", "notifications", "templates"]
        for path in (BASE_DIR / top).rglob("*")
        if path.is_file()
    ]
