"""The page on which somebody chooses between two changes of one configuration. Nothing is overwritten unseen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import NON_FIELD_ERRORS
from django.http import HttpRequest
from django.urls import reverse

from devices.conflicts import Conflict, shown_of
from devices.models import DeviceConfig
from iotsupport.admin import MirroredAdmin, RefusedForm
from iotsupport.editing.differences import Row

# Of a form, what each choice says anew.
CHOSEN = {"content", "based_on", "mac_address", "csrfmiddlewaretoken"}


@dataclass
class Choice:
    """A button that sends one of the texts, and what that does to the text that is there now."""

    name: str
    label: str
    explanation: str
    action: str
    fields: list[tuple[str, str]]
    difference: Callable[[], list[Row]] | None = None
    """Compares when the page is made: until then, nobody else can save."""
    is_safe: bool = False
    """Whether nothing that others did goes."""


class ChoosingAdmin(MirroredAdmin):
    def render_change_form(
        self, request: HttpRequest, context: Any, *args: Any, add: bool = False, **kwargs: Any
    ) -> Any:
        form = context["adminform"].form
        conflict: Conflict | None = getattr(form, "conflict", None)
        if conflict is not None and self._may_see(request, conflict):
            if not add:
                form.take_suggestion()
            context.update(conflict=conflict, choices=self._choices(request, conflict, form, is_new=add))
            if form.errors.keys() == {NON_FIELD_ERRORS} and len(form.non_field_errors()) == 1:
                context["errors"] = []  # the page says it, and nothing is to be corrected
        return super().render_change_form(request, context, *args, add=add, **kwargs)

    def _may_see(self, request: HttpRequest, conflict: Conflict) -> bool:
        return conflict.row is None or self.has_view_or_change_permission(request, conflict.row)

    def _choices(self, request: HttpRequest, conflict: Conflict, form: Any, *, is_new: bool) -> list[Choice]:
        kept = [(name, value) for name, values in form.data.lists() for value in values if _is_kept(name)]
        row = conflict.row
        if "content" in form.errors:
            return []
        if row is None:
            fields = [("mac_address", conflict.mac_address), ("content", conflict.mine), *kept]
            label = "Bring it back with your text"
            explanation = "The device gets a configuration again."
            return [Choice("mine", label, explanation, self._url("add"), fields, is_safe=True)]
        if not self.has_change_permission(request, row) or conflict.mine == conflict.theirs:
            return []
        action, based_on = _change_url(row), ("based_on", shown_of(row))
        mine = Choice(
            "mine",
            "Replace it with yours" if is_new else "Save yours alone",
            f"What {conflict.who} saved stays in the history alone.",
            action,
            [("content", conflict.mine), based_on, *kept],
            conflict.replacing_difference,
        )
        if not conflict.is_merged_whole:
            return [mine]
        both = Choice(
            "both",
            "Save both",
            f"You changed other lines than {conflict.who}: this is what yours change in what is there now.",
            action,
            [("content", conflict.suggestion), based_on, *kept],
            conflict.merged_difference,
            is_safe=True,
        )
        return [both, mine]

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> Any:
        last = None
        if "content" in request.POST and object_id.isdecimal():
            last = DeviceConfig.history.filter(id=object_id).first()
        if last is None:
            return super()._get_obj_does_not_exist_redirect(request, opts, object_id)
        successor = DeviceConfig.objects.filter(mac_address=last.mac_address).first()
        if successor is not None:
            return self._changeform_view(request, str(successor.pk), _change_url(successor), None)
        self.require_add_permission(request)
        conflict = Conflict.of_deleted(last, request.POST["content"], request.POST.get("based_on", ""))
        refusal = (
            f"{conflict.who} deleted this configuration while you were editing. Nothing of yours is saved yet,"
            " and nothing of it is lost: bring it back with your text, or leave it deleted."
        )
        asking = self.with_form(RefusedForm, refusal=refusal, conflict=conflict, known_mac_address=last.mac_address)
        return asking._changeform_view(request, None, self._url("add"), None)


def _change_url(row: DeviceConfig) -> str:
    return reverse("admin:devices_deviceconfig_change", args=[row.pk])


def _is_kept(name: str) -> bool:
    return name not in CHOSEN and not name.startswith("_")
