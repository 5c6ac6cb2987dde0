"""``manage.py import_assets``: a directory of files is taken over, byte for byte."""

from __future__ import annotations

import hashlib
from io import StringIO
from pathlib import Path

import pytest
from django.conf import LazySettings
from django.core.management import CommandError, call_command

from assets.models import Asset
from iotsupport.tests.support.server import files

EXISTING = {
    "firmware-1.2.3.bin": b"\xe9" + b"firmware" * 100_000,
    "empty": b"",
    "größe 'L' & \"M\".png": b"\r\n\x00\x1a",
    "logo (1)+2%20.svg": b"<svg/>\n",
    "🍳.json": b"not JSON, and no matter",
    "a" * 200: b"a",
}

REFUSED = {
    "a..b.bin": "The file name holds two dots in a row. Rename the file, then try again.",
    "back\\slash.bin": "The file name holds a slash or a backslash. Rename the file, then try again.",
    "new\nline.bin": "The file name holds a control character. Rename the file, then try again.",
    "b" * 201: "The file name is longer than 200 bytes. Rename the file, then try again.",
    "\udcff.bin": "The file name holds a control character. Rename the file, then try again.",
}

pytestmark = pytest.mark.usefixtures("transactional_db")


@pytest.fixture
def existing(tmp_path: Path) -> Path:
    return make(tmp_path / "existing", EXISTING)


def make(directory: Path, contents: dict[str, bytes]) -> Path:
    directory.mkdir()
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    return directory


def import_assets(directory: Path, *options: str) -> list[str]:
    """The lines of the report."""
    output = StringIO()
    call_command("import_assets", str(directory), *options, stdout=output, stderr=output)
    return output.getvalue().splitlines()


def refuse_assets(directory: Path, *options: str) -> list[str]:
    """The lines of the report of an import that refuses some files."""
    output = StringIO()
    with pytest.raises(CommandError, match="Some files were refused. Correct them, then run this again"):
        call_command("import_assets", str(directory), *options, stdout=output, stderr=output)
    return output.getvalue().splitlines()


def test_takes_over_files_byte_for_byte(existing: Path, directories: Path) -> None:
    *lines, summary = import_assets(existing)

    assert lines == [f"{name}: taken" for name in sorted(EXISTING)]
    assert summary == f"{len(EXISTING)} taken, 0 replaced, 0 unchanged, 0 refused"
    assert files(directories / "assets") == files(existing) == EXISTING


@pytest.mark.both_databases
def test_notes_size_and_digests(existing: Path) -> None:
    import_assets(existing)

    for asset in Asset.objects.all():
        content = EXISTING[asset.filename]
        assert asset.size == len(content)
        assert asset.sha256 == hashlib.sha256(content).hexdigest()
        assert asset.md5 == hashlib.md5(content).hexdigest()  # noqa: S324 - what Arduino's HTTPUpdate checks


@pytest.mark.both_databases
def test_run_again_it_changes_nothing(existing: Path) -> None:
    import_assets(existing)

    *lines, summary = import_assets(existing)

    assert lines == [f"{name}: unchanged" for name in sorted(EXISTING)]
    assert summary == f"0 taken, 0 replaced, {len(EXISTING)} unchanged, 0 refused"
    assert Asset.history.count() == len(EXISTING)


@pytest.mark.both_databases
def test_run_again_it_replaces_what_has_changed_since(existing: Path, directories: Path) -> None:
    import_assets(existing)
    (existing / "empty").write_bytes(b"no more")

    lines = import_assets(existing)

    assert "empty: replaced" in lines
    assert files(directories / "assets") == EXISTING | {"empty": b"no more"}


def test_a_dry_run_reports_and_changes_nothing(existing: Path, directories: Path) -> None:
    *lines, summary = import_assets(existing, "--dry-run")

    assert lines == [f"{name}: taken" for name in sorted(EXISTING)]
    assert summary == f"{len(EXISTING)} taken, 0 replaced, 0 unchanged, 0 refused; nothing was changed (--dry-run)"
    assert not Asset.objects.exists()
    assert [files(directories / name) for name in ["assets", "blobs"]] == [{}, {}]


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_names_what_it_refuses_and_why_and_takes_the_rest(
    tmp_path: Path, directories: Path, options: list[str]
) -> None:
    existing = make(tmp_path / "existing", dict.fromkeys(REFUSED, b"content"))
    (existing / "good.bin").write_bytes(b"good")

    *lines, summary = refuse_assets(existing, *options)

    assert sorted(lines) == sorted(
        ["good.bin: taken", *(f"{name!r}: refused: {reason}" for name, reason in REFUSED.items())]
    )
    assert summary.startswith(f"1 taken, 0 replaced, 0 unchanged, {len(REFUSED)} refused")
    assert files(directories / "assets") == ({} if options else {"good.bin": b"good"})


@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_obeys_the_limit(tmp_path: Path, directories: Path, settings: LazySettings, options: list[str]) -> None:
    settings.ASSET_MAX_BYTES = 10
    existing = make(tmp_path / "existing", {"fits.bin": b"0123456789", "too-large.bin": b"0123456789a"})

    assert refuse_assets(existing, *options)[:2] == [
        "fits.bin: taken",
        "'too-large.bin': refused: The file has more than 10 bytes. Send a smaller one, or raise ASSET_MAX_BYTES.",
    ]
    assert files(directories / "assets") == ({} if options else {"fits.bin": b"0123456789"})


def test_takes_over_the_directory_that_is_to_be_the_mirror(directories: Path) -> None:
    (directories / "assets" / "firmware.bin").write_bytes(b"firmware")

    import_assets(directories / "assets")

    assert files(directories / "assets") == {"firmware.bin": b"firmware"}
    assert Asset.objects.get().size == 8


@pytest.mark.both_databases
def test_brings_back_kept_bytes_that_were_lost(existing: Path, directories: Path) -> None:
    """What "Upload the file again." says, for a whole directory."""
    import_assets(existing)
    for path in [*(directories / "blobs").iterdir(), *(directories / "assets").iterdir()]:
        path.unlink()

    import_assets(existing)

    assert files(directories / "assets") == EXISTING
    assert sorted(files(directories / "blobs").values()) == sorted(EXISTING.values())


def test_wants_a_directory(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="missing is not a directory. Name the one that holds the files."):
        import_assets(tmp_path / "missing")
