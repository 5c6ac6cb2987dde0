"""Taking back a deletion: the message about it has a button that brings back the last version."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any, ClassVar

from django.contrib import messages
from django.contrib.admin.utils import model_ngettext, quote
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import DEFAULT_DB_ALIAS, DatabaseError, IntegrityError, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.views.decorators.http import require_POST
from simple_history.admin import SimpleHistoryAdmin

from iotsupport.errors import explain_database, is_outage, log_outage
from iotsupport.mirror.files import MirrorBehindError, MirrorError

logger = logging.getLogger(__name__)

# What one click brings back, at most: each is a save.
MOST_ROWS = 100


class NotBroughtBack(Exception):
    """One row stays deleted. The message is a sentence for a person, and may be HTML."""


class UndoingAdmin(SimpleHistoryAdmin):
    """Offers to whoever deleted something here, and may add it, to take that back."""

    # The field that names who saved a row last.
    saved_by: ClassVar[str]
    # Counts what became of a change: given the code of its refusal, None where it is saved, and the seconds.
    count_save: Callable[[str | None, float], None]

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.undo_view))
        return [path("undo/", view, name=f"{self.opts.app_label}_{self.opts.model_name}_undo"), *super().get_urls()]

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        pk = obj.pk
        super().delete_model(request, obj)
        deleted_rows(request).append(pk)

    def message_user(
        self, request: HttpRequest, message: Any, level: int | str = messages.INFO, *args: Any, **kwargs: Any
    ) -> None:
        # Django's sentence after a deletion is where one looks when it was a mistake.
        if level == messages.SUCCESS and deleted_rows(request):
            message = self._with_undo(request, message)
            deleted_rows(request).clear()
        super().message_user(request, message, level, *args, **kwargs)

    def _with_undo(self, request: HttpRequest, message: Any) -> Any:
        pks = deleted_rows(request)
        if len(pks) > MOST_ROWS or not self.has_add_permission(request):
            return message
        filters = self.get_preserved_filters(request)
        # The button's form is in base_site.html, with a token against forgery: no message could keep one.
        return format_html(
            '{} <button type="submit" form="undo" formaction="{}{}" name="rows" value="{}">Undo</button>',
            message,
            reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_undo"),
            f"?{filters}" if filters else "",
            " ".join(map(str, pks)),
        )

    def undo_view(self, request: HttpRequest) -> HttpResponse:
        """Bring back the last versions of the rows that are named in ``rows``, and say which are not, and why."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        back = []
        for pk in [int(word) for word in request.POST.get("rows", "").split() if word.isdecimal()][:MOST_ROWS]:
            try:
                with self._counting(), transaction.atomic():
                    row = self._bring_back(request, pk)
                back.append(row)
            except MirrorBehindError as error:  # that one is saved
                self.message_user(request, str(error), messages.WARNING)
            except NotBroughtBack as error:
                self.message_user(request, error.args[0], messages.ERROR)
            except (MirrorError, DatabaseError) as error:
                # It would be the same with the others, and take as long.
                text = f"{'Nothing more' if back else 'Nothing'} was brought back. {self._explain(error)}"
                self.message_user(request, text, messages.ERROR)
                break
        if back:
            self.message_user(request, self._say_what_is_back(request, back), messages.SUCCESS)
        answer: HttpResponse = self.response_post_save_add(request, None)
        return answer

    def _bring_back(self, request: HttpRequest, pk: int) -> Any:
        """Save the last version of a deleted row as any other row is saved. Raises :class:`NotBroughtBack`."""
        versions = self.model.history.filter(**{self.opts.pk.attname: pk})
        # As they were saved: the clock may have been set back meanwhile.
        version = versions.order_by("-history_id").first()
        if version is None:
            raise NotBroughtBack(f"No version of this {self.opts.verbose_name} is left to bring back.")
        row = version.instance
        name = f"{self.opts.verbose_name} “{row}”"
        if self.model._base_manager.filter(pk=pk).exists() or self.model.with_filename(row.filename, DEFAULT_DB_ALIAS):
            raise NotBroughtBack(self._say_that_it_exists(name, pk))
        setattr(row, self.saved_by, request.user)
        try:
            row.save(force_insert=True)
        except IntegrityError as error:  # added in this moment
            raise NotBroughtBack(self._say_that_it_exists(name, pk)) from error
        except ValidationError as error:  # the limits are other ones now
            raise NotBroughtBack(f"The {name} was not brought back. {' '.join(error.messages)}") from error
        self.log_addition(request, row, "Its deletion was undone.")
        return row

    def _say_that_it_exists(self, name: str, pk: int) -> str:
        history = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_history", args=[quote(pk)])
        return format_html(
            'The {} exists again, and was left as it is. Its <a href="{}">history</a> has what was deleted.',
            name,
            history,
        )

    def _say_what_is_back(self, request: HttpRequest, rows: list[Any]) -> str:
        if len(rows) > 1:
            return f"{len(rows)} {model_ngettext(self.opts, len(rows))} are back, as they were."
        row = rows[0]
        if not self.has_view_or_change_permission(request, row):
            return f"The {self.opts.verbose_name} “{row}” is back, as it was."
        url = reverse(f"admin:{self.opts.app_label}_{self.opts.model_name}_change", args=[quote(row.pk)])
        return format_html('The {} “<a href="{}">{}</a>” is back, as it was.', self.opts.verbose_name, url, row)

    def _explain(self, error: Exception) -> str:
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


def deleted_rows(request: HttpRequest) -> list[Any]:
    """Primary keys of the rows that this request has deleted, and not told about yet."""
    rows: list[Any] = vars(request).setdefault("deleted_rows", [])
    return rows
