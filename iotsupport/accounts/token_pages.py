"""API tokens in the admin: made, shown once, revoked and deleted; never changed."""

from __future__ import annotations

from datetime import date, datetime, time
from typing import Any

from django import forms
from django.contrib import admin, messages
from django.core.exceptions import ValidationError
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.template.response import TemplateResponse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from iotsupport.accounts.users import FoldedSearch
from iotsupport.accounts.words import Word, words_of
from iotsupport.models import ApiToken, ApiTokenQuerySet
from iotsupport.times import show, shown_zone, tell_date, told

EVERYTHING = "everything"
WORDS = [(word.value, word.label) for word in Word]


class WordsField(forms.MultipleChoiceField):
    """What a token may do, as the model keeps it."""

    widget = forms.CheckboxSelectMultiple
    default_error_messages = {"required": "Tick what the token may do."}

    def clean(self, value: Any) -> str | None:
        ticked = super().clean(value)
        if EVERYTHING not in ticked:
            return " ".join(ticked)
        if len(ticked) > 1:
            raise ValidationError("Tick either the first, or some of the others.", code="CONTRADICTION")
        return None


class LastDayField(forms.DateField):
    """A day, whose end is meant, in the time zone of the pages."""

    widget = forms.DateInput(format="%Y-%m-%d", attrs={"type": "date"})
    input_formats = ["%Y-%m-%d"]

    def clean(self, value: Any) -> Any:
        day: date | None = super().clean(value)
        return day and datetime.combine(day, time.max, shown_zone())


class ApiTokenForm(forms.ModelForm):  # type: ignore[type-arg]
    may = WordsField(help_text="Writing is adding, changing and deleting. It does not include reading.")
    expires_at = LastDayField(
        label="Last day", required=False, help_text="It works until the end of this day. Empty: until it is revoked."
    )

    offered: set[Word] = set(Word)
    """What is offered: more than somebody has would be of no use in a token of theirs."""

    class Meta:
        model = ApiToken
        fields = ["user", "description", "may", "expires_at"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        words = [(value, label) for value, label in WORDS if value in self.offered]
        self.fields["may"].choices = [(EVERYTHING, "everything that its user may, now and later"), *words]  # type: ignore[attr-defined]


class WordFilter(admin.SimpleListFilter):
    title = "what they may"
    parameter_name = "may"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [(EVERYTHING, "Everything"), *[(word, label.capitalize()) for word, label in WORDS]]

    def queryset(self, request: HttpRequest, queryset: QuerySet[ApiToken]) -> QuerySet[ApiToken]:
        if self.value() == EVERYTHING:
            return queryset.filter(may=None)
        # Who looks for those that may write wants to see those that may do everything, too.
        return queryset.filter(Q(may__contains=self.value()) | Q(may=None)) if self.value() in Word else queryset


class StateFilter(admin.SimpleListFilter):
    title = "state"
    parameter_name = "state"

    def lookups(self, request: HttpRequest, model_admin: Any) -> list[tuple[str, str]]:
        return [("valid", "Valid"), ("expired", "Expired"), ("revoked", "Revoked")]

    def queryset(self, request: HttpRequest, queryset: Any) -> QuerySet[ApiToken]:
        match self.value():
            case "valid":
                return queryset.usable()  # type: ignore[no-any-return]
            case "expired":
                return queryset.expired()  # type: ignore[no-any-return]
            case "revoked":
                return queryset.exclude(revoked_at=None)  # type: ignore[no-any-return]
        return queryset  # type: ignore[no-any-return]


@admin.register(ApiToken)
class ApiTokenAdmin(FoldedSearch):
    form = ApiTokenForm
    list_display = ["hint", "user", "description", "what_it_may", "last_used_at", "ends"]
    list_filter = [StateFilter, WordFilter]
    list_select_related = ["user"]
    search_fields = ["hint", "user__username", "description"]
    actions = ["revoke"]

    def get_fields(self, request: HttpRequest, obj: ApiToken | None = None) -> Any:
        return ApiTokenForm.Meta.fields if obj is None else [*self.list_display, "created_at"]

    def get_form(self, request: HttpRequest, obj: Any = None, change: bool = False, **kwargs: Any) -> Any:
        form = super().get_form(request, obj, change=change, **kwargs)
        # Of whomever a superuser makes one for, the form says what they lack when it knows who that is.
        form.offered = words_of(request.user)  # type: ignore[attr-defined, arg-type]
        return form

    def get_queryset(self, request: HttpRequest) -> QuerySet[ApiToken]:
        tokens = super().get_queryset(request)
        return tokens if request.user.is_superuser else tokens.filter(user=request.user)

    @admin.display(description="may", ordering="may")
    def what_it_may(self, obj: ApiToken) -> str:
        return obj.tell_what_it_may()

    @admin.display(description="works until", ordering="expires_at")
    def ends(self, obj: ApiToken) -> SafeString | str:
        if obj.revoked_at is not None:
            return _over("revoked", told(obj.revoked_at))
        if obj.expires_at is None:
            return "it is revoked"
        if obj.is_expired:
            return _over("expired", told(obj.expires_at))
        return show(obj.expires_at, tell_date(obj.expires_at))

    def formfield_for_foreignkey(
        self, db_field: Any, request: HttpRequest, **kwargs: Any
    ) -> forms.ModelChoiceField[Any] | None:
        field = super().formfield_for_foreignkey(db_field, request, **kwargs)
        if field is not None:
            field.initial = request.user.pk
            if not request.user.is_superuser and field.queryset is not None:
                # A token for somebody else would carry that person's permissions.
                field.queryset = field.queryset.filter(pk=request.user.pk)
        return field

    def has_change_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        return False

    def has_view_permission(self, request: HttpRequest, obj: ApiToken | None = None) -> bool:
        # Whoever may make some finds them again, to revoke them.
        return super().has_view_permission(request, obj) or self.has_add_permission(request)

    def has_revoke_permission(self, request: HttpRequest) -> bool:
        # Of those that the list shows: one's own, or a superuser's all.
        return self.has_view_permission(request)

    @admin.action(description="Revoke selected API tokens", permissions=["revoke"])
    def revoke(self, request: HttpRequest, queryset: ApiTokenQuerySet) -> None:
        self.message_user(request, f"API tokens revoked: {queryset.revoke()}.", messages.SUCCESS)

    def save_model(self, request: HttpRequest, obj: ApiToken, form: Any, change: bool) -> None:
        request.new_token = obj.generate()  # type: ignore[attr-defined]
        super().save_model(request, obj, form, change)

    def response_add(self, request: HttpRequest, obj: ApiToken, post_url_continue: str | None = None) -> HttpResponse:
        # Shown in this answer and nowhere else: a message would pass through a cookie or the database.
        context = {
            **self.admin_site.each_context(request),
            "title": "API token created",
            "token": request.new_token,  # type: ignore[attr-defined]
            "object": obj,
            "opts": self.opts,
        }
        return TemplateResponse(request, "admin/iotsupport/apitoken/created.html", context)


def _over(word: str, when: SafeString) -> SafeString:
    return format_html('<span class="state quiet">{}</span> <span class="second">{}</span>', word, when)
