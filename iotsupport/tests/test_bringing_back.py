"""What was deleted comes back by whatever way to those who may add it, and to nobody else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client

from assets.models import Asset
from devices.models import DeviceConfig, DeviceType
from iotsupport.mirror.files import mirror_storage
from iotsupport.tests.support.api_client import make_user, nothing_changed, session_client
from iotsupport.tests.support.saved_twice import ASSETS, CONFIGS, CONTENT, MAC, save_config_twice

pytestmark = [
    pytest.mark.usefixtures("transactional_db", "directories"),
]


@pytest.fixture
def config() -> DeviceConfig:
    return save_config_twice()


@pytest.fixture
def asset() -> Asset:
    Asset.objects.upload("firmware.bin", [b"before"])
    return Asset.objects.upload("firmware.bin", [b"last"])


def somebody(*actions: str) -> Client:
    """Who may do this with configurations and assets."""
    models = ["devices.{}_deviceconfig", "assets.{}_asset"]
    permissions = [model.format(action) for model in models for action in actions]
    return session_client(make_user(*permissions, username="maria", is_staff=True))


def upload(content: bytes) -> dict[str, Any]:
    return {"file": SimpleUploadedFile("firmware.bin", content)}


def history_of(row: Any) -> str:
    """Where the last version before the deletion is shown, and saved again."""
    return f"versions/{getattr(row, row.name_field)}/2/restore/"


Way = Callable[[Client, Any, str], Any]

# Of a row that was read before it was deleted, and the page of its last version.
CONFIG_WAYS: dict[str, Way] = {
    "the history": lambda client, row, page: client.post(CONFIGS + page, {"based_on": ""}),
    "an open form": lambda client, row, page: client.post(f"{CONFIGS}{row.pk}/change/", {"content": '{"other": 1}'}),
    "PUT": lambda client, row, page: client.put(f"/configs/{MAC}", {"content": {}}, "application/json"),
    "PUT of the file": lambda client, row, page: client.put(f"/configs/{MAC}.json", {}, "application/json"),
}
ASSET_WAYS: dict[str, Way] = {
    "the history": lambda client, row, page: client.post(ASSETS + page, {}),
    "the deletion": lambda client, row, page: client.post(ASSETS + page.replace("/2/", "/3/"), {}),
    "the list of what is deleted": lambda client, row, page: client.post(
        "/admin/assets/deletedasset/bring-back/", {"version": Asset.history.latest().pk}
    ),
    "an open form": lambda client, row, page: client.post(f"{ASSETS}{row.pk}/change/", upload(b"other")),
    "POST": lambda client, row, page: client.post("/assets", upload(b"other")),
}


EVERY_WAY = [("config", name) for name in CONFIG_WAYS] + [("asset", name) for name in ASSET_WAYS]


@pytest.mark.parametrize(("kind", "way"), EVERY_WAY)
def test_who_may_only_change_brings_nothing_back(request: pytest.FixtureRequest, kind: str, way: str):
    saved = request.getfixturevalue(kind)
    client, page, row = somebody("view", "change", "delete"), history_of(saved), type(saved).objects.get()
    saved.delete()

    with nothing_changed():
        response = (CONFIG_WAYS if kind == "config" else ASSET_WAYS)[way](client, row, page)

    assert response.status_code == 403


@pytest.mark.both_databases
def test_who_may_add_needs_no_more(config: DeviceConfig, asset: Asset):
    client, pages = somebody("view", "add"), [CONFIGS + history_of(config), ASSETS + history_of(asset)]
    for row in [config, asset]:
        row.delete()

    answers = [client.post(page, {"based_on": ""}) for page in pages]

    assert [answer.status_code for answer in answers] == [302, 302]
    assert mirrored("configs") == {f"{MAC}.json": CONTENT.encode()}
    assert mirrored("assets") == {"firmware.bin": b"last"}


def test_who_may_only_add_reverts_nothing(config: DeviceConfig, asset: Asset):
    client, pages = somebody("view", "add"), [CONFIGS + history_of(config), ASSETS + history_of(asset)]

    with nothing_changed():
        answers = [client.post(page, {"based_on": ""}) for page in pages]

    assert [answer.status_code for answer in answers] == [403, 403]


@pytest.mark.parametrize(
    ("actions", "is_deleted", "is_offered"),
    [(["change"], True, False), (["add"], True, True), (["change"], False, True), (["add"], False, False)],
)
def test_offers_to_revert_to_those_who_may(
    config: DeviceConfig, actions: list[str], is_deleted: bool, is_offered: bool
):
    client, page = somebody("view", *actions), f"{CONFIGS}versions/{MAC}/1/restore/"
    if is_deleted:
        config.delete()

    asked, versions = client.get(page), client.get(f"{CONFIGS}versions/{MAC}/?old=1")

    assert (asked.status_code, "Restore version 1" in versions.text) == (200 if is_offered else 403, is_offered)


@pytest.mark.parametrize(
    "path",
    [
        *["x/history/1/", "1/history/x/", "x/history/", f"{'9' * 30}/history/1/", "1/history/"],
        *["versions/02-00-00-00-00-99/", "versions/x/", f"versions/{MAC}/3/restore/", f"versions/{MAC}/0/restore/"],
        *[f"versions/{MAC}/x/restore/", f"versions/{MAC}/{'9' * 30}/restore/", f"versions/{MAC}/?old=x"],
        *[f"versions/{MAC}/?new={'9' * 30}", f"versions/{MAC}/?old=-1", f"versions/{MAC}/?old=²"],
    ],
)
def test_there_is_no_history_of_what_never_was(signed_in: Client, config: DeviceConfig, path: str):
    assert signed_in.get(CONFIGS + path).status_code == 404


@pytest.mark.both_databases
def test_a_version_is_none_of_another_object(signed_in: Client, config: DeviceConfig):
    other = DeviceConfig.objects.put("02-00-00-00-00-01", "{}")

    assert signed_in.get(f"{CONFIGS}{other.pk}/history/{config.history.latest().pk}/").status_code == 404


@pytest.mark.both_databases
def test_addresses_from_before_lead_to_the_versions_of_the_name(signed_in: Client, config: DeviceConfig):
    pk, first = config.pk, config.history.earliest().pk
    config.delete()
    DeviceConfig.objects.put(MAC, "{}")

    answers = [signed_in.get(f"{CONFIGS}{pk}/history/"), signed_in.get(f"{CONFIGS}{pk}/history/{first}/")]

    versions = f"{CONFIGS}versions/{MAC}/"
    assert [answer["Location"] for answer in answers] == [versions, f"{versions}?old=1&new=4"]


def test_versions_with_another_type_say_so(signed_in: Client, config: DeviceConfig):
    config.type = DeviceType.objects.create(name="Gate <1>", schema="{}")
    config.save()

    page = signed_in.get(f"{CONFIGS}versions/{MAC}/").content.decode()

    assert "The type was none; then it is “Gate &lt;1&gt;”." in page


def mirrored(alias: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in mirror_storage(alias).directory.iterdir()}
