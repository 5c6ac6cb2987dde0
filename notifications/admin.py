"""What is still to be announced, in the admin; and announcing files again that did not change."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

from django.contrib import admin, messages
from django.contrib.admin.views.main import ChangeList
from django.core.exceptions import PermissionDenied
from django.db import transaction
from django.db.models import F, QuerySet, Value
from django.db.models.functions import Concat
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.html import format_html
from django.views.decorators.http import require_POST

from iotsupport.times import since, told
from notifications.messages import ASSETS_TOPIC, CONFIGS_TOPIC
from notifications.models import Announcement
from notifications.publisher import OLD_PROTOCOL, publisher
from notifications.relay import MODELS


class FileName(NamedTuple):
    """Of what a file's name is made: the names of 50,000 are found without reading their rows."""

    field: str
    suffix: str


FILE_NAMES = {CONFIGS_TOPIC: FileName("mac_address", ".json"), ASSETS_TOPIC: FileName("filename", "")}
KINDS = {CONFIGS_TOPIC: "configuration", ASSETS_TOPIC: "asset"}

NEXT_TRIES = {
    "connected": "at once",
    "disconnected": "when the broker is back",
    "off": "when notifications are on",
}


def announce_again(model_admin: Any, request: HttpRequest, filenames: dict[str, list[str]]) -> None:
    """Record the files of each topic again, and say so to who asked for it."""
    if not publisher.is_on:
        text = "Nothing is announced: notifications are off. Set MQTT_URL, then restart the server."
        model_admin.message_user(request, text, messages.WARNING)
        return
    count = sum(map(len, filenames.values()))
    if not count:  # in the list of what is owed, that is good news
        model_admin.message_user(request, "What you chose was announced meanwhile, or deleted.", messages.INFO)
        return
    for topic, names in filenames.items():
        Announcement.objects.record_again(topic, names)
    transaction.on_commit(publisher.wake, robust=True)
    is_connected = publisher.state() == "connected"
    verb = ("is" if count == 1 else "are") if is_connected else "will be"
    text = f"{count} file{'' if count == 1 else 's'} {verb} announced again"
    model_admin.message_user(request, f"{text}{'' if is_connected else ' when the broker is back'}.", messages.SUCCESS)


def announce_again_action(topic: str) -> Callable[[Any, HttpRequest, QuerySet[Any]], None]:
    """An action for the list of the files that are announced on a topic."""

    @admin.action(description="Announce again", permissions=["change"])
    def announce_again_selected(model_admin: Any, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        field, suffix = FILE_NAMES[topic]
        names = queryset.order_by().values_list(field, flat=True)
        announce_again(model_admin, request, {topic: [name + suffix for name in names.iterator()]})

    return announce_again_selected


for _topic, _model in MODELS.items():
    # Neither app knows of announcements: this one adds what it has to offer.
    _model_admin = admin.site.get_model_admin(_model)
    _model_admin.actions = [*(_model_admin.actions or []), announce_again_action(_topic)]


class OwedFilter(admin.SimpleListFilter):
    """Shows what is owed, unless something else is asked for."""

    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("announced", "Announced"), ("all", "All")]

    def choices(self, changelist: ChangeList) -> Iterator[dict[str, Any]]:  # type: ignore[override]
        chosen = self.value() if self.value() in dict(self.lookup_choices) else None
        for value, title in [(None, "Owed"), *self.lookup_choices]:
            parameters = {self.parameter_name: value}
            yield {
                "selected": value == chosen,
                "query_string": changelist.get_query_string(parameters),
                "display": title,
            }

    def queryset(self, request: HttpRequest, queryset: QuerySet[Announcement]) -> QuerySet[Announcement]:
        if self.value() == "all":
            return queryset
        return queryset.filter(owed_since__isnull=self.value() == "announced")


class AnnouncementList(ChangeList):
    """Finds the pages of the listed files with one query for each of their models."""

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        rows: list[Announcement] = list(self.result_list)
        for topic, model in MODELS.items():
            listed = [row for row in rows if row.topic == topic]
            if listed and admin.site.get_model_admin(model).has_view_permission(request):
                urls = _find_pages(topic, [row.filename for row in listed])
                for row in listed:
                    row.url = urls.get(row.filename)  # type: ignore[attr-defined]
        self.result_list = rows


def _find_pages(topic: str, filenames: Iterable[str]) -> dict[str, str]:
    """File names, and where in the admin each file is edited."""
    model, (field, suffix) = MODELS[topic], FILE_NAMES[topic]
    names = [filename.removesuffix(suffix) for filename in filenames]
    rows = model._base_manager.filter(**{f"{field}__in": names}).values_list(field, "pk")
    list_url = reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_changelist")
    return {name + suffix: f"{list_url}{pk}/change/" for name, pk in rows}


@admin.register(Announcement)
class AnnouncementAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Shows the announcements. They come with files and go with them; all one can do is to ask for another one."""

    list_display = ["file", "kind", "owed", "failed", "error", "next_try", "announced"]
    list_display_links = None
    list_filter = [OwedFilter]
    # What is owed longest first; of what is announced, the last one.
    ordering = [F("owed_since").asc(nulls_last=True), "-announced_at", "pk"]
    search_fields = ["filename"]
    search_help_text = "File name; of a configuration also its MAC address in any spelling, or its device's name"
    actions = ["announce_again"]
    fields = ["filename", "topic", "owed_since", "tries", "last_error", "retry_at", "announced_at"]
    # Of 50,000 rows, one COUNT is enough.
    show_full_result_count = False
    show_facets = admin.ShowFacets.NEVER

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(require_POST(self.announce_again_view))
        return [path("again/", view, name="notifications_announcement_again"), *super().get_urls()]

    def announce_again_view(self, request: HttpRequest) -> HttpResponse:
        """Announce the file of one row, which fields of the form name, and go back to its page."""
        topic, pk = request.POST.get("topic", ""), request.POST.get("row", "")
        if topic not in MODELS:
            raise Http404
        model_admin = admin.site.get_model_admin(MODELS[topic])
        row = model_admin.get_object(request, pk)
        if row is None:
            raise Http404
        if not model_admin.has_change_permission(request, row):
            raise PermissionDenied
        announce_again(model_admin, request, {topic: [row.filename]})
        opts = model_admin.opts
        return HttpResponseRedirect(reverse(f"admin:{opts.app_label}_{opts.model_name}_change", args=[row.pk]))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Announcement | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Announcement | None = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: Announcement | None = None) -> bool:
        return super().has_view_permission(request, obj) or self.has_announce_permission(request)

    def has_announce_permission(self, request: HttpRequest) -> bool:
        return super().has_change_permission(request)

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[ChangeList]:
        return AnnouncementList

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        context = {
            "title": "Announcements",
            "is_off": not publisher.is_on,
            "speaks_old_protocol": publisher.protocol() == OLD_PROTOCOL,
            **(extra_context or {}),
        }
        return super().changelist_view(request, context)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Announcement], search_term: str
    ) -> tuple[QuerySet[Announcement], bool]:
        found, may_have_duplicates = super().get_search_results(request, queryset, search_term)
        for topic, model in MODELS.items():
            model_admin = admin.site.get_model_admin(model)
            if search_term.strip() and model_admin.has_view_permission(request):
                matching, _ = model_admin.get_search_results(request, model._base_manager.order_by(), search_term)
                field, suffix = FILE_NAMES[topic]
                found |= queryset.filter(topic=topic, filename__in=matching.values_list(Concat(field, Value(suffix))))
        return found, may_have_duplicates

    @admin.display(description="file", ordering="filename")
    def file(self, obj: Announcement) -> str:
        url = getattr(obj, "url", None)
        return format_html('<a href="{}">{}</a>', url, obj.filename) if url else obj.filename

    @admin.display(description="kind", ordering="topic")
    def kind(self, obj: Announcement) -> str:
        return KINDS.get(obj.topic, obj.topic)

    @admin.display(description="owed", ordering="owed_since", empty_value="announced")
    def owed(self, obj: Announcement) -> str | None:
        return since(obj.owed_since) if obj.owed_since else None

    @admin.display(description="tries", ordering="tries")
    def failed(self, obj: Announcement) -> int:
        return obj.tries

    @admin.display(description="last error", ordering="last_error")
    def error(self, obj: Announcement) -> str:
        return obj.last_error

    @admin.display(description="next try", ordering="retry_at")
    def next_try(self, obj: Announcement) -> Any:
        now = timezone.now()
        if obj.owed_since is None:
            return None
        if obj.claimed_until and obj.claimed_until > now:
            return "being sent"
        if obj.retry_at and obj.retry_at > now:
            return told(obj.retry_at)
        if publisher.suspension(obj.topic):
            return "within a minute"
        return NEXT_TRIES[publisher.state()]

    @admin.display(description="announced", ordering="announced_at")
    def announced(self, obj: Announcement) -> str | None:
        return told(obj.announced_at) if obj.announced_at else None

    @admin.action(description="Announce again", permissions=["announce"])
    def announce_again(self, request: HttpRequest, queryset: QuerySet[Announcement]) -> None:
        filenames = defaultdict(list)
        for topic, filename in queryset.order_by().values_list("topic", "filename").iterator():
            filenames[topic].append(filename)
        announce_again(self, request, filenames)
