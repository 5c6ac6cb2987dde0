"""The page that ``make coverage`` writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from coverage import Coverage, CoverageData

from iotsupport.settings import BASE_DIR
from iotsupport.tests.support.coverage_report import PAGE, UNEXPLAINED, Reasons, read_reasons, report
from iotsupport.tests.support.covered import pytest_sessionfinish


def file(functions: dict[str, Any]) -> dict[str, Any]:
    """As ``coverage json`` has it; each of these lines is a statement."""
    whole = {
        name: [item for function in functions.values() for item in function[name]]
        for name in ["executed_lines", "missing_lines", "executed_branches", "missing_branches"]
    }
    summary = {
        "num_statements": len(whole["executed_lines"]) + len(whole["missing_lines"]),
        "covered_lines": len(whole["executed_lines"]),
        "num_branches": len(whole["executed_branches"]) + len(whole["missing_branches"]),
        "covered_branches": len(whole["executed_branches"]),
    }
    return {**whole, "functions": functions, "summary": summary}


def function(
    run: list[int],
    missing: list[int] | None = None,
    taken: list[list[int]] | None = None,
    not_taken: list[list[int]] | None = None,
) -> dict[str, Any]:
    return {
        "start_line": min(run + (missing or [])),
        "executed_lines": run,
        "missing_lines": missing or [],
        "executed_branches": taken or [],
        "missing_branches": not_taken or [],
    }


@pytest.fixture
def draw(tmp_path: Path) -> Callable[..., str]:
    """The page, from files and reasons; each line of a file's text says its number."""

    def draw(files: dict[str, Any], reasons: Reasons | None = None) -> str:
        for path in files:
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text("".join(f"    line {number}\n" for number in range(1, 2001)))
        return report({"files": files}, reasons or {}, tmp_path)

    return draw


def rows(page: str) -> list[str]:
    return [line for line in page.splitlines() if line.startswith("| ")][2:]


def gaps(page: str) -> list[str]:
    """Without what stands there, and why."""
    return [line.split(", `line ")[0] for line in page.splitlines() if line.startswith("- ")]


def test_sums_up_each_package_and_what_is_in_none(draw):
    page = draw(
        {
            "manage.py": file({"": function([1, 2])}),
            "devices/views.py": file({"": function([1]), "show": function([2], [3], [], [[2, 3], [2, 4]])}),
            "devices/api.py": file({"": function([1], taken=[[1, 2], [1, 3]])}),
        }
    )

    assert rows(page) == [
        "| all | 70.0 % | 5 of 6 | 2 of 4 |",
        "| devices | 62.5 % | 3 of 4 | 2 of 4 |",
        "| manage.py | 100.0 % | 2 of 2 | 0 of 0 |",
    ]


def test_does_not_call_whole_what_lacks_one_line_of_many(draw):
    page = draw({"devices/views.py": file({"": function(list(range(1, 2000)), [2000])})})

    assert rows(page)[0] == "| all | 99.9 % | 1,999 of 2,000 | 0 of 0 |"


def test_names_what_is_not_run_in_the_order_of_the_text(draw):
    page = draw(
        {
            "devices/views.py": file(
                {
                    "": function([1, 2], [28, 40]),
                    "show": function([30, 34], [31, 33, 36]),
                    "Page.draw": function([20, 21, 25], [], [], [[20, 25], [21, -20]]),
                }
            ),
            "assets/views.py": file({"": function([1]), "show": function([3], [4, 5, 6])}),
        }
    )

    assert gaps(page) == [
        "- `assets/views.py`, `show`: 4-6",
        "- `devices/views.py`, outside of functions: 28",
        "- `devices/views.py`, outside of functions: 40",
        "- `devices/views.py`, `Page.draw`: 20→25",
        "- `devices/views.py`, `Page.draw`: 21→end",
        "- `devices/views.py`, `show`: 31-33",
        "- `devices/views.py`, `show`: 36",
    ]


def test_tells_a_branch_only_between_lines_that_were_run(draw):
    branches = [[10, 11], [11, 12], [13, 15]]
    page = draw({"devices/views.py": file({"show": function([10, 13, 15], [11, 12], [], branches)})})

    assert gaps(page) == ["- `devices/views.py`, `show`: 11-12", "- `devices/views.py`, `show`: 13→15"]


def test_says_so_where_everything_is_run(draw):
    page = draw({"devices/views.py": file({"show": function([1, 2])})})

    assert gaps(page) == []
    assert page.endswith("## What is not run\n\nNothing.\n")


def test_reads_what_coverage_writes(tmp_path: Path) -> None:
    source = tmp_path / "lamp.py"
    source.write_text("def switch(on):\n    if on:\n        return 1\n    return 0\n\n\nswitch(True)\n")
    data = CoverageData(str(tmp_path / "data"))
    # From line to line; -1 is where line 1's function or module begins and ends.
    data.add_arcs({str(source): [(-1, 1), (1, 7), (7, -1), (-1, 2), (2, 3), (3, -1)]})
    data.write()
    coverage = Coverage(data_file=str(tmp_path / "data"), config_file=False)
    coverage.load()
    coverage.json_report(outfile=str(tmp_path / "report.json"))

    page = report(json.loads((tmp_path / "report.json").read_text()), {})

    assert rows(page)[0] == "| all | 71.4 % | 4 of 5 | 1 of 2 |"
    assert [line.partition(", ")[2] for line in gaps(page)] == [f"`switch`: 4, `return 0` {UNEXPLAINED}"]


def test_what_was_run_is_written_before_a_process_of_the_run_ends(tmp_path: Path) -> None:
    source = tmp_path / "lamp.py"
    source.write_text("on = 1\noff = 2\n")
    code = compile(source.read_text(), str(source), "exec")
    coverage = Coverage(data_file=str(tmp_path / "data"), config_file=False, source=[str(tmp_path)])

    with coverage.collect():
        exec(code)  # noqa: S102
        pytest_sessionfinish()
        written = CoverageData(str(tmp_path / "data"))
        written.read()

    assert written.lines(str(source)) == [1, 2]


def test_says_why_or_asks(draw):
    files = {"devices/views.py": file({"show": function([1, 5], [4, 6])}), "manage.py": file({"": function([1], [4])})}
    reasons = {"devices/views.py": {"show": {"line 4": "Nobody can."}}, "manage.py": {"": {"line 4": "So it is."}}}

    page = draw(files, reasons)

    assert [line for line in page.splitlines() if line.startswith("- ")] == [
        "- `devices/views.py`, `show`: 4, `line 4` Nobody can.",
        f"- `devices/views.py`, `show`: 6, `line 6` {UNEXPLAINED}",
        "- `manage.py`, outside of functions: 4, `line 4` So it is.",
    ]


def test_whatever_no_test_runs_has_a_reason():
    """It is given in ``coverage_reasons.toml`` after ``make coverage``. A refusal or a fault rather has a test."""
    assert [line for line in PAGE.read_text().splitlines() if UNEXPLAINED in line] == []


def test_no_reason_is_left_of_what_is_gone():
    gone = [
        (path, function, text)
        for path, functions in read_reasons().items()
        for function, lines in functions.items()
        for text in lines
        if text not in {line.strip() for line in (BASE_DIR / path).read_text().splitlines()}
    ]

    assert gone == []
