"""Names in any of Unicode's forms and cases: one asset for each name, whatever way in; and searches that find it."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.core.management import CommandError, call_command
from django.test import Client
from django.urls import reverse

from assets.models import Asset
from devices.models import DeviceConfig
from iotsupport.characters import fold
from iotsupport.tests.support.api_client import nothing_changed, read, refusal
from iotsupport.tests.support.first_version import (
    COMPOSED,
    DECOMPOSED,
    IMAGES,
    LEFT,
    LOST,
    MENDED,
    OTHER,
    Updated,
)
from iotsupport.tests.support.multipart import upload
from iotsupport.tests.support.server import files
from notifications.models import Announcement

pytestmark = [pytest.mark.both_databases, pytest.mark.usefixtures("transactional_db")]

WAYS_IN: dict[str, Callable[[Client, str, bytes, Path], Any]] = {
    "API": lambda client, name, content, directory: upload(client, content, name),
    "form": lambda client, name, content, directory: client.post(
        "/admin/assets/asset/add/", {"file": SimpleUploadedFile(name, content)}
    ),
    "import": lambda client, name, content, directory: import_assets(directory, {name: content}),
    "shell": lambda client, name, content, directory: Asset.objects.upload(name, [content]),
}


def import_assets(directory: Path, contents: dict[str, bytes]) -> str:
    directory.mkdir()
    for name, content in contents.items():
        (directory / name).write_bytes(content)
    output = StringIO()
    call_command("import_assets", str(directory), stdout=output, stderr=output)
    return output.getvalue()


@pytest.mark.parametrize("way", WAYS_IN.values(), ids=WAYS_IN)
@pytest.mark.parametrize("name", [DECOMPOSED, COMPOSED], ids=["decomposed", "composed"])
def test_a_name_has_one_form(signed_in: Client, directories: Path, tmp_path: Path, way: Any, name: str):
    Asset.objects.upload(COMPOSED, [b"before"])

    way(signed_in, name, b"after", tmp_path / "new")

    assert [asset.filename for asset in Asset.objects.all()] == [COMPOSED]
    assert files(directories / "assets") == {COMPOSED: b"after"}


@pytest.mark.parametrize("name", [DECOMPOSED, COMPOSED], ids=["decomposed", "composed"])
def test_a_name_is_found_in_any_form(script: Client, root: str, name: str):
    Asset.objects.upload(COMPOSED, [b"bytes"])
    url = f"{root}/assets/{quote(name)}"

    assert read(Client().get(url)).body == b"bytes"
    assert Client().head(url).headers["Content-Length"] == "5"
    assert script.delete(url).status_code == 204
    assert not Asset.objects.exists()


# Of other blanks, Django's parser makes nothing; what is imported may have them.
@pytest.mark.parametrize("name", ["fw.bin ", " fw.bin", "  "])
def test_blanks_at_the_ends_are_refused(signed_in: Client, tmp_path: Path, name: str):
    sentence = "The file name begins or ends with a blank. Rename the file, then try again."

    with nothing_changed():
        answer = upload(signed_in, b"bytes", name)
        page: Any = WAYS_IN["form"](signed_in, name, b"bytes", tmp_path)
        with pytest.raises(CommandError, match="Some files were refused"):
            import_assets(tmp_path / "new", {name: b"bytes"})
        url = f"/assets/{quote(name)}"
        refused = [
            refusal(client.generic(method, url)) for client, method in [(signed_in, "DELETE"), (Client(), "GET")]
        ]

    assert (answer.status_code, answer.json()["error"]) == (400, sentence)
    assert page.context_data["adminform"].form.errors["file"] == [sentence]
    assert refused == [(400, "INVALID_FILENAME")] * 2


@pytest.mark.parametrize("name", ["\u00a0fw.bin", "fw.bin\u3000"])
def test_an_import_refuses_other_blanks(tmp_path: Path, name: str):
    with nothing_changed(), pytest.raises(CommandError, match="Some files were refused"):
        import_assets(tmp_path / "new", {name: b"bytes"})


def test_an_import_takes_one_of_two_forms(tmp_path: Path, directories: Path):
    """Where a directory has both, the order of their bytes would decide which one devices get."""
    directory, output = tmp_path / "new", StringIO()
    directory.mkdir()
    for name in [DECOMPOSED, COMPOSED]:
        (directory / name).write_bytes(name.encode())

    with pytest.raises(CommandError, match="Some files were refused"):
        call_command("import_assets", str(directory), stdout=output, stderr=output)

    assert f"{COMPOSED!r}: refused: {DECOMPOSED!a} has the same name. Remove one of the two." in output.getvalue()
    assert files(directories / "assets") == {COMPOSED: DECOMPOSED.encode()}


def test_a_version_from_before_comes_back_under_the_name_of_now(signed_in: Client, directories: Path):
    asset = Asset.objects.upload(COMPOSED, [b"first"])
    Asset.objects.upload(COMPOSED, [b"second"])
    first = asset.history.earliest()
    Asset.history.filter(pk=first.pk).update(filename=f"{DECOMPOSED} ")

    restore = reverse("admin:assets_asset_restore", args=[f"{DECOMPOSED} ", 1])
    signed_in.post(restore, {"based_on": Asset.objects.get().sha256})

    assert files(directories / "assets") == {COMPOSED: b"first"}


# --- Rows and files from before -------------------------------------------------------------------------------------


def test_the_migration_mends_names_and_says_which_it_cannot(updated: Updated, directories: Path):
    names_before = updated.before.names
    now = {pk: MENDED.get(name, name) for pk, name in names_before.items()}
    assets = Asset.objects.exclude(filename__in=IMAGES | LOST)
    assert dict(assets.values_list("pk", "filename")) == now
    assert {name: content for name, content in files(directories / "assets").items() if name not in IMAGES | LOST} == {
        now[pk]: name.encode() for pk, name in names_before.items()
    }
    assert all(asset.folded == fold(asset.filename) for asset in assets)
    assert [config.folded for config in DeviceConfig.objects.order_by("-pk")] == ["", "küche\nlight.küche"]
    assert sorted(row.filename for row in Announcement.objects.all()) == sorted(["fw.bin", COMPOSED])
    assert f"The asset {DECOMPOSED!a} is called {COMPOSED!a} from now on." in updated.said
    for name, reason in LEFT.items():
        pk = next(pk for pk, kept in names_before.items() if kept == name)
        right = unicodedata.normalize("NFC", name).strip()
        assert f"The asset {name!a} (ID {pk}) keeps its name, since {right!a} {reason}." in updated.said


@pytest.mark.usefixtures("updated")
def test_what_was_mended_and_what_was_not_is_downloaded_and_deleted(script: Client):
    call_command("sync_mirror", "--check", stdout=StringIO())

    asked = [*MENDED, *LEFT, OTHER, *MENDED.values()]
    before = {value: key for key, value in MENDED.items()}
    # " .hidden" was never to be had, and blanks at the ends are refused.
    asked = [name for name in asked if name not in {" .hidden", "fw.bin "}]
    for name in asked:
        expected = before.get(unicodedata.normalize("NFC", name), name) if name not in LEFT else name
        assert read(Client().get(f"/assets/{quote(name)}")).body == expected.encode()
    assert script.delete(f"/assets/{quote('e' + chr(0x301) + '.bin')}").status_code == 204
    assert read(Client().get(f"/assets/{quote(OTHER)}")).body == OTHER.encode()


@pytest.mark.usefixtures("updated")
def test_a_node_that_did_not_migrate_has_the_right_names_after_its_next_start(directories: Path):
    assets = directories / "assets"
    right = files(assets)
    (assets / COMPOSED).rename(assets / DECOMPOSED)

    call_command("sync_mirror", stdout=StringIO())

    assert files(assets) == right
    assert right[COMPOSED] == DECOMPOSED.encode()


# --- Searches -------------------------------------------------------------------------------------------------------

NAMES = ["Кухня", "KÜCHE", "Straße", "ÉTÉ", "ａｂｃ", "İstanbul", "50%_off", "Lamp"]


# What is typed, and the only name that it finds.
TERMS = {
    "кухня": "Кухня",
    "КУХ": "Кухня",
    "küche": "KÜCHE",
    "ku\u0308che": "KÜCHE",
    "STRASSE": "Straße",
    "e\u0301te\u0301": "ÉTÉ",
    "ABC": "ａｂｃ",
    "i\u0307stanbul": "İstanbul",
    "50%_": "50%_off",
    "LAMP": "Lamp",
    "%": "50%_off",
}


def save_configs() -> None:
    for number, name in enumerate(NAMES):
        DeviceConfig.objects.put(f"02-00-00-00-00-{number:02x}", f'{{"deviceName": "{name}"}}')


def upload_assets() -> None:
    for name in NAMES:
        Asset.objects.upload(name, [b"bytes"])


def owe_announcements() -> None:
    upload_assets()  # whose names are searched
    Announcement.objects.bulk_create(Announcement(topic="iotsupport/updates/assets", filename=name) for name in NAMES)


@pytest.mark.parametrize(
    ("make", "path", "attribute"),
    [
        (save_configs, "devices/deviceconfig/?", "device_name"),
        (upload_assets, "assets/asset/?", "filename"),
        (owe_announcements, "notifications/announcement/?state=all&", "filename"),
    ],
    ids=["configurations", "assets", "announcements"],
)
def test_a_search_folds_case_and_form(signed_in: Client, make: Callable[[], None], path: str, attribute: str):
    """As :func:`fold` does, on both databases."""
    make()

    pages: dict[str, Any] = {term: signed_in.get(f"/admin/{path}q={quote(term)}") for term in TERMS}

    found = {
        term: [getattr(row, attribute) for row in page.context_data["cl"].result_list] for term, page in pages.items()
    }
    assert found == {term: [unicodedata.normalize("NFC", name)] for term, name in TERMS.items()}


def test_both_names_are_searched(signed_in: Client):
    DeviceConfig.objects.put("02-00-00-00-00-01", '{"deviceName": "Ö", "deviceEntityId": "light.Ä"}')
    DeviceConfig.objects.put("02-00-00-00-00-02", '{"deviceName": "ö"}')

    page: Any = signed_in.get("/admin/devices/deviceconfig/", {"q": "LIGHT.ä ö"})

    assert [row.mac_address[-2:] for row in page.context_data["cl"].result_list] == ["01"]


def test_a_name_that_changes_is_found_by_the_new_one(signed_in: Client):
    config = DeviceConfig.objects.put("02-00-00-00-00-01", '{"deviceName": "Ä"}')
    config.content = '{"deviceName": "Ö"}'
    config.save(update_fields=["content"])

    pages: list[Any] = [signed_in.get("/admin/devices/deviceconfig/", {"q": term}) for term in ["ä", "ö"]]

    assert [page.context_data["cl"].result_count for page in pages] == [0, 1]
