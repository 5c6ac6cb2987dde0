"""What the first page says of assets, to those who may view them."""

from __future__ import annotations

from collections.abc import Iterator

from django.contrib import admin
from django.http import HttpRequest
from django.urls import reverse

from assets.models import Asset
from iotsupport.first_page import Number


def numbers(request: HttpRequest) -> Iterator[Number]:
    """How many files there are."""
    if admin.site.get_model_admin(Asset).has_view_or_change_permission(request):
        count = Asset.objects.count()
        yield Number(count, f"asset{'' if count == 1 else 's'}", reverse("admin:assets_asset_changelist"))
