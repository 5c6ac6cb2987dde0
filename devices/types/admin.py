"""The pages of device types. A schema that refuses configurations is saved after somebody has seen which."""

from __future__ import annotations

from typing import Any, ClassVar

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied, ValidationError
from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from devices import telling
from devices.models import DeviceConfig, DeviceType, SchemaDraft
from devices.types import marking
from devices.types.forms import DeviceTypeForm
from devices.types.models import ChangedMeanwhile
from iotsupport.admin import AsksFirst
from iotsupport.characters import fold
from iotsupport.editing.differences import difference
from iotsupport.editing.restore_page import RestorePageAdmin
from iotsupport.times import told

# How often the page of a schema that is being tried looks how far it is.
LOOK_SECONDS = 2


def configs_url(device_type: DeviceType, **filters: str) -> str:
    """The list of the configurations of a type."""
    query = "&".join(f"{name}={value}" for name, value in {"type": str(device_type.pk), **filters}.items())
    return f"{reverse('admin:devices_deviceconfig_changelist')}?{query}"


@admin.register(DeviceType)
class DeviceTypeAdmin(RestorePageAdmin):
    form = DeviceTypeForm
    saved_by = "updated_by"
    count_save = staticmethod(lambda refusal_code, seconds: None)
    comparison_template = "admin/includes/difference.html"
    large_fields: ClassVar[list[str]] = ["schema", "starting_content"]
    list_display = ["name", "devices", "misfits", "changed"]
    list_select_related = ["updated_by"]
    search_fields = ["folded__contains", "description"]
    search_help_text = "Name or description"
    show_full_result_count = False

    def compare(self, old: Any, new: Any) -> dict[str, Any]:
        return {"rows": difference("" if old is None else _as_text(old), _as_text(new))}

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeviceType]:
        types: QuerySet[DeviceType] = super().get_queryset(request)
        return types.annotate(count=_count(), misfit_count=_count(fits=False))

    def get_fields(self, request: HttpRequest, obj: DeviceType | None = None) -> list[str]:
        fields = ["name", "description", "schema", "starting_content"]
        if obj is None:
            return fields
        if self.has_change_permission(request, obj):
            fields.append("based_on")
        return [*fields, "devices", "misfits", "updated_at", "updated_by"]

    def get_readonly_fields(self, request: HttpRequest, obj: DeviceType | None = None) -> list[str]:
        return [] if obj is None else ["devices", "misfits", "updated_at", "updated_by"]

    def get_search_results(self, request: HttpRequest, queryset: QuerySet[Any], search_term: str) -> Any:
        return super().get_search_results(request, queryset, fold(search_term))

    @admin.display(description="devices", ordering="count")
    def devices(self, obj: DeviceType) -> SafeString | str:
        count = getattr(obj, "count", 0)
        return format_html('<a href="{}">{}</a>', configs_url(obj), count) if count else "none"

    @admin.display(description="do not fit", ordering="misfit_count")
    def misfits(self, obj: DeviceType) -> SafeString | str:
        count = getattr(obj, "misfit_count", 0)
        so_far = " so far: the others are being looked at" if obj.marks_after is not None else ""
        if not count:
            return f"none{so_far}"
        url = configs_url(obj, fits="no")
        return format_html('<a href="{}" class="state behind">{}</a>{}', url, count, so_far)

    @admin.display(description="changed", ordering="updated_at")
    def changed(self, obj: DeviceType) -> SafeString | str:
        return telling.with_second(told(obj.updated_at), str(obj.updated_by or ""))

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        response: HttpResponse = super().changelist_view(request, {"title": "Device types", **(extra_context or {})})
        return response

    def get_urls(self) -> list[URLPattern]:
        view = self.admin_site.admin_view(self.draft_view)
        return [path("draft/<int:pk>/", view, name="devices_devicetype_draft"), *super().get_urls()]

    def get_object(self, request: HttpRequest, object_id: str, from_field: str | None = None) -> Any:
        device_type = super().get_object(request, object_id, from_field)
        if device_type is None or request.method == "POST" or "draft" not in request.GET:
            return device_type
        # What somebody typed before they saw what would not fit.
        draft = self._drafts(request).filter(pk__in=_number(request.GET["draft"]), type=device_type).first()
        if draft is not None:
            draft.copy_to(device_type)
            device_type.based_on = draft.based_on
        return device_type

    def changeform_view(self, request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().changeform_view(request, *args, **kwargs)
        except AsksFirst as question:  # the transaction is over
            return question.page(request)

    def save_model(self, request: HttpRequest, obj: DeviceType, form: Any, change: bool) -> None:
        obj.updated_by = request.user  # type: ignore[assignment]
        if change and "schema" in form.changed_data and obj.configs.exists():
            draft = SchemaDraft.of(obj, based_on=form.cleaned_data["based_on"], typed_by=request.user)
            raise AsksFirst(lambda request: self._try(request, draft))
        super().save_model(request, obj, form, change)

    def _try(self, request: HttpRequest, draft: SchemaDraft) -> HttpResponse:
        """Save what was typed where all configurations fit and are few; else show which would not."""
        SchemaDraft.objects.filter(type=draft.type, typed_by=draft.typed_by).delete()  # what was typed before
        draft.save()
        if draft.total <= marking.FEW:
            marking.finish_draft(draft)
            draft.refresh_from_db()
            if draft.is_tried and not draft.misfits:
                return self._apply(request, draft)
        return HttpResponseRedirect(reverse("admin:devices_devicetype_draft", args=[draft.pk]))

    def draft_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        """Show which configurations a schema would refuse, or how far it is in finding out; and save it."""
        draft = self._drafts(request).filter(pk=pk).first()
        if draft is None:
            self.message_user(request, "This schema was saved or given up meanwhile.", messages.INFO)
            return HttpResponseRedirect(reverse("admin:devices_devicetype_changelist"))
        if not self.has_change_permission(request, draft.type):
            raise PermissionDenied
        if request.method == "POST" and draft.may_be_saved:
            return self._apply(request, draft)
        context = {
            **self.admin_site.each_context(request),
            "title": f"Which configurations would fit “{draft.name}”",
            "opts": self.opts,
            "draft": draft,
            "may_view": request.user.has_perm("devices.view_deviceconfig"),
            "unnamed": draft.misfits - len(draft.found),
            "look_seconds": LOOK_SECONDS,
            "edit_url": f"{self._change_url(draft.type)}?draft={draft.pk}",
        }
        return TemplateResponse(request, "admin/devices/devicetype/draft.html", context)

    def _drafts(self, request: HttpRequest) -> QuerySet[SchemaDraft]:
        return SchemaDraft.objects.filter(typed_by=request.user.pk).select_related("type")

    def _apply(self, request: HttpRequest, draft: SchemaDraft) -> HttpResponse:
        url = self._change_url(draft.type)
        try:
            device_type = draft.apply()
        except ChangedMeanwhile as error:
            who = error.device_type.updated_by or "Somebody else"
            text = (
                f"Nothing was saved: {who} changed this type meanwhile. Below is your text; save it to replace theirs."
            )
            self.message_user(request, text, messages.ERROR)
            return HttpResponseRedirect(f"{url}?draft={draft.pk}")
        except ValidationError as error:  # such as a name that somebody else took
            self.message_user(request, f"Nothing was saved. {' '.join(error.messages)}", messages.ERROR)
            return HttpResponseRedirect(f"{url}?draft={draft.pk}")
        self.log_change(request, device_type, "Changed schema.")
        marking.finish(device_type)
        marked = format_html(
            ' <a href="{}">Configurations that do not fit</a> keep working, and are marked.',
            configs_url(device_type, fits="no"),
        )
        text = format_html(
            'The device type “<a href="{}">{}</a>” was changed.{}', url, device_type, marked if draft.misfits else ""
        )
        self.message_user(request, text, messages.SUCCESS)
        return HttpResponseRedirect(reverse("admin:devices_devicetype_changelist"))

    def _change_url(self, device_type: DeviceType) -> str:
        return reverse("admin:devices_devicetype_change", args=[device_type.pk])

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """Name no configurations, which may be many: while there are some, their type stays."""
        used = DeviceConfig.objects.filter(type__in=list(objs)).values("type__name").annotate(count=Count("pk"))
        protected = [say_that_it_is_used(row["type__name"], row["count"]) for row in used.order_by("type__name")]
        if protected:
            return [str(each) for each in objs], {self.opts.verbose_name_plural: len(list(objs))}, set(), protected
        return super().get_deleted_objects(objs, request)


def say_that_it_is_used(name: str, count: int) -> str:
    have = "1 configuration has" if count == 1 else f"{count} configurations have"
    return (
        f"{have} the type “{name}”. Give {'it' if count == 1 else 'them'} another type, or none; then delete this one."
    )


def _as_text(version: Any) -> str:
    """All that people typed of a type, one below the other."""
    parts = [("Description", version.description), ("Starting content", version.starting_content)]
    return "\n\n".join([version.schema, *(f"{title}:\n{text}" for title, text in parts if text)])


def _count(**filters: Any) -> Coalesce:
    configs = DeviceConfig.objects.filter(type=OuterRef("pk"), **filters).order_by()
    return Coalesce(Subquery(configs.values("type").annotate(count=Count("pk")).values("count")), 0)


def _number(text: str) -> list[int]:
    return [int(text)] if text.isascii() and text.isdecimal() and len(text) < 18 else []
