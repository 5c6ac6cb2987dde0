"""Uploads go straight to where their bytes stay: hashed on the way, never whole in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler
from django.http import HttpRequest

from assets import blobs
from assets.blobs import StagedBlob
from assets.names import normalise_filename
from iotsupport.errors import DATABASE_ERRORS, refusal_of_database
from iotsupport.mirror.files import MirrorError, explain


class UploadedAsset(UploadedFile):  # type: ignore[type-arg]
    """What a form or the API finds in ``request.FILES``: staged bytes, or why there are none."""

    def __init__(self, name: str, blob: StagedBlob | None, problem: Exception | None) -> None:
        super().__init__(name=name, size=blob.size if blob else 0)
        # UploadedFile shortens long names, which would hide what is wrong with them.
        self.full_name = normalise_filename(name)
        self.blob = blob
        self.problem = problem

    def require_blob(self) -> StagedBlob:
        """Raises ``ValidationError`` for too many bytes, and ``MirrorError`` where they could not be stored."""
        if self.blob is None:
            raise self.problem or MirrorError("The file did not arrive. Send it again.")
        return self.blob

    def close(self) -> None:
        if self.blob is not None:
            self.blob.close()


class AssetUploadHandler(FileUploadHandler):
    """Write each chunk as it arrives; remember what goes wrong.

    What is refused is still read to its end, though not kept: a sender that is cut off never hears why. Nothing is
    written for somebody who may not upload: forms are parsed before their CSRF token is checked, the login's too.
    """

    blob: StagedBlob | None = None
    problem: Exception | None = None

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        self._drop()
        if not _may_upload(self.request):
            return
        try:
            self.blob = StagedBlob()
        except MirrorError as error:
            self.problem = error

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        if self.blob is not None:
            with self._noting_problems():
                self.blob.write(raw_data)

    def file_complete(self, file_size: int) -> UploadedAsset:
        if self.blob is not None:
            # Here, where it keeps nobody waiting: the transaction that is to come lets no other save pass.
            with self._noting_problems():
                self.blob.sync()
        uploaded = UploadedAsset(str(self.file_name), self.blob, self.problem)
        self.blob = None
        return uploaded

    def upload_interrupted(self) -> None:
        self._drop()

    @contextmanager
    def _noting_problems(self) -> Iterator[None]:
        try:
            yield
        except ValidationError as error:
            self._drop(error)
        except OSError as error:
            self._drop(MirrorError(explain(error, blobs.storage().label)))

    def _drop(self, problem: Exception | None = None) -> None:
        self.problem = problem
        if self.blob is not None:
            self.blob.close()
            self.blob = None


def _may_upload(request: HttpRequest | None) -> bool:
    user = getattr(request, "user", AnonymousUser())
    try:
        return user.has_perm("assets.add_asset") or user.has_perm("assets.change_asset")
    except DATABASE_ERRORS as error:
        # The form is read to its end all the same. Whoever is to store the file, will hear of that, too.
        refusal_of_database(error)
        return False
