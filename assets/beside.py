"""What is to be had beside each asset: its digests, and a manifest for boards that update themselves.

All of it is made from the mirrored file, so that it is never behind it, and needs no database.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from django.core.exceptions import ValidationError
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import reverse

from assets.images import Image
from assets.models import DOUBTFUL
from assets.names import find_filename
from assets.running import inspection_of
from iotsupport.errors import ApiError
from iotsupport.mirror.files import MirrorStorage
from iotsupport.serving.contents import Content, digests_of, open_content
from iotsupport.serving.responses import made_response

TEXT, JSON = "text/plain", "application/json"

# Where the partition tables that come with ESP-IDF, Arduino and ESPHome have the first application.
FIRST_APPLICATION_OFFSET = 0x10000


def answer_beside(request: HttpRequest, storage: MirrorStorage, filename: str) -> HttpResponseBase | None:
    """Answer a GET or HEAD for what is made of an asset; None where the name is no such one, or there is no asset.

    Refuses a manifest with 404 where boards would not take the file.
    """
    for ending, (content_type, make) in MADE.items():
        if filename.endswith(ending):
            try:
                name = find_filename(filename.removesuffix(ending), storage.exists)
                with open_content(storage.path(name)) as content:
                    body = make(name, content).encode()
            except (ValidationError, FileNotFoundError):
                return None
            return made_response(request, body, content.modified, content_type=content_type)
    return None


def _md5(name: str, content: Content) -> str:
    return digests_of(content).md5


def _sha256(name: str, content: Content) -> str:
    return digests_of(content).sha256


def _manifest(name: str, content: Content) -> str:
    """What ESPHome's ``update`` platform ``http_request`` and ESP Web Tools read."""
    image, warnings = inspection_of(content)
    if image is None or warnings or content.mode & DOUBTFUL:
        message = (
            f"There is no manifest of {name}: it is no image that was recognised, or one with a warning, which boards"
            " must not take by themselves. GET /assets says which."
        )
        raise ApiError(404, "NOT_FOUND", message)
    path = reverse("asset-download", args=[name], urlconf="iotsupport.public_urls")
    build: dict[str, Any] = {
        "chipFamily": image.chip,
        "ota": {"path": path, "md5": digests_of(content).md5, "summary": summary_of(image)},
    }
    manifest: dict[str, Any] = {"name": image.project, "version": image.version, "builds": [build]}
    if not image.signed:
        # By cable, the application goes where the usual partition tables have it, beside the boot loader that is there.
        # With Secure Boot, that has moved, and the board takes nothing by cable. ESP Web Tools erases the whole flash,
        # the boot loader included, of a board that it does not know, unless it is to ask.
        build["parts"] = [{"path": path, "offset": FIRST_APPLICATION_OFFSET}]
        manifest["new_install_prompt_erase"] = True
    return json.dumps(manifest, ensure_ascii=False)


def summary_of(image: Image) -> str:
    """One line for a person, such as ``kitchen 1.4.2, built 2026-11-03 14:02:11 with ESP-IDF v5.3``."""
    built = f"built {image.built.replace('T', ' ')}" if image.built else ""
    made_with = f"with ESP-IDF {image.idf_version}" if image.idf_version else ""
    parts = [f"{image.project} {image.version}".strip(), f"{built} {made_with}".strip()]
    return ", ".join(part for part in parts if part)


MADE: dict[str, tuple[str, Callable[[str, Content], str]]] = {
    ".md5": (TEXT, _md5),
    ".sha256": (TEXT, _sha256),
    ".manifest.json": (JSON, _manifest),
}
