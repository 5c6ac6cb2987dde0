"""What an asset's page shows below its form: its versions, who runs which, and lines to be copied."""

from __future__ import annotations

import shlex
from typing import Any, NamedTuple

from django.contrib import admin
from django.db.models import Count
from django.http import HttpRequest
from django.urls import reverse

from assets.models import Asset
from iotsupport.boards.firmware import FoundVersion
from iotsupport.boards.models import Board

MOST_VERSIONS = 10


class Row(NamedTuple):
    """A version, as the history has it, and how many boards say that they run it."""

    version: Any
    boards: int
    is_current: bool


class Lines(NamedTuple):
    """Text to be copied, and what it is for."""

    title: str
    text: str


def panels(request: HttpRequest, asset: Asset) -> dict[str, Any]:
    """Return what the template shows: two queries, however many boards and versions there are."""
    boards = dict(
        Board.objects.shown()
        .filter(runs_filename=asset.filename)
        .order_by()
        .values_list("runs_asset_sha256")
        .annotate(Count("pk"))
    )
    versions = list(asset.history.select_related("history_user")[: MOST_VERSIONS + 1])
    shown: list[Row] = []
    counted: set[str] = set()
    for version in versions[:MOST_VERSIONS]:
        # Where two have the same bytes, the later one says it.
        count = 0 if version.sha256 in counted else boards.get(version.sha256, 0)
        counted.add(version.sha256)
        shown.append(Row(version, count, version.sha256 == asset.sha256 and not shown))
    return {
        "versions": shown,
        "has_more_versions": len(versions) > MOST_VERSIONS,
        "boards_of_older": sum(count for sha256, count in boards.items() if sha256 not in counted),
        "lines": lines_of(request, asset),
        "download_path": path_of(asset),
        "has_manifest": asset.image is not None and not asset.warnings,
    }


def page_of(request: HttpRequest, version: FoundVersion) -> str:
    """Return where the asset of a version is seen; empty where it is gone, or is not for who asks."""
    asset = Asset.objects.filter(filename=version.filename).first()
    if asset is None or not admin.site.get_model_admin(Asset).has_view_permission(request, asset):
        return ""
    return reverse("admin:assets_asset_change", args=[asset.pk])


def path_of(asset: Asset) -> str:
    return reverse("asset-download", args=[asset.filename], urlconf="iotsupport.public_urls")


def lines_of(request: HttpRequest, asset: Asset) -> list[Lines]:
    url = request.build_absolute_uri(path_of(asset))
    found = [Lines("curl", f"curl -f -o {shlex.quote(asset.filename)} {shlex.quote(url)}")]
    if asset.image is None:
        return found
    found += [
        Lines("Arduino: HTTPUpdate", f'httpUpdate.update(client, "{url}");'),
        Lines("ESP-IDF: esp_https_ota", ESP_IDF.format(url=url)),
    ]
    if not asset.warnings:
        found.append(Lines("ESPHome", ESPHOME.format(url=url)))
    return found


ESP_IDF = """esp_http_client_config_t http = {{.url = "{url}", .keep_alive_enable = true}};
esp_https_ota_config_t ota = {{.http_config = &http}};
if (esp_https_ota(&ota) == ESP_OK) esp_restart();"""

ESPHOME = """http_request:
ota:
  - platform: http_request
update:
  - platform: http_request
    name: Firmware
    source: {url}.manifest.json"""
