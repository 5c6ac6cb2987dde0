"""What helps to write a text, and saves nothing: *Format*, *Insert* beside a key of the type, and *Save as new*."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from django.core.exceptions import PermissionDenied, ValidationError
from django.http import HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from django.template.loader import render_to_string

from devices import documents
from devices.formatting import format_text
from devices.forms import ShownAgain
from devices.mistakes import line_and_column
from devices.models import DeviceConfig, DeviceType
from devices.parsing import parse_config
from devices.patching import insert_member
from devices.schemas.keys import Key, keys_of
from iotsupport.admin import MirroredAdmin
from iotsupport.errors import DATABASE_ERRORS

FORMAT, CHECK, INSERT, COPY = "_format", "_check", "_insert", "_copy"
KEYS = "_keys"
"""What a script sends when another type was chosen."""

COPY_NOTE = "A copy for another device: type its MAC address, then save. Nothing is saved yet."


@dataclass
class Edited:
    """A text after a button was pressed, and what there is to say."""

    text: str
    note: str = ""
    refusal: ValidationError | None = None
    """Why the text is as it was."""
    place: tuple[int, int] | None = None
    """Where that stands which is new."""


class EditorAdmin(MirroredAdmin):
    """Answers the buttons: with the form again, or with JSON where a script asks, which keeps the cursor."""

    def changeform_view(
        self, request: HttpRequest, object_id: str | None = None, form_url: str = "", extra_context: Any = None
    ) -> Any:
        buttons = {FORMAT, CHECK, INSERT, COPY, KEYS} & request.POST.keys() if request.method == "POST" else set()
        if not buttons:
            return super().changeform_view(request, object_id, form_url, extra_context)
        if not (self.has_add_permission(request) or self.has_change_permission(request)):
            raise PermissionDenied
        typed = request.POST.get("content", "").replace("\r\n", "\n")
        if COPY in buttons:
            copying = self.with_form(ShownAgain, content_shown=typed, note=COPY_NOTE, is_copy=True)
            return copying._changeform_view(request, None, self._url("add"), extra_context)
        device_type = self._chosen_type(request, object_id)
        edited = _edit(request, typed, device_type)
        if request.get_preferred_type(["text/html", "application/json"]) == "application/json":
            return _told(edited, device_type)
        refusals = [edited.refusal] if edited.refusal else []
        again = self.with_form(ShownAgain, content_shown=edited.text, note=edited.note, refusals=refusals)
        return again._changeform_view(request, object_id, form_url, extra_context)

    def render_change_form(self, request: HttpRequest, context: Any, *args: Any, **kwargs: Any) -> Any:
        form = context["adminform"].form
        if "content" in form.fields:
            with suppress(*DATABASE_ERRORS):  # what somebody typed is shown again without them
                device_type = _type_of(form["type"].value()) if "type" in form.fields else form.instance.type
                context.update(_keys_context(device_type, form["content"].value() or ""))
        return super().render_change_form(request, context, *args, **kwargs)

    def _chosen_type(self, request: HttpRequest, object_id: str | None) -> DeviceType | None:
        if "type" in request.POST:
            return _type_of(request.POST["type"])
        row = self.get_object(request, object_id) if object_id is not None else None
        return None if row is None else row.type


def _type_of(key: Any) -> DeviceType | None:
    return DeviceType.objects.filter(pk=key).first() if str(key).isdecimal() else None


def _edit(request: HttpRequest, typed: str, device_type: DeviceType | None) -> Edited:
    if {CHECK, KEYS} & request.POST.keys():
        return _check(typed, device_type)
    if FORMAT in request.POST:
        try:
            return Edited(format_text(typed), "Formatted. Nothing is saved yet.")
        except ValidationError as error:
            return Edited(typed, f"Not formatted. {error.message}", error)
    return _insert(typed, device_type, request.POST[INSERT])


def _check(typed: str, device_type: DeviceType | None) -> Edited:
    """Say whether a text can be saved with the type that is chosen beside it."""
    try:
        DeviceConfig(content=typed, type=device_type).check_text()
    except ValidationError as error:
        return Edited(typed, " ".join(error.messages), error)
    return Edited(typed, f"It fits the type “{device_type}”." if device_type else "Nothing is wrong with it.")


def _insert(typed: str, device_type: DeviceType | None, value: str) -> Edited:
    try:
        parse_config(typed)
    except ValidationError as error:
        return Edited(typed, f"Not inserted. {error.message}", error)
    keys = {} if device_type is None else {key.value: key for key in keys_of(device_type.schema, typed)}
    key = keys.get(value)
    if key is None:
        return Edited(typed, "Not inserted. The type does not have this key any more: look at its keys again.")
    if not key.is_open:
        return Edited(typed, f"Not inserted. {key.name} is there already, or something else stands in its place.")
    text = insert_member(typed, key.path, key.source)
    node = documents.find(documents.locate(text), key.path)
    place = None if node is None else (node.start, node.end)
    return Edited(text, f"{key.name} is inserted. Nothing is saved yet.", place=place)


def _told(edited: Edited, device_type: DeviceType | None) -> HttpResponseBase:
    keys = render_to_string("devices/keys.html", _keys_context(device_type, edited.text))
    place = edited.place and [_at(edited.text, position) for position in edited.place]
    refused = None
    if edited.refusal is not None:
        refused = {name: getattr(edited.refusal, name, None) for name in ["line", "column"]}
    return JsonResponse({"content": edited.text, "note": edited.note, "refused": refused, "place": place, "keys": keys})


def _at(text: str, position: int) -> dict[str, int]:
    line, column = line_and_column(text, position)
    return {"line": line, "column": column}


def _keys_context(device_type: DeviceType | None, typed: str) -> dict[str, Any]:
    keys: list[Key] = []
    if device_type is not None:
        keys = keys_of(device_type.schema, _readable(typed.replace("\r\n", "\n")))
    return {"keys": keys, "device_type": device_type}


def _readable(text: str) -> str | None:
    try:
        parse_config(text)
    except ValidationError:
        return None
    return text
