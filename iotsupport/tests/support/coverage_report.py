"""What no test runs, as a page that is kept: ``make coverage`` writes docs/coverage.md.

    python -m iotsupport.tests.support.coverage_report report.json

Reads what ``coverage json`` wrote, and says of each package how much of it was run. Why something is not run is
written by hand in ``coverage_reasons.toml``: by file, function, and the line at which it begins.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple, Self

from iotsupport.settings import BASE_DIR

PAGE = BASE_DIR / "docs" / "coverage.md"
REASONS = Path(__file__).with_name("coverage_reasons.toml")

# Of each file, of each of its functions: the text of a line, and why what begins there is not run.
Reasons = dict[str, dict[str, dict[str, str]]]

# What stands in place of a reason that nobody has given; a test finds it on the page.
UNEXPLAINED = "**Why?**"

HEAD = """# Coverage

Written by `make coverage`: how much of the product the tests run, on SQLite and PostgreSQL together, in their own
processes and in those that they start. Counted are lines and branches. A process that is killed, or becomes another
program, cannot say what it ran. Why something is not run stands behind it, from
`iotsupport/tests/support/coverage_reasons.toml`.
"""


class Covered(NamedTuple):
    """Lines and branches that there are, and those of them that were run."""

    lines: int = 0
    lines_run: int = 0
    branches: int = 0
    branches_run: int = 0

    @classmethod
    def read(cls, summary: dict[str, Any]) -> Self:
        names = ["num_statements", "covered_lines", "num_branches", "covered_branches"]
        return cls(*[summary[name] for name in names])

    @classmethod
    def sum(cls, parts: Iterable[Self]) -> Self:
        return cls(*map(sum, zip(cls(), *parts, strict=True)))

    @property
    def percent(self) -> str:
        """Rounded down: only what is whole has 100."""
        there, run = self.lines + self.branches, self.lines_run + self.branches_run
        tenths = 1000 * run // there if there else 1000
        return f"{tenths // 10}.{tenths % 10} %"


class Gap(NamedTuple):
    """Lines that were not run, or a way between lines that was not taken."""

    path: str
    function: str
    lines: str
    """``12``, ``14-16``; ``18→21``, or ``18→end`` where the function ends."""
    text: str
    """What stands in the first of these lines."""

    def explain(self, reasons: Reasons) -> str:
        reason = reasons.get(self.path, {}).get(self.function, {}).get(self.text, UNEXPLAINED)
        where = f"`{self.function}`" if self.function else "outside of functions"
        return f"- `{self.path}`, {where}: {self.lines}, `{self.text}` {reason}"


def read_reasons() -> Reasons:
    reasons: Reasons = tomllib.loads(REASONS.read_text())
    return reasons


def report(measured: dict[str, Any], reasons: Reasons, root: Path = BASE_DIR) -> str:
    """Return the page, from what ``coverage json`` writes of the files below ``root``."""
    gaps = "\n".join(gap.explain(reasons) for gap in find_gaps(measured["files"], root)) or "Nothing."
    return f"{HEAD}\n{table(measured['files'])}\n\n## What is not run\n\n{gaps}\n"


def table(files: dict[str, Any]) -> str:
    """Return a row for each package, and for each file that is in none."""
    packages: dict[str, list[Covered]] = {}
    for path, file in sorted(files.items()):
        packages.setdefault(path.partition("/")[0], []).append(Covered.read(file["summary"]))
    sums = {name: Covered.sum(parts) for name, parts in packages.items()}
    rows = [
        f"| {name} | {covered.percent} | {covered.lines_run:,} of {covered.lines:,} |"
        f" {covered.branches_run:,} of {covered.branches:,} |"
        for name, covered in [("all", Covered.sum(sums.values())), *sums.items()]
    ]
    return "\n".join(["| | Covered | Lines | Branches |", "| --- | ---: | ---: | ---: |", *rows])


def find_gaps(files: dict[str, Any], root: Path) -> Iterator[Gap]:
    """Yield what is not run, in the order of the files' text."""
    for path, file in sorted(files.items()):
        text = (root / path).read_text().splitlines()
        statements = sorted(file["executed_lines"] + file["missing_lines"])
        for name, function in sorted(file["functions"].items(), key=lambda item: item[1]["start_line"]):
            for first, lines in [*lines_not_run(function, statements), *branches_not_taken(function)]:
                yield Gap(path, name, lines, text[first - 1].strip())


def lines_not_run(function: dict[str, Any], statements: list[int]) -> list[tuple[int, str]]:
    """Return lines, and ranges of them where no other of the file's statements lies between, with the first of each."""
    missing = set(function["missing_lines"])
    ranges = [list(lines) for is_missing, lines in groupby(statements, missing.__contains__) if is_missing]
    return [(lines[0], str(lines[0]) if len(lines) == 1 else f"{lines[0]}-{lines[-1]}") for lines in ranges]


def branches_not_taken(function: dict[str, Any]) -> list[tuple[int, str]]:
    """Return ways that were not gone between lines that were run, with the line that each begins in."""
    missing = set(function["missing_lines"])
    return [
        (start, f"{start}→{end if end > 0 else 'end'}")
        for start, end in function["missing_branches"]
        if not {start, end} & missing
    ]


def main() -> None:
    measured = json.loads(Path(sys.argv[1]).read_text())
    page = report(measured, read_reasons())
    PAGE.write_text(page)
    print(table(measured["files"]))
    print(f"docs/coverage.md names what is not run; {page.count(UNEXPLAINED)} times without a reason.")


if __name__ == "__main__":
    main()
