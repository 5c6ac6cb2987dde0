"""Bringing back an earlier version, of what is there now as of what was deleted: a save like any other."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any, ClassVar

from django.contrib import admin, messages
from django.contrib.admin.utils import model_ngettext, quote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import DatabaseError, IntegrityError
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html

from iotsupport.editing import origins
from iotsupport.editing.numbered import Numbered
from iotsupport.errors import explain_database, is_outage, log_outage
from iotsupport.mirror.files import MirrorBehindError, MirrorError

logger = logging.getLogger(__name__)


def restore(model: Any, version: Any, allow: Callable[[Any], None]) -> Any:
    """Save a version anew under its name, and return the row.

    ``allow`` is called with the row that is to be changed, locked, or with a new one that has no ``pk``: what it raises
    refuses the change. Raises ``ValidationError`` for what does not fit any more, and ``MirrorError`` where the bytes
    are gone or cannot be stored.
    """
    ahead = model.ahead_of(version)
    origins.current().part_of = "restore"
    with model.objects.locked(model.spell(getattr(version, model.name_field)), ahead) as row:
        allow(row)
        if row.pk is None and not model._base_manager.filter(pk=version.id).exists():
            row.pk = version.id  # what was deleted is found where it was
        row.take_version(version, ahead)
    return row


class NotRestored(Exception):
    """One version is not saved anew. The message is a sentence for a person, and may be HTML."""


# Its types do not tell all that is used of it here.
_ModelAdmin: Any = admin.ModelAdmin


class RestoringAdmin(_ModelAdmin):
    """Saves earlier versions anew for those who may change what is there, or add it where nothing is."""

    # The field that names who saved a row last.
    saved_by: ClassVar[str]
    # Counts what became of a change: given the code of its refusal, None where it is saved, and the seconds.
    count_save: Callable[[str | None, float], None]

    def warnings_of(self, row: Any) -> list[str]:
        """Sentences on what is saved all the same."""
        return []

    def restore_version(self, request: HttpRequest, version: Any, check: Callable[[Any], None]) -> Any:
        """Save a version anew, and return the row. ``check`` raises :class:`NotRestored` for the row that is there.

        Raises that also for what does not fit any more; ``MirrorError`` and ``DatabaseError`` go through.
        """
        try:
            with self._counting():
                row = restore(self.model, version, partial(self._allow, request, check))
        except ValidationError as error:  # the limits are other ones now
            raise NotRestored(" ".join(error.messages)) from error
        for warning in self.warnings_of(row):
            self.message_user(request, f"{row}: {warning}", messages.WARNING)
        return row

    def _allow(self, request: HttpRequest, check: Callable[[Any], None], row: Any) -> None:
        if not self.may_restore(request, None if row.pk is None else row):
            raise PermissionDenied
        check(row)
        setattr(row, self.saved_by, request.user)

    def may_restore(self, request: HttpRequest, current: Any) -> bool:
        """Whether somebody may save an earlier version of what is there now: where that is nothing, it is added."""
        if current is None:
            return bool(self.has_add_permission(request))
        return bool(self.has_change_permission(request, current))

    def bring_back(self, request: HttpRequest, versions: Iterable[Any], done: str) -> None:
        """Save what was deleted anew, and say which is not, and why; ``done`` is noted of each."""
        back: list[Any] = []
        for version in versions:
            try:
                back.append(self._bring_back(request, version, done))
            except MirrorBehindError as error:  # that one is saved
                self.message_user(request, str(error), messages.WARNING)
            except NotRestored as error:
                self.message_user(request, error.args[0], messages.ERROR)
            except (MirrorError, DatabaseError) as error:
                # It would be the same with the others, and take as long.
                text = f"{'Nothing more' if back else 'Nothing'} was brought back. {self.explain(error)}"
                self.message_user(request, text, messages.ERROR)
                break
        if back:
            self.message_user(request, self._say_what_is_back(request, back), messages.SUCCESS)

    def _bring_back(self, request: HttpRequest, version: Any, done: str) -> Any:
        name = f"{self.opts.verbose_name} “{version.instance}”"
        exists = self._say_that_it_exists(name, version)

        def check(row: Any) -> None:
            if row.pk is not None:
                raise NotRestored(exists)

        number = Numbered(self.model, getattr(version, self.model.name_field)).number_of(version)
        origins.current().reason = f"Restored from version {number}"
        try:
            row = self.restore_version(request, version, check)
        except IntegrityError as error:  # added in this moment
            raise NotRestored(exists) from error
        except NotRestored as error:
            raise (
                error if error.args[0] is exists else NotRestored(f"The {name} was not brought back. {error.args[0]}")
            ) from error
        self.log_addition(request, row, done)
        return row

    def _say_that_it_exists(self, name: str, version: Any) -> str:
        return format_html(
            'The {} exists again, and was left as it is. Its <a href="{}">history</a> has what was deleted.',
            name,
            self.versions_url(version),
        )

    def versions_url(self, version: Any) -> str:
        """Where the versions of a row, or of what a version is of, are seen."""
        return self._url("versions", getattr(version, self.model.name_field))

    def _url(self, view: str, *arguments: Any) -> str:
        """Return the address of one of the pages of this model."""
        return reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_{view}", args=arguments)

    def _say_what_is_back(self, request: HttpRequest, rows: list[Any]) -> str:
        if len(rows) > 1:
            return f"{len(rows)} {model_ngettext(self.opts, len(rows))} are back, as they were."
        row = rows[0]
        if not self.has_view_or_change_permission(request, row):
            return f"The {self.opts.verbose_name} “{row}” is back, as it was."
        url = self._url("change", quote(row.pk))
        return format_html('The {} “<a href="{}">{}</a>” is back, as it was.', self.opts.verbose_name, url, row)

    def explain(self, error: Exception) -> str:
        """Say why a version could not be stored."""
        if isinstance(error, MirrorError):
            return str(error)
        if is_outage(error):
            log_outage(error)
        else:
            logger.error("The database refused to bring back what was deleted", exc_info=error)
        return explain_database(error) or (
            f"The database could not store it ({error}). Try again; the server's log says more."
        )

    @contextmanager
    def _counting(self) -> Iterator[None]:
        start = perf_counter()
        refusal_code: str | None = "OTHER"
        try:
            yield
            refusal_code = None
        except MirrorBehindError:
            refusal_code = None
            raise
        except MirrorError:
            refusal_code = "STORAGE_UNAVAILABLE"
            raise
        finally:
            self.count_save(refusal_code, perf_counter() - start)
