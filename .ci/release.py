"""Make a release of what is on main: ``make release VERSION=1.2.3``.

Sets the version, turns the changelog's section Unreleased into the version's, commits both and tags that commit with
the section as its message. It needs nothing but Python and git, sends nothing anywhere, and says how to. Whatever it
refuses, it refuses before it changes anything.
"""

from __future__ import annotations

import re
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

BRANCH = "main"
CHANGELOG = Path("CHANGELOG.md")
# The one place where the version stands.
VERSION_FILE = Path("iotsupport/__init__.py")

# Of Semantic Versioning 2.0.0 what is also a version of Python's (PEP 440), in the same spelling.
NUMBER = "(?:0|[1-9][0-9]{0,5})"
VERSION = re.compile(rf"{NUMBER}\.{NUMBER}\.{NUMBER}")
VERSION_LINE = re.compile(rf'^__version__ = "({VERSION.pattern})"$', re.MULTILINE)
UNRELEASED = re.compile(r"^## Unreleased[ \t]*\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
# What has to be done is said also where that is little.
UPGRADING = re.compile(r"^### Upgrading[ \t]*\n+(?!#)\S", re.MULTILINE)


class Refused(Exception):
    """Why there is no release: a sentence that says what to do."""


class Repository:
    """The git repository of a directory."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def git(self, *arguments: str, text: str = "") -> str:
        """Run git, and return what it prints. Raises :class:`Refused` with what it says."""
        command = ["git", "-C", str(self.root), *arguments]
        done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Refused(f"git {arguments[0]} failed: {done.stderr.strip() or done.stdout.strip()}")
        return done.stdout.rstrip("\n")

    def check(self) -> None:
        """Raise :class:`Refused` unless what is here is what main says."""
        branch = self.git("branch", "--show-current")
        if branch != BRANCH:
            raise Refused(f"This is {branch or 'no branch'}. Releases are made of {BRANCH}: git switch {BRANCH}")
        changed = self.git("status", "--porcelain").splitlines()
        if changed:
            names = ", ".join(line[3:] for line in changed[:5]) + (" and others" if len(changed) > 5 else "")
            raise Refused(f"Not committed: {names}. Commit, stash or remove that first.")
        self.git("var", "GIT_COMMITTER_IDENT")  # which says how to set a name, where there is none

    def released(self) -> set[str]:
        """The versions of all tags."""
        tags = self.git("tag", "--list").splitlines()
        return {version for tag in tags if VERSION.fullmatch(version := tag.removeprefix("v"))}


def release(root: Path, version: str, date: str) -> str:
    """Make the release, and return what is to be done next. Raises :class:`Refused`; then nothing has changed."""
    if not VERSION.fullmatch(version):
        raise Refused(f"{version!r} is no version. Give three numbers without leading zeros, as in VERSION=1.2.3")
    repository = Repository(root)
    repository.check()
    code, changelog = (root / VERSION_FILE).read_text(), (root / CHANGELOG).read_text()
    _check_version(version, code, changelog, repository.released())
    section = _unreleased(changelog)
    before = repository.git("rev-parse", "HEAD")
    try:
        (root / VERSION_FILE).write_text(VERSION_LINE.sub(f'__version__ = "{version}"', code))
        (root / CHANGELOG).write_text(
            UNRELEASED.sub(lambda found: f"## Unreleased\n\n## {version} ({date})\n\n{section}\n\n", changelog).rstrip()
            + "\n"
        )
        repository.git("commit", "--quiet", "--message", f"Release {version}", str(VERSION_FILE), str(CHANGELOG))
        # Its headings begin with what begins a comment elsewhere.
        message = f"IoT Support {version}\n\n{section}\n"
        repository.git("tag", "--annotate", "--cleanup=whitespace", "--file=-", f"v{version}", text=message)
    except (OSError, Refused):
        repository.git("reset", "--quiet", "--hard", before)  # there was nothing that is not committed
        raise
    return (
        f"Made v{version}. Nothing has left this machine. Look at it, then send it:\n"
        f"    git show v{version}\n"
        f"    git push --atomic origin {BRANCH} v{version}\n"
        "or take it back:\n"
        f"    git tag --delete v{version} && git reset --hard {before[:12]}\n"
        "Afterwards keep what it leaves for the tests of later ones: CONTRIBUTING.md, 'A release'."
    )


def _check_version(version: str, code: str, changelog: str, tagged: set[str]) -> None:
    found = VERSION_LINE.search(code)
    if found is None:
        raise Refused(f'{VERSION_FILE} has no line such as: __version__ = "1.2.3"')
    if version in tagged:
        raise Refused(f"There is a tag of {version} already. A release is never made again: take a higher version.")
    titled = re.findall(rf"^## ({VERSION.pattern})(?!\S)", changelog, re.MULTILINE)
    highest = max([found[1], *tagged, *titled], key=_numbers)
    if _numbers(version) <= _numbers(highest):
        raise Refused(f"{version} is not higher than {highest}, which there is. Take a higher version.")


def _unreleased(changelog: str) -> str:
    """What changed since the last release. Raises :class:`Refused` where nobody says it."""
    found = UNRELEASED.search(changelog)
    if found is None:
        raise Refused(f"{CHANGELOG} has no section '## Unreleased'. Say there what changed.")
    section = found[1].strip()
    if not re.search(r"^(?!#)\S", section, re.MULTILINE):
        raise Refused(f"The section Unreleased of {CHANGELOG} is empty. Say there what changed.")
    if not UPGRADING.search(section):
        raise Refused(
            f"The section Unreleased of {CHANGELOG} does not say what an administrator has to do. Write under"
            " '### Upgrading' in it what that is, or: Nothing but the usual steps."
        )
    return section


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(map(int, version.split(".")))


def main(arguments: list[str]) -> int:
    if len(arguments) != 1:
        print("Give one version, as in: make release VERSION=1.2.3", file=sys.stderr)
        return 2
    try:
        print(release(Path(__file__).resolve().parent.parent, arguments[0], f"{datetime.now(UTC):%Y-%m-%d}"))
    except (OSError, UnicodeError, Refused) as error:
        print(f"No release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
