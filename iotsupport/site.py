"""The admin's site, where every app registers its models: signing in and out, and changing one's password."""

from __future__ import annotations

from functools import update_wrapper
from typing import Any

from django.contrib import messages
from django.contrib.auth import BACKEND_SESSION_KEY, REDIRECT_FIELD_NAME
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.urls import path, reverse
from django.views.decorators.cache import never_cache

from iotsupport import __version__, first_page
from iotsupport.accounts import oidc, remote_user
from iotsupport.accounts.signin import SignInForm
from iotsupport.editing import unsaved
from iotsupport.editing.deleting import delete_selected
from iotsupport.editing.lookups import OfferedLookupsSite
from iotsupport.models import ApiToken
from iotsupport.pages import is_page, next_page
from iotsupport.state.permission import may_see_state


class Site(OfferedLookupsSite):
    site_url = None  # there is no other site than this one
    site_header = site_title = "IoT Support"
    index_title = "Devices and their files"
    login_form = SignInForm
    # Devices and what they get, then who may what; whatever else there is comes last.
    apps_in_order_of_use = ["devices", "assets", "notifications", "auth", "iotsupport"]
    models_in_order_of_use = ["DeviceConfig", "User"]

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.add_action(delete_selected)  # in place of Django's

    def get_urls(self) -> list[Any]:
        # Ahead of Django's, the last of which takes whatever is left.
        return [
            path("session/", never_cache(self.session), name="session"),
            path("state/", self.admin_view(self.state), name="state"),
            path("sign-in/", never_cache(oidc.begin), name="oidc_begin"),
            path("sign-in/callback/", never_cache(oidc.callback), name="oidc_callback"),
            *super().get_urls(),
        ]

    def state(self, request: HttpRequest) -> HttpResponse:
        from iotsupport.state.page import page  # what it looks at needs the apps to be ready

        return page(request)

    def each_context(self, request: HttpRequest) -> dict[str, Any]:
        return {**super().each_context(request), "version": __version__, "oidc_provider": oidc.provider_name()}

    def session(self, request: HttpRequest) -> HttpResponse:
        """Tell a page whether its form would be taken: what is too large is of no use to those who are signed out."""
        return JsonResponse({"is_signed_in": self.has_permission(request)})

    def admin_view(self, view: Any, cacheable: bool = False) -> Any:
        inner = super().admin_view(view, cacheable)

        def outer(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            # Django sends everybody to sign in, and what was typed is gone.
            if request.method == "POST" and not self.has_permission(request):
                typed = unsaved.typed_in(request)
                if typed.has_text:
                    return unsaved.sign_in_page(request, typed)
            return inner(request, *args, **kwargs)

        return update_wrapper(outer, inner)

    def get_log_entries(self, request: HttpRequest) -> Any:
        # As they were done: the clock may have been set back meanwhile.
        return super().get_log_entries(request).order_by("-pk")

    def get_app_list(self, request: HttpRequest, app_label: str | None = None) -> list[Any]:
        apps = super().get_app_list(request, app_label)
        for app in apps:
            app["models"].sort(key=lambda model: _rank(model["object_name"], self.models_in_order_of_use))
        apps.sort(key=lambda app: _rank(app["app_label"], self.apps_in_order_of_use))
        if app_label:
            return apps
        apps = _together(apps, ["auth", "iotsupport"], "Users and access")
        return [*apps, this_server()] if may_see_state(request) else apps

    def index(self, request: HttpRequest, extra_context: Any = None) -> Any:
        return super().index(request, {**first_page.context(request), **(extra_context or {})})

    def login(self, request: HttpRequest, extra_context: Any = None) -> Any:
        _replace_next(request, reverse("admin:index"))
        if request.method != "POST":
            return super().login(request, extra_context)
        typed = unsaved.typed_in(request, next_page(request))
        if not typed.has_text:
            return super().login(request, extra_context)
        response = super().login(request, {**(extra_context or {}), "typed": typed})
        return unsaved.page(request, "signed-in", typed, status=200) if response.status_code == 302 else response

    def logout(self, request: HttpRequest, extra_context: Any = None) -> Any:
        _replace_next(request, request.get_full_path())  # where Django stays
        how = {"signed_in_by": request.session.get(BACKEND_SESSION_KEY), "by_proxy": remote_user.BACKEND}
        return super().logout(request, {**how, "by_provider": oidc.BACKEND, **(extra_context or {})})

    def password_change(self, request: HttpRequest, extra_context: Any = None) -> Any:
        if request.method != "POST":
            tell_what_is_revoked(request, request.user)
        return super().password_change(request, extra_context)


def this_server() -> dict[str, Any]:
    """The page on its state, as Django's index lists the models of an app."""
    url = reverse("admin:state")
    entry = {"name": "State", "object_name": "State", "admin_url": url, "add_url": None, "view_only": True}
    return {"name": "This server", "app_label": "this-server", "app_url": url, "models": [entry]}


def _together(apps: list[Any], labels: list[str], name: str) -> list[Any]:
    """These apps as if they were one, in the place of the first."""
    of_one = [app for app in apps if app["app_label"] in labels]
    if not of_one:
        return apps
    first = {**of_one[0], "name": name, "models": [model for app in of_one for model in app["models"]]}
    return [first if app is of_one[0] else app for app in apps if app not in of_one[1:]]


def _rank(name: str, order: list[str]) -> int:
    return order.index(name) if name in order else len(order)


def _replace_next(request: HttpRequest, otherwise: str) -> None:
    """Have a form go on to ``otherwise`` instead of to an address that is no page here."""
    for name in ["GET", "POST"]:
        fields = getattr(request, name)
        if REDIRECT_FIELD_NAME in fields and not is_page(request, fields[REDIRECT_FIELD_NAME]):
            fields = fields.copy()
            fields[REDIRECT_FIELD_NAME] = otherwise
            setattr(request, name, fields)


def tell_what_is_revoked(request: HttpRequest, user: Any) -> None:
    """Say which tokens go with the old password."""
    hints = [f"{token.hint}…" for token in ApiToken.objects.usable().filter(user=user)]
    if hints:
        message = f"With the password, these API tokens of {user} will be revoked: {', '.join(hints)}"
        messages.warning(request, f"{message}. Make new ones for the scripts that need them.")
