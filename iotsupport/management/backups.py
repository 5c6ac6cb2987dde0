"""What the commands share that make, look at and restore backups."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from django.core.management.base import BaseCommand, CommandError, OutputWrapper
from django.db import IntegrityError

from iotsupport.backup.archive import Manifest, Watch
from iotsupport.backup.checking import Checked, check
from iotsupport.backup.errors import BackupError
from iotsupport.backup.reading import open_backup
from iotsupport.checks import INSTALLATION
from iotsupport.errors import DATABASE_ERRORS, explain_database, is_unusable_value
from iotsupport.management.progress import Progress
from iotsupport.mirror.files import MirrorError

LOST = "Upload the versions that have them again."
UNFIT = "The database cannot hold one of the values in the backup: {}. Nothing was changed."


class BackupCommand(BaseCommand):
    """Says in a sentence what went wrong."""

    requires_system_checks = INSTALLATION

    def watch(self, output: OutputWrapper) -> Watch:
        """Return what shows on a terminal how far each part has come."""
        self._progress = Progress(output, 0)

        def begin(total: int) -> Callable[[int], None]:
            self._progress.clear()
            self._progress = Progress(output, total)
            return self._progress.show

        return begin

    @contextmanager
    def explained(self) -> Iterator[None]:
        """Raises ``CommandError`` for whatever the block raises."""
        try:
            yield
        except (BackupError, MirrorError) as error:
            raise CommandError(str(error)) from error
        except IntegrityError as error:
            raise CommandError(f"Rows of the backup contradict each other. Nothing was changed. {error}") from error
        except DATABASE_ERRORS as error:
            hint = "Check DATABASE_URL, then run 'manage.py migrate'."
            unknown = UNFIT if is_unusable_value(error) else f"The database does not answer: {{}}. {hint}"
            raise CommandError(explain_database(error) or unknown.format(error)) from error
        except OSError as error:
            raise CommandError(f"{error.filename or 'A file'} cannot be used: {error.strerror}.") from error
        finally:
            if hasattr(self, "_progress"):
                self._progress.clear()

    @contextmanager
    def checked(self, path: Path, watch: Watch) -> Iterator[Checked]:
        """Look at all of an archive, and have it read in the block. Raises :class:`BackupError`."""
        size = path.stat().st_size if path.is_file() else 0
        with open_backup(path, watch(size)) as archive:
            yield check(archive, watch)

    def tell(self, manifest: Manifest, size: int, output: OutputWrapper) -> None:
        """Say what is in an archive."""
        made = f"{manifest.made_at:%Y-%m-%d %H:%M:%S} UTC"
        output.write(f"Made {made} by IoT Support {manifest.version} on {manifest.database}; {size} bytes.")
        for rows in manifest.tables:
            if rows.count:
                output.write(f"  {rows.label}: {rows.count}")
        output.write(f"  bytes of assets: {_count_bytes(manifest)}")
        for sha256 in manifest.lost:
            self.stderr.write(f"The bytes {sha256} were missing or damaged when the backup was made. {LOST}")


def _count_bytes(manifest: Manifest) -> int:
    return sum(member.size for member in manifest.members if member.name.startswith("blobs/"))
