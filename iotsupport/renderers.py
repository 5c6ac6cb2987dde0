"""How forms become HTML; named in the settings."""

from __future__ import annotations

from typing import Any

from django.forms.boundfield import BoundField
from django.forms.renderers import DjangoTemplates
from django.http import HttpRequest
from django.utils.html import conditional_escape


class EscapedField(BoundField):
    """A field of a form whose help text is escaped, unless it was made as HTML: Django writes it as it is."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.help_text = conditional_escape(self.help_text)


class FormRenderer(DjangoTemplates):
    """Renders every form, of Django's and of others' apps, too, and leaves ``maxlength`` out of every field.

    A browser cuts what is pasted to it without a word, and what is left may pass: as the name of another board. What
    is too long is refused by the field, with a sentence, and shown again.
    """

    bound_field_class = EscapedField

    def render(self, template_name: str, context: dict[str, Any], request: HttpRequest | None = None) -> str:
        _leave_whole(context.get("widget"))
        return super().render(template_name, context, request)


def _leave_whole(widget: Any) -> None:
    if isinstance(widget, dict):
        widget.get("attrs", {}).pop("maxlength", None)
        for part in widget.get("subwidgets", []):
            _leave_whole(part)
