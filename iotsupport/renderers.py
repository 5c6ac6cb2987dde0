"""How forms become HTML; named in the settings."""

from __future__ import annotations

from typing import Any

from django.forms.renderers import DjangoTemplates
from django.http import HttpRequest


class UncutRenderer(DjangoTemplates):
    """Leaves ``maxlength`` out of every field.

    A browser cuts what is pasted to it without a word, and what is left may pass: as the name of another board. What
    is too long is refused by the field, with a sentence, and shown again.
    """

    def render(self, template_name: str, context: dict[str, Any], request: HttpRequest | None = None) -> str:
        _leave_whole(context.get("widget"))
        return super().render(template_name, context, request)


def _leave_whole(widget: Any) -> None:
    if isinstance(widget, dict):
        widget.get("attrs", {}).pop("maxlength", None)
        for part in widget.get("subwidgets", []):
            _leave_whole(part)
