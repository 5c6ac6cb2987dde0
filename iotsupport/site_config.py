"""``django.contrib.admin`` with our site. Apart from ``apps.py``, which has the one configuration of an app."""

from typing import Any

from django.contrib import admin
from django.contrib.admin.apps import SimpleAdminConfig
from django.contrib.admin.checks import check_admin_app, check_dependencies
from django.core import checks


class SiteConfig(SimpleAdminConfig):
    """What apps register is read by who shows it: ``wsgi.py``, ``urls.py`` and the check. Commands do without."""

    default_site = "iotsupport.site.Site"

    def ready(self) -> None:
        checks.register(check_site, checks.Tags.admin)


def check_site(app_configs: Any, **kwargs: Any) -> list[checks.CheckMessage]:
    """Django's checks of an admin, once there is something to check."""
    admin.autodiscover()
    return [*check_dependencies(app_configs=app_configs, **kwargs), *check_admin_app(app_configs, **kwargs)]
