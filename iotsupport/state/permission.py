"""Who may see how the server is: a permission of its own, which belongs to no row."""

from __future__ import annotations

from typing import Any

from django.contrib.auth.models import Permission
from django.contrib.contenttypes.models import ContentType
from django.http import HttpRequest

from iotsupport.models import Throttle

CODENAME = "view_server_state"
PERMISSION = f"iotsupport.{CODENAME}"
NAME = "Can view the state of this server"


def may_see_state(request: HttpRequest) -> bool:
    return request.user.is_active and request.user.has_perm(PERMISSION)


def make(using: str, **kwargs: Any) -> None:
    """Make the permission after ``migrate``, as Django makes those of models."""
    # By its row: what is known of it in memory may be from before a flush.
    opts = Throttle._meta
    of, _ = ContentType.objects.using(using).get_or_create(app_label=opts.app_label, model=opts.model_name)
    Permission.objects.using(using).get_or_create(content_type=of, codename=CODENAME, defaults={"name": NAME})
