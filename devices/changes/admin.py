"""The pages of changes of many: choose, patch, look, apply."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.core.exceptions import PermissionDenied, ValidationError
from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, HttpResponseRedirect
from django.template.response import TemplateResponse
from django.urls import URLPattern, path, reverse
from django.utils.html import format_html
from django.views.decorators.http import require_POST

from devices.changes.choosing import Chosen, listed, named
from devices.changes.forms import NewChangeForm
from devices.changes.looking import FIRST, TONES, WITH_DIFFERENCE, Progress, names_of, page_of, shown
from devices.changes.models import CannotBegin, Change, ItemState, Kind, State
from devices.changes.planning import begin, begin_undo
from devices.changes.waking import wake
from devices.models import DeviceConfig, DeviceType
from devices.telling import with_second
from iotsupport.times import told

STATE_TONES = {State.REFUSED: "bad", State.APPLIED: "good", State.PLANNING: "behind", State.APPLYING: "behind"}


@admin.action(description="Change many…", permissions=["change"])
def change_many(model_admin: Any, request: HttpRequest, queryset: QuerySet[DeviceConfig]) -> HttpResponse:
    """An action of the list: asks what is to be done with what was selected, or with all that the list found."""
    if request.POST.get("select_across") == "1":
        initial = {"query": request.META.get("QUERY_STRING", "")}
    else:
        initial = {"mac_addresses": " ".join(queryset.order_by("mac_address").values_list("mac_address", flat=True))}
    return _ask(request, NewChangeForm(initial=initial), queryset.count())


def _ask(request: HttpRequest, form: NewChangeForm, count: int | None) -> HttpResponse:
    context = {
        **admin.site.each_context(request),
        "title": "Change many configurations",
        "opts": Change._meta,
        "form": form,
        "media": form.media,
        "count": count,
    }
    return TemplateResponse(request, "admin/devices/change/new.html", context)


@admin.register(Change)
class ChangeAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Who may view configurations sees all changes; who may change them begins, applies, stops and undoes any."""

    list_display = ["what", "shown_state", "size", "begun"]
    list_filter = ["state", "kind"]
    list_select_related = ["created_by"]
    search_fields = ["reason", "chosen_by", "created_by__username"]
    search_help_text = "Why it was made, what was searched for, or whose it is"
    show_full_result_count = False

    def get_urls(self) -> list[URLPattern]:
        def posted(name: str, view: Callable[..., HttpResponse]) -> URLPattern:
            wrapped = self.admin_site.admin_view(require_POST(view))
            return path(f"<int:pk>/{name}/", wrapped, name=f"devices_change_{name}")

        return [
            path("new/", self.admin_site.admin_view(self.new_view), name="devices_change_new"),
            posted("apply", self.apply_view),
            posted("stop", self.stop_view),
            posted("undo", self.undo_view),
            *super().get_urls(),
        ]

    def has_module_permission(self, request: HttpRequest) -> bool:
        return self.has_view_permission(request)

    def has_view_permission(self, request: HttpRequest, obj: Change | None = None) -> bool:
        return bool(_configs().has_view_or_change_permission(request))

    def has_add_permission(self, request: HttpRequest) -> bool:
        return False  # it begins in the list of configurations

    def has_change_permission(self, request: HttpRequest, obj: Change | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Change | None = None) -> bool:
        return False

    def changelist_view(self, request: HttpRequest, extra_context: dict[str, Any] | None = None) -> HttpResponse:
        return super().changelist_view(request, {"title": "Changes of many", **(extra_context or {})})

    @admin.display(description="change", ordering="reason")
    def what(self, obj: Change) -> str:
        return with_second(str(obj), obj.get_kind_display())

    @admin.display(description="state", ordering="state")
    def shown_state(self, obj: Change) -> str:
        tone = STATE_TONES.get(State(obj.state), "quiet")
        return format_html('<span class="state {}">{}</span>', tone, obj.get_state_display())

    @admin.display(description="configurations", ordering="count")
    def size(self, obj: Change) -> str:
        return with_second(f"{obj.count:,}", obj.chosen_by)

    @admin.display(description="begun", ordering="pk")
    def begun(self, obj: Change) -> str:
        return with_second(told(obj.created_at), str(obj.created_by or ""))

    def new_view(self, request: HttpRequest) -> HttpResponse:
        """Take what is to be done, and plan it."""
        user = _require_change(request)
        if request.method != "POST":
            messages.info(request, "Choose configurations first, then the action “Change many…”.")
            return HttpResponseRedirect(reverse("admin:devices_deviceconfig_changelist"))
        form = NewChangeForm(request.POST)
        form.full_clean()
        chosen = _choose(request, form)
        if chosen is None or form.errors:
            return _ask(request, form, len(chosen.mac_addresses) if chosen else None)
        change = begin(
            dict.fromkeys(chosen.mac_addresses),
            kind=form.cleaned_data["kind"],
            patch=form.cleaned_data["patch"],
            **_type_fields(form.cleaned_data["kind"], form.cleaned_data["type"]),
            reason=form.cleaned_data["reason"],
            chosen_by=chosen.words,
            created_by=user,
        )
        return _to(change)

    def change_view(
        self, request: HttpRequest, object_id: str, form_url: str = "", extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Show what would become of each configuration, how far the server is, and what became of them."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        change = self.get_object(request, object_id)
        if change is None:
            raise Http404
        return TemplateResponse(request, "admin/devices/change/look.html", self._context(request, change))

    def _context(self, request: HttpRequest, change: Change) -> dict[str, Any]:
        tally = change.tally()
        asked = request.GET.get("show", "")
        state = asked if asked in ItemState else next((each for each in FIRST if tally[each]), ItemState.PLANNED)
        page = page_of(change, state, request.GET.get("p"), tally)
        refused = change.items.filter(state=ItemState.REFUSED).order_by("mac_address")
        is_to_look, user = not change.is_running, cast(User, request.user)  # nobody else gets here
        return {
            **self.admin_site.each_context(request),
            "title": str(change),
            "opts": self.opts,
            "change": change,
            "tone": STATE_TONES.get(State(change.state), "quiet"),
            "step": {State.PLANNING: 3, State.PLANNED: 3, State.REFUSED: 3}.get(State(change.state), 4),
            "tally": [(each, names_of(change, each), tally[each], TONES[each]) for each in ItemState if tally[each]],
            "counts": {str(each): tally[each] for each in ItemState},
            "progress": Progress.of(change, tally),
            "show": state,
            "show_name": names_of(change, state),
            "has_difference": state in WITH_DIFFERENCE and change.kind != Kind.ANNOUNCE,
            "refused": shown(change, list(refused[:20]), user) if is_to_look and state != "refused" else [],
            "items": shown(change, list(page), user) if is_to_look else [],
            "page": page,
            "page_var": f"show={state}&p",
            "page_range": page.paginator.get_elided_page_range(page.number),
            "may_change": _configs().has_change_permission(request),
            "apply_words": _apply_words(change, tally),
            "may_undo": change.state in {State.APPLIED, State.STOPPED}
            and change.kind != Kind.ANNOUNCE
            and tally[ItemState.CHANGED],
            "undone_by": change.undone_by.all(),
        }

    def apply_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        user, change = _require_change(request), _find(pk)
        try:
            change.apply(user, token=None, leave_out="leave_out" in request.POST)
        except CannotBegin as error:
            messages.error(request, error.message)
        else:
            transaction.on_commit(wake)
        return _to(change)

    def stop_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        user, change = _require_change(request), _find(pk)
        try:
            change.stop(user)
        except CannotBegin as error:
            messages.info(request, error.message)
        return _to(change)

    def undo_view(self, request: HttpRequest, pk: int) -> HttpResponse:
        user, change = _require_change(request), _find(pk)
        try:
            return _to(begin_undo(change, user, None))
        except CannotBegin as error:
            messages.error(request, error.message)
            return _to(change)


def _type_fields(kind: str, type_: DeviceType | None) -> dict[str, Any]:
    return {"type": type_, "type_name": type_.name} if kind == Kind.TYPE and type_ is not None else {}


def _apply_words(change: Change, tally: Counter[str]) -> str:
    """What the button says that begins: exactly what it does; empty where nothing can begin."""
    planned, refused = tally[ItemState.PLANNED], tally[ItemState.REFUSED]
    if not planned:
        return ""
    if change.state == State.REFUSED:
        return f"Leave out the {refused:,}, and apply to {planned:,}"
    if change.state == State.PLANNED:
        return f"Apply to {planned:,}"
    return f"Go on with the {planned:,} that are left" if change.state == State.STOPPED and change.applied_at else ""


def _choose(request: HttpRequest, form: NewChangeForm) -> Chosen | None:
    """What the form is about; None where that cannot be found, which it says then."""
    try:
        if "query" in request.POST:
            chosen = listed(request, request.POST["query"])
        else:
            chosen = named(request.POST.get("mac_addresses", "").split())
    except ValidationError as error:
        form.add_error(None, error)
        return None
    if not chosen.mac_addresses:
        form.add_error(None, "No configuration is found any more. Go back to the list, and choose anew.")
    return chosen


def _require_change(request: HttpRequest) -> User:
    if not _configs().has_change_permission(request):
        raise PermissionDenied
    return cast(User, request.user)


def _find(pk: int) -> Change:
    change = Change.objects.filter(pk=pk).first()
    if change is None:
        raise Http404
    return change


def _to(change: Change) -> HttpResponse:
    return HttpResponseRedirect(reverse("admin:devices_change_change", args=[change.pk]))


def _configs() -> Any:
    return admin.site.get_model_admin(DeviceConfig)
