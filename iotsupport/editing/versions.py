"""The page of the versions of one configuration or asset: any two are compared, and each can be saved anew."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

from django.core.exceptions import PermissionDenied
from django.core.paginator import Page, Paginator
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path
from django.utils.http import urlencode
from django.views.decorators.http import require_safe

from iotsupport.editing.history import DELETED
from iotsupport.editing.numbered import Numbered, parse_number
from iotsupport.editing.undo import UndoingAdmin

PAGE_ROWS = 20
PAGE_PARAMETER = "p"

# A key of more digits is none.
MOST_DIGITS = 18

DONE = {"+": "added", "~": "", DELETED: "deleted"}


class Told(NamedTuple):
    """A version as the page tells it."""

    number: int
    version: Any
    is_now: bool
    """Whether it is what devices get."""

    @property
    def done(self) -> str:
        return DONE[self.version.history_type]

    @property
    def title(self) -> str:
        remark = "now" if self.is_now else "deleted" if self.version.history_type == DELETED else ""
        return f"version {self.number} ({remark})" if remark else f"version {self.number}"

    @property
    def by(self) -> str:
        return str(self.version.history_user or self.version.get_history_way_display() or "-")

    @property
    def way(self) -> str:
        """By which way, where that is not said by the name, or is not what everybody takes."""
        if self.version.history_token is not None:
            return f"token “{self.version.history_token}”" if self.version.history_token else "token"
        is_usual = self.version.history_way in {None, "admin"} or self.version.history_user is None
        return "" if is_usual else str(self.version.get_history_way_display())


class VersionsAdmin(UndoingAdmin):
    """Has the versions under their name, whatever rows had it; Django's own page of a row's history leads there."""

    # Of a version, what is not read where many are listed.
    large_fields: ClassVar[list[str]] = []
    # Shows what ``compare`` returns.
    comparison_template: ClassVar[str]

    def get_urls(self) -> list[URLPattern]:
        base, view = f"{self.opts.app_label}_{self.opts.model_name}", self.admin_site.admin_view
        return [
            path("versions/<str:name>/", view(self.versions_view), name=f"{base}_versions"),
            # Of this page's earlier form: people keep addresses.
            path(
                "<str:object_id>/history/<str:version_id>/",
                view(require_safe(self.version_view)),
                name=f"{base}_version",
            ),
            *super().get_urls(),
        ]

    def compare(self, old: Any, new: Any) -> dict[str, Any]:
        """What ``comparison_template`` shows of two versions or rows; ``old`` is None for nothing."""
        raise NotImplementedError

    def name_of(self, version: Any) -> str:
        """What a version of a row is called in lists."""
        return str(getattr(version, self.model.name_field))

    def current(self, name: str) -> Any:
        """Return the row that has this name now; None where there is none."""
        return self.model._base_manager.filter(**{self.model.name_field: self.model.spell(name)}).first()

    def history_view(self, request: HttpRequest, object_id: str, extra_context: Any = None) -> HttpResponse:
        return HttpResponseRedirect(self.versions_url(self._version_of_row(request, id=object_id)))

    def version_view(self, request: HttpRequest, object_id: str, version_id: str) -> HttpResponse:
        """Lead to the version of a row that has this key, compared with the last one."""
        version = self._version_of_row(request, id=object_id, history_id=version_id)
        versions = Numbered(self.model, getattr(version, self.model.name_field))
        query = urlencode({"old": versions.number_of(version), "new": versions.last})
        return HttpResponseRedirect(f"{self.versions_url(version)}?{query}")

    def _version_of_row(self, request: HttpRequest, **keys: str) -> Any:
        if not all(key.isascii() and key.isdecimal() and len(key) <= MOST_DIGITS for key in keys.values()):
            raise Http404
        return self.viewed(request, self.model.history.filter(**keys).order_by("-history_id").first())

    def viewed(self, request: HttpRequest, version: Any) -> Any:
        """Return a version that is there, and may be seen by who asks."""
        if not self.has_view_or_change_permission(request, version and version.instance):
            raise PermissionDenied
        if version is None:
            raise Http404
        return version

    def versions_view(self, request: HttpRequest, name: str) -> HttpResponse:
        """List the versions of a name, and show what is different between the two that are chosen."""
        versions = Numbered(self.model, name)
        newest = self.viewed(request, versions.get(versions.last))
        current = self.current(name)
        page = _page(request, versions)
        start = page.start_index() - 1
        listed = versions.newest(start, start + len(page.object_list), without=self.large_fields)
        context = {
            **self.page_context(request, newest, current),
            "title": f"{self.name_of(newest)}: versions",
            "listed": [_told(versions, number, version, current) for number, version in listed],
            "page_obj": page,
            "page_range": page.paginator.get_elided_page_range(page.number),
            "page_var": PAGE_PARAMETER,
            **self._difference(request, versions, current),
        }
        return TemplateResponse(request, "admin/versions.html", context)

    def _difference(self, request: HttpRequest, versions: Numbered, current: Any) -> dict[str, Any]:
        new = _asked(request, "new") or versions.last
        old = _asked(request, "old") or max(new - 1, versions.first)
        old, new = sorted([old, new])
        missing = next((number for number in [old, new] if not versions.first <= number <= versions.last), None)
        if missing is not None:
            is_over = missing < versions.first
            sentence = f"Version {missing} is not kept any more." if is_over else f"There is no version {missing}."
            return {"old": old, "new": new, "missing": sentence}
        told = [_told(versions, number, versions.get(number), current) for number in sorted({old, new})]
        may_restore = self.may_restore(request, current)
        return {
            "old": old,
            "new": new,
            "chosen": told,
            "restorable": [each for each in told if may_restore and not each.is_now],
            "comparison": self.compare(told[0].version if len(told) > 1 else None, told[-1].version),
            "comparison_template": self.comparison_template,
        }

    def page_context(self, request: HttpRequest, version: Any, current: Any) -> dict[str, Any]:
        """What all pages about versions of one name show."""
        return {
            **self.admin_site.each_context(request),
            "opts": self.opts,
            "name": getattr(version, self.model.name_field),
            "object": version.instance,
            "current": current,
            "urls": {name: f"admin:{self.opts.app_label}_{self.opts.model_name}_{name}" for name in PAGES},
        }


PAGES = ["changelist", "change", "versions", "restore"]


def _told(versions: Numbered, number: int, version: Any, current: Any) -> Told:
    return Told(number, version, current is not None and number == versions.last)


def _page(request: HttpRequest, versions: Numbered) -> Page[Any]:
    numbers = range(versions.last, versions.first - 1, -1)
    return Paginator(numbers, PAGE_ROWS).get_page(request.GET.get(PAGE_PARAMETER))


def _asked(request: HttpRequest, name: str) -> int | None:
    """Return the number that an address names; a form that nobody chose anything in has none."""
    # Of a chosen version that is on another page of the list, the form has a hidden field, ahead of the others.
    text = request.GET.get(name)
    if not text:
        return None
    number = parse_number(text)
    if number is None:
        raise Http404
    return number
