"""The page that asks whether an earlier version is to be saved anew: it shows what that changes."""

from __future__ import annotations

from typing import Any

from django import forms
from django.contrib import messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import DatabaseError
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path

from iotsupport.editing import origins
from iotsupport.editing.numbered import Numbered, parse_number
from iotsupport.editing.reasons import ReasonField
from iotsupport.editing.restoring import NotRestored
from iotsupport.editing.versions import VersionsAdmin
from iotsupport.mirror.files import MirrorBehindError, MirrorError

CHANGED_MEANWHILE = (
    "It was changed while you were looking. Nothing was saved. Below is the difference to what is there now."
)


class RestoreForm(forms.Form):
    # Shown where the model refuses the version, and may be overruled.
    anyway = forms.BooleanField(label="Restore it although it does not fit", required=False)
    reason = ReasonField(help_text="")
    # What the page showed as what there is: the digest of its bytes, empty for nothing.
    based_on = forms.CharField(required=False, widget=forms.HiddenInput)


class RestorePageAdmin(VersionsAdmin):
    def get_urls(self) -> list[URLPattern]:
        name = f"{self.opts.app_label}_{self.opts.model_name}_restore"
        view = self.admin_site.admin_view(self.restore_view)
        return [path("versions/<str:name>/<str:number>/restore/", view, name=name), *super().get_urls()]

    def may_overrule(self, error: ValidationError) -> bool:
        """Whether a person may save a version although the model refuses it with this error."""
        return False

    def overrule(self, row: Any) -> None:
        """Let the model save a row that it would refuse with such an error."""

    def restore_view(self, request: HttpRequest, name: str, number: str) -> HttpResponse:
        """Show what restoring a version changes, and do it when it is confirmed."""
        wanted = parse_number(number)
        version = None if wanted is None else Numbered(self.model, name).get(wanted)
        self.viewed(request, version)
        if not self.may_restore(request, self.current(name)):
            raise PermissionDenied
        form = RestoreForm(request.POST) if request.method == "POST" else None
        refusal = ""
        if form is not None and form.is_valid():
            try:
                return self._restore(request, version, wanted, form.cleaned_data)
            except NotRestored as error:
                refusal = f"Nothing was saved. {error.args[0]}"
            except MirrorBehindError as error:
                self.message_user(request, str(error), messages.WARNING)
                return HttpResponseRedirect(self.versions_url(version))
            except (MirrorError, DatabaseError) as error:
                refusal = f"Nothing was saved. {self.explain(error)}"
        return self._ask_to_restore(request, version, wanted, form, refusal)

    def _restore(self, request: HttpRequest, version: Any, number: Any, cleaned: dict[str, Any]) -> HttpResponse:
        def check(row: Any) -> None:
            if _digest(row if row.pk else None) != cleaned["based_on"]:
                raise NotRestored(CHANGED_MEANWHILE)
            if cleaned["anyway"]:
                self.overrule(row)

        done = f"Restored from version {number}"
        origins.current().reason = cleaned["reason"] or done
        is_new = self.current(getattr(version, self.model.name_field)) is None
        row = self.restore_version(request, version, check)
        (self.log_addition if is_new else self.log_change)(request, row, f"{done}.")
        self.message_user(request, f"Version {number} of {row} is saved anew.", messages.SUCCESS)
        return HttpResponseRedirect(self.versions_url(row))

    def _ask_to_restore(
        self, request: HttpRequest, version: Any, number: Any, form: RestoreForm | None, refusal: str
    ) -> HttpResponse:
        current = self.current(getattr(version, self.model.name_field))
        reason = form["reason"].value() if form is not None else ""
        problem, may_overrule = self._problem(version)
        context = {
            **self.page_context(request, version, current),
            "title": f"Restore version {number} of {self.name_of(version)}?",
            "number": number,
            "refusal": refusal,
            "problem": problem,
            "may_overrule": may_overrule,
            "form": form
            if form is not None and form.errors
            else RestoreForm(initial={"reason": reason, "based_on": _digest(current)}),
            "comparison": self.compare(current, version),
            "comparison_template": self.comparison_template,
        }
        return TemplateResponse(request, "admin/restore.html", context)

    def _problem(self, version: Any) -> tuple[str, bool]:
        """Say why a version cannot be saved anew as it is, empty where it can; and whether it can be all the same."""
        name = getattr(version, self.model.name_field)
        row = self.current(name) or self.model(**{self.model.name_field: self.model.spell(name)})
        try:
            row.take_version(version)
            row.clean()
        except ValidationError as error:
            return " ".join(error.messages), self.may_overrule(error)
        except MirrorError as error:
            return str(error), False
        return "", False


def _digest(row: Any) -> str:
    return "" if row is None else row.content_sha256
