"""Uploads, from their first bytes until they are kept: hashed on the way, never whole in memory."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any, NamedTuple

from django.conf import settings
from django.contrib.auth.models import AnonymousUser
from django.core.exceptions import ValidationError
from django.core.files.uploadedfile import UploadedFile
from django.core.files.uploadhandler import FileUploadHandler
from django.db import connection, transaction
from django.http import HttpRequest

from assets.blobs import BLOBS, is_same_file, stage_copy
from assets.identity import inspect_open
from assets.images import Inspection
from assets.shared import SharedChunk
from iotsupport.database import is_shared
from iotsupport.durable import sync_directory
from iotsupport.errors import DATABASE_ERRORS, refusal_of_database
from iotsupport.mirror.files import MirrorError, StagedFile, State, mirror_storage
from iotsupport.mirror.rows import Ahead

# Where devices download them, of STORAGES.
MIRROR = "assets"


class Kept(NamedTuple):
    """What a row says of bytes that are kept: their digests in hexadecimal, and how many they are."""

    md5: str
    sha256: str
    size: int


class StagedBlob(StagedFile):
    """Bytes of an upload, hashed as they arrive; gone with the object unless they were committed."""

    ahead: Ahead | None = None
    """The same bytes beside the place where devices download them."""

    def __init__(self) -> None:
        super().__init__(mirror_storage(BLOBS))
        self._md5 = hashlib.md5(usedforsecurity=False)  # what Arduino's HTTPUpdate checks

    def write(self, chunk: bytes) -> None:
        """Raises ``ValidationError`` past the size limit."""
        check_size(self.size + len(chunk))
        super().write(chunk)
        self._md5.update(chunk)

    @property
    def md5(self) -> str:
        return self._md5.hexdigest()

    @cached_property
    def inspection(self) -> Inspection:
        """What it is: to be asked when all of it was written."""
        with self._storage.explained():
            return inspect_open(self.descriptor)

    def prepare(self) -> None:
        """Do what can be done ahead of the transaction that saves the row, while others can save.

        It is inspected, and copied for the mirror. The bytes are put under their digest unless something is there
        already, which only an upload that is not refused may replace. All of it goes with the object, as before.
        """
        self.sync()
        self.inspection  # noqa: B018 - is kept
        sha256 = self.sha256
        if not self._storage.exists(sha256):
            self._hold(sha256)
        with self._storage.explained(), self.path.open("rb") as file:
            self.ahead = Ahead(sha256, stage_copy(file, sha256, MIRROR))

    def keep(self) -> Kept:
        """Have the bytes under their digest, for good once the transaction commits.

        Another upload of the same bytes may be in flight, so each puts a file of its own there, and a rollback
        takes away only what it brought. What was kept in a transaction that was rolled back may be so once more.
        """
        sha256 = self.ahead.value if self.ahead is not None else self.sha256
        if self.state is State.STAGED:
            if self.ahead is None:  # else they are synced
                self.sync()
            self._hold(sha256)
        if is_shared(connection):
            with self._storage.explained():
                SharedChunk.objects.keep(sha256, self.path)
        transaction.on_commit(self.stay)
        return Kept(self.md5, sha256, self.size)

    def _hold(self, sha256: str) -> None:
        self.hold(sha256)
        with self._storage.explained():
            sync_directory(self._storage.directory)

    def discard(self) -> None:
        """Close it now, and what was made ready with it: a traceback may keep the object for a while."""
        if self.ahead is not None:
            self.ahead.close()
        self.close()

    def remove(self) -> None:
        # Under its digest, there may be another upload's file by now.
        with self._storage.lock():
            if is_same_file(self.path, self.descriptor):
                self.path.unlink()


def check_size(size: int) -> None:
    """Raise ``ValidationError`` for more bytes than an asset may have."""
    if size > settings.ASSET_MAX_BYTES:
        message = (
            f"The file has more than {settings.ASSET_MAX_BYTES} bytes. Send a smaller one, or raise ASSET_MAX_BYTES."
        )
        raise ValidationError(message, code="TOO_LARGE")


class UploadedAsset(UploadedFile):  # type: ignore[type-arg]
    """What a form or the API finds in ``request.FILES``: staged bytes, or what went wrong with them."""

    blob: StagedBlob | None = None
    problem: Exception | None = None

    def __init__(self, name: str) -> None:
        super().__init__(name=name, size=0)
        # UploadedFile shortens long names, which would hide what is wrong with them.
        self.full_name = name

    def begin(self) -> None:
        try:
            self.blob = StagedBlob()
        except MirrorError as error:
            self.problem = error

    def receive(self, chunk: bytes) -> None:
        if self.blob is not None:
            try:
                self.blob.write(chunk)
            except (ValidationError, MirrorError) as error:
                self.drop(error)

    def complete(self) -> None:
        if self.blob is not None:
            self.size = self.blob.size
            try:
                self.blob.prepare()
            except MirrorError as error:
                self.drop(error)

    def drop(self, problem: Exception) -> None:
        self.close()
        self.blob, self.problem = None, problem

    def require_blob(self) -> StagedBlob:
        """Raises ``ValidationError`` for too many bytes, and ``MirrorError`` where they could not be stored."""
        if self.blob is None:
            raise self.problem or MirrorError("The file did not arrive. Send it again.")
        return self.blob

    def close(self) -> None:
        if self.blob is not None:
            self.blob.discard()


class AssetUploadHandler(FileUploadHandler):
    """Stage each chunk as it arrives.

    What is refused is still read to its end, though not kept: a sender that is cut off never hears why. Nothing is
    written for somebody who may not upload: forms are parsed before their CSRF token is checked, the login's too.
    """

    arriving: UploadedAsset | None = None

    def new_file(self, *args: Any, **kwargs: Any) -> None:
        super().new_file(*args, **kwargs)
        self.upload_interrupted()
        self.arriving = UploadedAsset(str(self.file_name))
        if _may_upload(self.request):
            self.arriving.begin()

    def receive_data_chunk(self, raw_data: bytes, start: int) -> None:
        if self.arriving is not None:
            self.arriving.receive(raw_data)

    def file_complete(self, file_size: int) -> UploadedAsset | None:
        uploaded, self.arriving = self.arriving, None
        if uploaded is not None:
            uploaded.complete()
        return uploaded

    def upload_interrupted(self) -> None:
        """Drop what arrived of a file that does not arrive whole."""
        if self.arriving is not None:
            self.arriving.close()
            self.arriving = None


def _may_upload(request: HttpRequest | None) -> bool:
    user = getattr(request, "user", AnonymousUser())
    try:
        return user.has_perm("assets.add_asset") or user.has_perm("assets.change_asset")
    except DATABASE_ERRORS as error:
        # The form is read to its end all the same. Whoever is to store the file, will hear of that, too.
        refusal_of_database(error)
        return False
