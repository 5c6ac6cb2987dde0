"""``make release VERSION=1.2.3``: refused, and nothing changed; or a commit and a tag, and nothing is sent."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

from iotsupport import __version__
from iotsupport.settings import BASE_DIR

pytestmark = pytest.mark.processes

FILES = ["CHANGELOG.md", "Makefile", "iotsupport/__init__.py", ".ci/release.py"]
SECTION = "- A thing.\n\n### Upgrading\n\nNothing but the usual steps."
CHANGELOG = f"# Changelog\n\n## Unreleased\n\n{SECTION}\n\n## 0.0.1 (2026-01-01)\n\n- The first.\n"
NEXT = "99.0.1"


class Checkout:
    """A repository of its own with what a release is made of."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in FILES:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(BASE_DIR / name, root / name)
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("all of it")

    def git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.root), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self, message: str) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)

    def write(self, name: str, text: str) -> None:
        (self.root / name).write_text(text)
        self.commit(name)

    def everything(self) -> list[str]:
        return [
            self.git(*ask.split())
            for ask in ["for-each-ref", "status --porcelain", "rev-parse --symbolic-full-name HEAD"]
        ]


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkout:
    for name in ["GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"]:
        monkeypatch.setenv(name, "/dev/null")
    for name in ["GIT_AUTHOR", "GIT_COMMITTER"]:
        monkeypatch.setenv(f"{name}_NAME", "Ada")
        monkeypatch.setenv(f"{name}_EMAIL", "ada@example.com")
    return Checkout(tmp_path)


@pytest.fixture(scope="session")
def tool() -> ModuleType:
    """Not in a package: it runs before anything is installed."""
    spec = importlib.util.spec_from_file_location("release_tool", BASE_DIR / ".ci" / "release.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def make_release(checkout: Checkout, version: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", "-C", str(checkout.root), "release", f"VERSION={version}"]
    return subprocess.run(command, capture_output=True, text=True)


def test_sets_the_version_names_the_section_commits_and_tags(checkout: Checkout, tool: ModuleType):
    checkout.write("CHANGELOG.md", CHANGELOG)
    before = checkout.git("rev-parse", "HEAD")

    said = tool.release(checkout.root, NEXT, "2026-12-24")

    assert f'__version__ = "{NEXT}"' in (checkout.root / "iotsupport/__init__.py").read_text()
    assert (checkout.root / "CHANGELOG.md").read_text() == CHANGELOG.replace(
        "## Unreleased\n", f"## Unreleased\n\n## {NEXT} (2026-12-24)\n"
    )
    assert checkout.git("rev-parse", "HEAD^") == before
    assert checkout.git("log", "-1", "--format=%s") == f"Release {NEXT}"
    assert checkout.git("show", "--format=", "--name-only").split() == ["CHANGELOG.md", "iotsupport/__init__.py"]
    assert checkout.git("cat-file", "-t", f"v{NEXT}") == "tag"
    assert checkout.git("rev-parse", f"v{NEXT}^{{commit}}") == checkout.git("rev-parse", "HEAD")
    assert checkout.git("tag", "--list", "--format=%(contents)") == f"IoT Support {NEXT}\n\n{SECTION}"
    assert checkout.git("status", "--porcelain") == ""
    assert f"git push --atomic origin main v{NEXT}" in said


def test_what_there_is_to_release_can_be_released_once(checkout: Checkout):
    done = make_release(checkout, NEXT)
    again = make_release(checkout, NEXT)

    assert done.returncode == 0, done.stderr
    assert checkout.git("tag", "--list") == f"v{NEXT}"
    assert again.returncode != 0
    assert f"No release: There is a tag of {NEXT} already." in again.stderr


def test_says_how_to_name_one_where_none_is_named(checkout: Checkout):
    done = make_release(checkout, "")

    assert done.returncode != 0
    assert "No release: '' is no version. Give three numbers without leading zeros, as in VERSION=1.2.3" in done.stderr


@pytest.mark.parametrize(
    "version",
    [
        "1",
        "1.2",
        "1.2.3.4",
        "01.2.3",
        "1.2.3rc1",
        "1.2.3-rc.1",
        "v1.2.3",
        "1.2.3\n",
        "1.2.٣",
        "-1.2.3",
        "1.2.3+x",
        "$(id)",
    ],
)
def test_refuses_what_is_no_version(tool: ModuleType, tmp_path: Path, version: str):
    with pytest.raises(tool.Refused, match="is no version"):
        tool.release(tmp_path, version, "")


def tag_it(checkout: Checkout) -> None:
    checkout.git("tag", f"v{NEXT}")


def tag_a_later_one(checkout: Checkout) -> None:
    checkout.git("tag", "v99.0.10")


def change_a_file(checkout: Checkout) -> None:
    (checkout.root / "Makefile").write_text("")


def add_a_file(checkout: Checkout) -> None:
    (checkout.root / "new file").touch()


def leave_main(checkout: Checkout) -> None:
    checkout.git("switch", "--quiet", "--create", "topic")


def be_nowhere(checkout: Checkout) -> None:
    checkout.git("switch", "--quiet", "--detach")


def changelog(text: str) -> Callable[[Checkout], None]:
    return lambda checkout: checkout.write("CHANGELOG.md", text)


def version_line(text: str) -> Callable[[Checkout], None]:
    return lambda checkout: checkout.write("iotsupport/__init__.py", text)


@pytest.mark.parametrize(
    ("break_it", "said"),
    [
        (tag_it, f"There is a tag of {NEXT} already"),
        (tag_a_later_one, f"{NEXT} is not higher than 99.0.10, which there is"),
        (version_line(f'__version__ = "{NEXT}"\n'), f"{NEXT} is not higher than {NEXT}, which there is"),
        (version_line("VERSION = 1\n"), "has no line such as: __version__ = "),
        (changelog(CHANGELOG.replace("0.0.1", "100.0.0")), f"{NEXT} is not higher than 100.0.0"),
        (change_a_file, "Not committed: Makefile. Commit, stash or remove that first."),
        (add_a_file, 'Not committed: "new file". Commit'),
        (leave_main, "This is topic. Releases are made of main: git switch main"),
        (be_nowhere, "This is no branch"),
        (changelog("# Changelog\n"), "has no section '## Unreleased'"),
        (changelog(CHANGELOG.replace(SECTION, "")), "The section Unreleased of CHANGELOG.md is empty"),
        (changelog(CHANGELOG.replace(SECTION, "### Upgrading\n")), "The section Unreleased of CHANGELOG.md is empty"),
        (changelog(CHANGELOG.replace(SECTION, "- A thing.\n")), "does not say what an administrator has to do"),
    ],
)
def test_refuses_and_changes_nothing(
    checkout: Checkout, tool: ModuleType, break_it: Callable[[Checkout], None], said: str
):
    break_it(checkout)
    before = checkout.everything()

    with pytest.raises(tool.Refused) as refused:
        tool.release(checkout.root, NEXT, "2026-12-24")

    assert said in str(refused.value)
    assert checkout.everything() == before


@pytest.mark.parametrize("hook", ["pre-commit", "reference-transaction"])
def test_takes_back_what_git_does_not_finish(checkout: Checkout, tool: ModuleType, hook: str):
    """What checks a commit refuses it; or there is a commit, and the tag cannot be written."""
    before = checkout.everything()
    path = checkout.root / ".git" / "hooks" / hook
    path.parent.mkdir(exist_ok=True)
    refuses = 'echo "not now" >&2; exit 1'
    path.write_text(f'#!/bin/sh\nif [ -z "$1" ] || grep -q refs/tags; then {refuses}; fi\n')
    path.chmod(0o755)

    with pytest.raises(tool.Refused, match="not now"):
        tool.release(checkout.root, NEXT, "2026-12-24")

    path.unlink()
    assert checkout.everything() == before


def test_the_version_is_one(tool: ModuleType):
    assert tool.VERSION.fullmatch(__version__)
    assert 'dynamic = ["version"]' in (BASE_DIR / "pyproject.toml").read_text()
