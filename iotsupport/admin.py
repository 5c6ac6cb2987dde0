"""What the admin of both kinds of file shares."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from copy import copy
from time import perf_counter
from typing import Any, ClassVar, Self

from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import DatabaseError, IntegrityError, transaction
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect, QueryDict
from django.http.response import HttpResponseBase
from django.urls import reverse

from iotsupport.accounts.token_pages import ApiTokenAdmin
from iotsupport.characters import fold
from iotsupport.editing import origins
from iotsupport.editing.reasons import check_reason
from iotsupport.editing.restore_page import RestorePageAdmin
from iotsupport.errors import explain_database, is_outage, log_outage
from iotsupport.mirror.files import MirrorBehindError, MirrorError

__all__ = ["ApiTokenAdmin", "AsksFirst", "MirroredAdmin", "RefusedForm"]

logger = logging.getLogger(__name__)

View = Callable[..., HttpResponseBase]


class AsksFirst(Exception):
    """Raised while a change is saved: nothing is, until somebody has answered what ``page`` asks."""

    def __init__(self, page: Callable[[HttpRequest], HttpResponseBase]) -> None:
        super().__init__()
        self.page = page


class RefusedForm(ModelForm):  # type: ignore[type-arg]
    """A form that is shown again with a reason found while saving: what was typed is still there."""

    refusal: str

    def clean(self) -> dict[str, Any] | None:
        self.add_error(None, ValidationError(self.refusal, code="STORAGE_UNAVAILABLE"))
        return super().clean()


class MirroredAdmin(RestorePageAdmin):
    """Refuses a change with a sentence where it cannot be stored: the form is shown again with what was typed."""

    # Of 50,000 rows, one COUNT is enough.
    show_full_result_count = False
    delete_confirmation_template = "admin/delete_mirrored.html"
    asks_for_reason = True
    # The model of the list of what was deleted.
    deleted_model: ClassVar[Any]

    @property
    def deleted_url(self) -> str:
        opts = self.deleted_model._meta
        return reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist")

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        if request.method != "POST" or not transaction.get_connection().in_atomic_block:
            return super().get_object(request, object_id, from_field)
        # Until the commit nobody else may change or delete it. On SQLite, the transaction alone sees to that.
        rows = self.get_queryset(request).select_for_update()
        field = self.opts.get_field(from_field) if from_field else self.opts.pk
        try:
            return rows.get(**{field.name: field.to_python(object_id)})
        except (self.model.DoesNotExist, ValidationError, ValueError):
            return None

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        # Django's begins a transaction of its own, which would be a savepoint of this one. Shown again without any: a
        # database that cannot be written, or is locked, begins none.
        again = MirroredAdmin._changeform_view
        return self._save(request, self._changeform_view, *args, again=again, **kwargs)

    def save_form(self, request: HttpRequest, form: Any, change: bool) -> Any:
        origins.current().reason = form.cleaned_data.get("reason", "")
        return super().save_form(request, form, change)

    def save_model(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        setattr(obj, self.saved_by, request.user)
        super().save_model(request, obj, form, change)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        found: tuple[QuerySet[Any], bool] = super().get_search_results(request, queryset, fold(search_term))
        return found

    def _save(self, request: HttpRequest, view: View, *args: Any, again: View, **kwargs: Any) -> HttpResponseBase:
        """Answer with ``view``, and where it is refused with ``again``, of an admin whose form does not pass."""
        if request.method != "POST":
            return view(request, *args, **kwargs)
        start = perf_counter()
        refusal_code: str | None = "OTHER"
        try:
            response = self._refusing(request, view, again, *args, **kwargs)
            refusal_code = _refusal_code(response)
            return response
        except PermissionDenied:
            refusal_code = "FORBIDDEN"
            raise
        finally:
            if not getattr(request, "is_not_counted", False):
                self.count_save(refusal_code, perf_counter() - start)

    def prepared(self, request: HttpRequest) -> AbstractContextManager[None]:
        """Do what can be done ahead of the transaction, in which nobody else can save."""
        return nullcontext()

    def _refusing(self, request: HttpRequest, view: View, again: View, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            return self._saving(request, view, *args, **kwargs)
        except MirrorBehindError as error:
            return self._back(request, error)
        except MirrorError as error:
            refusal = str(error)
        except IntegrityError:
            refusal = f"Another {self.opts.verbose_name} has this name. Find it in the list, and change that one."
        except DatabaseError as error:
            if is_outage(error):
                log_outage(error)
            else:
                logger.exception("The database refused a change made in the admin")
            refusal = explain_database(error) or (
                f"The database could not store it ({error}). Try again; the server's log says more."
            )
        # It is rolled back by now.
        return again(self._refused(refusal), request, *args, **kwargs)

    def _saving(self, request: HttpRequest, view: View, *args: Any, **kwargs: Any) -> HttpResponseBase:
        try:
            with self.prepared(request), transaction.atomic():
                return view(request, *args, **kwargs)
        except AsksFirst as question:
            # Until it is answered.
            request.is_not_counted = True  # type: ignore[attr-defined]
            with transaction.atomic():
                return question.page(request)

    def _refused(self, reason: str) -> Self:
        """As this one, but its form does not pass, and says why."""
        return self.with_form(RefusedForm, refusal=f"Nothing was saved. {reason}")

    def with_form(self, kind: type[ModelForm[Any]], **attributes: Any) -> Self:
        """As this one, but its form is also of this kind, which has these attributes."""
        other = copy(self)
        other.form = type(type(self).form.__name__, (kind, type(self).form), attributes)
        return other

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> Any:
        if request.method != "POST" or "post" in request.POST:  # that is "Yes, I'm sure", of a deletion
            return super()._get_obj_does_not_exist_redirect(request, opts, object_id)
        # What was typed must not go with the row.
        self.require_add_permission(request)
        reason = f"This {opts.verbose_name} was deleted while you were editing. Save here to add it again."
        return self._refused(reason)._changeform_view(request, None, self._url("add"), None)

    def require_add_permission(self, request: HttpRequest) -> None:
        """Raise ``PermissionDenied``, whose page shows what was typed, for who may not add anew what was deleted."""
        if not self.has_add_permission(request):
            raise PermissionDenied(
                f"This {self.opts.verbose_name} was deleted while you were editing, and you may not add one. Have"
                " somebody who may bring it back, then send this again, or give them what you typed."
            )

    def delete_view(self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None) -> Any:
        reason = request.POST.get("reason", "")
        try:
            origins.current().reason = check_reason(reason)
        except ValidationError as error:
            asked = copy(request)
            asked.method, asked.POST = "GET", QueryDict()
            extra_context = {**(extra_context or {}), "reason": reason, "reason_errors": error.messages}
            return super().delete_view(asked, object_id, extra_context)
        try:
            return super().delete_view(request, object_id, extra_context)
        except MirrorError as error:
            return self._back(request, error)

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> Any:
        try:
            return super().changelist_view(request, {"deleted_url": self.deleted_url, **(extra_context or {})})
        except MirrorError as error:  # from "Delete selected"
            return self._back(request, error)

    def delete_queryset(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        """Delete all of them, or none; each as :meth:`delete_model` does."""
        with transaction.atomic():
            for row in queryset:
                self.delete_model(request, row)

    def _back(self, request: HttpRequest, error: MirrorError) -> HttpResponse:
        if isinstance(error, MirrorBehindError):
            self.message_user(request, str(error), messages.WARNING)
        else:
            self.message_user(request, f"Nothing was changed. {error}", messages.ERROR)
        return HttpResponseRedirect(self._url("changelist"))


def _refusal_code(response: HttpResponseBase) -> str | None:
    """The code of the first error of a form that is shown again; None where it was saved."""
    context = getattr(response, "context_data", None) or {}
    if "adminform" not in context:
        return None
    errors = context["adminform"].form.errors.as_data().values()
    return next((error.code for field_errors in errors for error in field_errors if error.code), "OTHER")
