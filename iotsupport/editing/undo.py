"""Taking back a deletion: the message about it has a button that brings back the last version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.contrib import messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.utils.html import format_html
from django.views.decorators.http import require_POST

from iotsupport.editing.restoring import RestoringAdmin

# What one click brings back, at most: each is a save.
MOST_ROWS = 100


class UndoingAdmin(RestoringAdmin):
    """Offers to whoever deleted something here, and may add it, to take that back."""

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
            self._url("undo"),
            f"?{filters}" if filters else "",
            " ".join(map(str, pks)),
        )

    def undo_view(self, request: HttpRequest) -> HttpResponse:
        """Bring back the last versions of the rows that are named in ``rows``, and say which are not, and why."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        self.bring_back(request, self._last_versions(request), "Its deletion was undone.")
        answer: HttpResponse = self.response_post_save_add(request, None)
        return answer

    def _last_versions(self, request: HttpRequest) -> Iterator[Any]:
        for pk in [int(word) for word in request.POST.get("rows", "").split() if word.isdecimal()][:MOST_ROWS]:
            # As they were saved: the clock may have been set back meanwhile.
            version = self.model.history.filter(**{self.opts.pk.attname: pk}).order_by("-history_id").first()
            if version is None:
                sentence = f"No version of this {self.opts.verbose_name} is left to bring back."
                self.message_user(request, sentence, messages.ERROR)
            else:
                yield version


def deleted_rows(request: HttpRequest) -> list[Any]:
    """Primary keys of the rows that this request has deleted, and not told about yet."""
    rows: list[Any] = vars(request).setdefault("deleted_rows", [])
    return rows
