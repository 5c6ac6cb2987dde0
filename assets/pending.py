"""Uploads that wait for an answer: the bytes are kept while somebody is asked whether they are meant."""

from __future__ import annotations

import uuid
from datetime import timedelta
from functools import cached_property
from pathlib import Path

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection, models
from django.utils import timezone

from assets.blobs import BLOBS, copy, open_blob
from assets.identity import inspect_open
from assets.images import Inspection
from assets.shared import SharedChunk
from assets.uploads import MIRROR, Kept, StagedBlob
from iotsupport.database import is_shared
from iotsupport.mirror.files import mirror_storage
from iotsupport.mirror.rows import Ahead

# How long, and how many of one person.
KEPT_FOR = timedelta(days=1)
MOST_OF_ONE = 5


class PendingUploadManager(models.Manager["PendingUpload"]):
    def keep(self, blob: StagedBlob, filename: str, user: User) -> PendingUpload:
        """Keep uploaded bytes for the answer. Call in a transaction. Raises ``MirrorError``."""
        self.forget()
        mine = self.filter(user=user).order_by("-created_at").values_list("pk", flat=True)
        self.filter(pk__in=list(mine[MOST_OF_ONE - 1 :])).delete()
        kept = blob.keep()
        return self.create(filename=filename, user=user, **kept._asdict())

    def forget(self) -> None:
        """Give up those that nobody answered. Their bytes go with the garbage, once a day."""
        self.over().delete()

    def over(self) -> models.QuerySet[PendingUpload]:
        return self.filter(created_at__lt=timezone.now() - KEPT_FOR)

    def of(self, user: User, key: str) -> PendingUpload | None:
        try:
            return self.filter(user=user, pk=uuid.UUID(key), created_at__gte=timezone.now() - KEPT_FOR).first()
        except ValueError:
            return None


class PendingUpload(models.Model):
    """Bytes, and the name of the asset that they are to be the next version of."""

    key = models.UUIDField(primary_key=True, default=uuid.uuid4, editable=False)
    filename = models.CharField(max_length=200)
    md5 = models.CharField(max_length=32)
    sha256 = models.CharField(max_length=64, db_index=True)
    size = models.PositiveBigIntegerField()
    user = models.ForeignKey(settings.AUTH_USER_MODEL, on_delete=models.CASCADE, related_name="+")
    created_at = models.DateTimeField(default=timezone.now)

    ahead: Ahead | None = None
    """The bytes beside the place where devices download them, from :meth:`prepare` on."""

    objects = PendingUploadManager()

    class Meta:
        default_permissions = ()

    def __str__(self) -> str:
        return self.filename

    @cached_property
    def inspection(self) -> Inspection:
        """Raises ``MirrorError`` where the bytes are lost."""
        with open_blob(self.sha256) as file:
            return inspect_open(file.fileno())

    def prepare(self) -> None:
        """Copy the bytes for the mirror, ahead of the transaction. Raises ``MirrorError`` where they are lost."""
        self.ahead = Ahead(self.sha256, copy(self.sha256, MIRROR))

    def keep(self) -> Kept:
        """As :meth:`StagedBlob.keep`: from the commit on, a version names them."""
        if is_shared(connection):
            SharedChunk.objects.keep(self.sha256, Path(mirror_storage(BLOBS).path(self.sha256)))
        kept = Kept(self.md5, self.sha256, self.size)
        self.delete()
        return kept


def over() -> dict[str, models.QuerySet[PendingUpload]]:
    """What :meth:`PendingUploadManager.forget` gives up."""
    return {"uploads that nobody answered": PendingUpload.objects.over()}
