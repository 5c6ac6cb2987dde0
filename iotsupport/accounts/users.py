"""Users and groups in the admin: Django's own pages, searched in any case of letters as ours are."""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.admin.models import LogEntry
from django.contrib.admin.utils import unquote
from django.contrib.auth.admin import GroupAdmin, UserAdmin
from django.contrib.auth.models import Group, User
from django.db.models import QuerySet
from django.http import HttpRequest
from django.urls import reverse

from iotsupport.characters import fold
from iotsupport.editing import unsaved
from iotsupport.models import Identity
from iotsupport.site import tell_what_is_revoked


class KeptText(admin.ModelAdmin):  # type: ignore[type-arg]
    """Shows what somebody typed about a row that was deleted meanwhile."""

    def _get_obj_does_not_exist_redirect(self, request: HttpRequest, opts: Any, object_id: str) -> Any:
        if request.method != "POST" or "post" in request.POST:  # that is "Yes, I'm sure", of a deletion
            return super()._get_obj_does_not_exist_redirect(request, opts, object_id)  # type: ignore[misc]
        list_url = reverse(f"admin:{opts.app_label}_{opts.model_name}_changelist")
        return unsaved.gone(request, str(opts.verbose_name), list_url)


class FoldedSearch(admin.ModelAdmin):  # type: ignore[type-arg]
    """Searches in memory, as :func:`fold` compares: for lists of which nobody has thousands."""

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        words, fields = fold(search_term).split(), self.get_search_fields(request)
        if not words or not fields:
            return queryset, False
        rows = queryset.order_by().values_list("pk", *fields)
        found = [pk for pk, *texts in rows if all(any(word in fold(text or "") for text in texts) for word in words)]
        return queryset.filter(pk__in=found), False

    def get_paginator(self, request: HttpRequest, queryset: QuerySet[Any], *args: Any, **kwargs: Any) -> Any:
        if getattr(queryset, "model", None) is LogEntry:  # of one row: as it was done, whatever the clock said
            queryset = queryset.order_by("pk")
        return super().get_paginator(request, queryset, *args, **kwargs)


# Importing them has registered them.
admin.site.unregister([User, Group])


@admin.register(User)
class FoldedUserAdmin(KeptText, FoldedSearch, UserAdmin):  # type: ignore[type-arg]
    """Says which API tokens a change of password revokes, and who somebody is at a provider."""

    def get_fieldsets(self, request: HttpRequest, obj: User | None = None) -> Any:
        fieldsets = super().get_fieldsets(request, obj)
        if obj is None or not Identity.objects.filter(user=obj).exists():
            return fieldsets
        return [*fieldsets, ("Single sign-on", {"fields": ["openid_connect"]})]

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        return [*super().get_readonly_fields(request, obj), "openid_connect"]

    @admin.display(description="OpenID Connect")
    def openid_connect(self, obj: User) -> str:
        return str(obj.identity)

    def user_change_password(self, request: HttpRequest, id: str, form_url: str = "") -> Any:
        user = self.get_object(request, unquote(id))
        if request.method != "POST" and user is not None and self.has_change_permission(request, user):
            tell_what_is_revoked(request, user)
        return super().user_change_password(request, id, form_url)


@admin.register(Group)
class FoldedGroupAdmin(KeptText, FoldedSearch, GroupAdmin):
    pass
