"""``django.contrib.admin`` with our site. Apart from ``apps.py``, which has the one configuration of an app."""

from django.contrib.admin.apps import AdminConfig


class SiteConfig(AdminConfig):
    default_site = "iotsupport.site.Site"
