"""A zip that is chosen in a form of the admin: written to a file without a name as it arrives."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler, StopFutureHandlers
from django.http import HttpRequest

from devices.limits import IMPORT_PATH, MAY_SAVE
from iotsupport.errors import DATABASE_ERRORS
from iotsupport.mirror.files import MirrorError
from iotsupport.transfer.unnamed import open_unnamed, write
from iotsupport.transfer.unzipping import MOST_BYTES, RefusedZip


class UploadedZip(UploadedFile):  # type: ignore[type-arg]
    """What the form finds in ``request.FILES``: the file, or why there is none."""

    def __init__(self, name: str) -> None:
        super().__init__(name=name, size=0)
        self._opened = ExitStack()
        self.problem: Exception | None = None
        try:
            self.file = self._opened.enter_context(open_unnamed())
        except MirrorError as error:
            self.problem = error

    def receive(self, chunk: bytes) -> None:
        """What is too much, or cannot be stored, is read to its end all the same: so its sender hears why."""
        self.size = (self.size or 0) + len(chunk)
        if self.problem is None and self.size > MOST_BYTES:
            self.problem = RefusedZip(f"The zip has more than {MOST_BYTES} bytes. Send several.", "TOO_LARGE")
        if self.problem is None and self.file is not None:
            try:
                write(self.file, chunk)
            except MirrorError as error:
                self.problem = error
        if self.problem is not None:
            self._opened.close()

    def close(self) -> None:
        self._opened.close()


class ZipUploadHandler(FileUploadHandler):
    """Takes what is sent to the page of imports, by those who may save configurations. All else is for others."""

    arriving: UploadedZip | None = None

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        self.upload_interrupted()
        if self.request is not None and self.request.path_info == IMPORT_PATH and _may_save(self.request):
            self.arriving = UploadedZip(str(self.file_name))
            raise StopFutureHandlers

    def receive_data_chunk(self, raw_data: bytes, start: int) -> bytes | None:
        if self.arriving is None:
            return raw_data
        self.arriving.receive(raw_data)
        return None

    def file_complete(self, file_size: int) -> UploadedZip | None:
        arrived, self.arriving = self.arriving, None
        return arrived

    def upload_interrupted(self) -> None:
        if self.arriving is not None:
            self.arriving.close()
            self.arriving = None


def _may_save(request: HttpRequest) -> bool:
    try:
        return any(request.user.has_perm(permission) for permission in MAY_SAVE)
    except DATABASE_ERRORS:  # which the view will meet, too
        return False
