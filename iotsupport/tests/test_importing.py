"""What an import passes over, of configurations and of assets."""

from __future__ import annotations

import os
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command

from iotsupport.tests.support.api_client import everything

pytestmark = pytest.mark.usefixtures("transactional_db")

GOOD = {"import_configs": "aa-bb-cc-dd-ee-ff.json", "import_assets": "firmware.bin"}


@pytest.mark.both_databases(once=True)
@pytest.mark.parametrize("command", GOOD)
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_says_what_it_passes_over(tmp_path: Path, command: str, options: list[str]) -> None:
    directory, output = tmp_path / "existing", StringIO()
    directory.mkdir()
    (directory / GOOD[command]).write_bytes(b"{}")
    (directory / ".DS_Store").write_bytes(b"not even looked at")
    (directory / "backup").mkdir()
    (directory / "lost.json").symlink_to(tmp_path / "missing")
    (directory / "loop.bin").symlink_to("loop.bin")
    os.mkfifo(directory / "pipe")

    call_command(command, str(directory), *options, stdout=output, stderr=output)

    *lines, summary = output.getvalue().splitlines()
    nowhere = "it is a link that leads nowhere. Put the file there, or remove the link."
    assert sorted(lines) == sorted(
        [
            "'.DS_Store': passed over: its name starts with a dot.",
            "'backup': passed over: it is a directory. What is in it needs an import of its own.",
            f"'loop.bin': passed over: {nowhere}",
            f"'lost.json': passed over: {nowhere}",
            "'pipe': passed over: it is no regular file.",
            f"{GOOD[command]}: taken",
        ]
    )
    assert summary.startswith("1 taken, 0 replaced, 0 unchanged, 0 refused, 5 passed over")


@pytest.mark.parametrize("command", GOOD)
def test_takes_what_a_link_leads_to(tmp_path: Path, command: str) -> None:
    directory, output = tmp_path / "existing", StringIO()
    directory.mkdir()
    (tmp_path / "elsewhere").write_bytes(b"{}")
    (directory / GOOD[command]).symlink_to(tmp_path / "elsewhere")

    call_command(command, str(directory), stdout=output, stderr=output)

    assert output.getvalue().splitlines() == [
        f"{GOOD[command]}: taken",
        "1 taken, 0 replaced, 0 unchanged, 0 refused",
    ]


@pytest.mark.parametrize("command", GOOD)
def test_says_that_a_directory_cannot_be_read(tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = everything()

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(CommandError, match="cannot be read: Permission denied. Run this as a user who may."):
        call_command(command, str(tmp_path))

    monkeypatch.undo()
    assert everything() == before
