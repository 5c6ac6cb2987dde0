"""The form asks before it saves what boards may not take, and keeps the upload meanwhile; and an asset's page."""

from __future__ import annotations

import hashlib
import html
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.files.uploadedfile import SimpleUploadedFile
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from assets.metrics import ERROR_TYPES
from assets.models import Asset, PendingUpload, SharedChunk
from iotsupport.boards.models import Board, State
from iotsupport.editing.origins import Origin, Way, changing
from iotsupport.mirror.files import mirror_storage
from iotsupport.tests.support.api_client import counted, make_user, metric, nothing_changed, session_client
from iotsupport.tests.support.images import make_full_flash, make_image
from notifications.models import Announcement

pytestmark = pytest.mark.usefixtures("transactional_db")

LIST = "/admin/assets/asset/"
ADD = f"{LIST}add/"
UPLOADS = "iot_asset_upload_requests_total"
STATUSES, KINDS = ["success", "error"], ["none", "other", *ERROR_TYPES.values()]

FOR_OTHER_CHIP = make_image(9, version=b"1.5.0")


@pytest.fixture
def asset() -> Asset:
    return Asset.objects.upload("kitchen.bin", [make_image()])


def change_url(asset: Asset) -> str:
    return f"{LIST}{asset.pk}/change/"


def file(content: bytes, name: str = "kitchen.bin") -> dict[str, Any]:
    return {"file": SimpleUploadedFile(name, content)}


def text_of(response: Any) -> str:
    return html.unescape(response.content.decode())


def fields(response: Any) -> dict[str, str]:
    """What the page that asks would send."""
    form = re.search(r'<form method="post" id="ask_form"[^>]*>(.*?)</form>', response.content.decode(), re.DOTALL)
    assert form, "It does not ask."
    return dict(re.findall(r'<input type="hidden" name="(?!csrf)(\w+)" value="([^"]*)"', form[1]))


@contextmanager
def nothing_but_kept_bytes() -> Iterator[None]:
    """No asset, no version, no file, no message; the bytes that are kept are looked at by themselves."""

    def look() -> Any:
        rows = (
            list(Asset.objects.values_list("filename", "sha256")),
            Asset.history.count(),
            Announcement.objects.count(),
        )
        return rows, mirror_storage("assets").names()

    before = look()
    yield
    assert look() == before


@contextmanager
def not_counted() -> Iterator[None]:
    def look() -> list[float]:
        return [metric(UPLOADS, status=status, error_type=kind) for status in STATUSES for kind in KINDS]

    before = look()
    yield
    assert look() == before


def messages(client: Client) -> list[str]:
    return [str(message) for message in client.get(LIST).context["messages"]]


def only_pending() -> bytes:
    pending = PendingUpload.objects.get()
    return mirror_storage("blobs").directory.joinpath(pending.sha256).read_bytes()


@pytest.mark.both_databases(once=True)
@pytest.mark.parametrize(
    ("content", "warning"),
    [
        (make_image()[:-1], "The image is cut short after"),
        (make_image()[:1500] + b"x" + make_image()[1501:], "The image's checksum is wrong"),
        (make_full_flash(), "This is an image of the whole flash"),
    ],
    ids=["cut", "damaged", "full flash"],
)
def test_asks_about_a_new_file_then_saves_it(signed_in: Client, content: bytes, warning: str):
    with nothing_but_kept_bytes(), not_counted():
        asked = signed_in.post(ADD, file(content))

    assert "Save kitchen.bin all the same?" in text_of(asked)
    assert warning in text_of(asked)
    assert only_pending() == content

    with counted(UPLOADS, status="success", error_type="none"):
        saved = signed_in.post(ADD, fields(asked))

    assert saved.status_code == 302
    asset = Asset.objects.get()
    assert (asset.filename, asset.sha256) == ("kitchen.bin", hashlib.sha256(content).hexdigest())
    assert mirror_storage("assets").matches("kitchen.bin", asset.sha256)
    assert not PendingUpload.objects.exists()
    assert any(warning in message for message in messages(signed_in))


def test_asks_about_the_next_version(signed_in: Client, asset: Asset):
    with nothing_but_kept_bytes():
        asked = signed_in.post(change_url(asset), file(FOR_OTHER_CHIP, "any.bin"))

    assert "another chip than the version before: ESP32-S3 instead of ESP32-C3." in text_of(asked)
    assert "kitchen 1.4.2 for the ESP32-C3" in text_of(asked)

    signed_in.post(change_url(asset), fields(asked))

    asset.refresh_from_db()
    assert (asset.chip, asset.version, asset.history.count()) == ("ESP32-S3", "1.5.0", 2)
    assert len(asset.warnings) == 1


class TestOneThatSomebodyElseReplacedMeanwhile:
    @pytest.fixture
    def asset(self) -> Asset:
        return Asset.objects.upload("kitchen.bin", [b"before"])

    @pytest.fixture
    def maria(self) -> User:
        return make_user(username="maria")

    @pytest.fixture
    def based_on(self, asset: Asset) -> str:
        return asset.sha256

    def send(self, client: Client, asset: Asset, based_on: str, content: bytes = b"mine") -> Any:
        return client.post(change_url(asset), {"based_on": based_on, **file(content)})

    @pytest.mark.both_databases
    def test_is_asked_about_then_saved(self, signed_in, asset, based_on, maria):
        with changing(Origin(Way.API, maria, token="<b>build</b>")):
            Asset.objects.upload("kitchen.bin", [b"theirs"])

        with nothing_but_kept_bytes(), not_counted():
            asked = self.send(signed_in, asset, based_on)

        assert "<strong>maria</strong> changed it meanwhile" in asked.content.decode()
        assert "by the API (token “<b>build</b>”)" in text_of(asked)
        assert "<b>" not in asked.content.decode()
        assert only_pending() == b"mine"
        assert signed_in.post(change_url(asset), fields(asked)).status_code == 302
        assert mirrored() == b"mine"

    def test_and_once_more_is_asked_about_again(self, signed_in, asset, based_on):
        Asset.objects.upload("kitchen.bin", [b"theirs"])
        asked = self.send(signed_in, asset, based_on)
        Asset.objects.upload("kitchen.bin", [b"and again"])

        asked_again = signed_in.post(change_url(asset), fields(asked))

        assert mirrored() == b"and again"
        assert PendingUpload.objects.count() == 1
        signed_in.post(change_url(asset), fields(asked_again))
        assert mirrored() == b"mine"

    @pytest.mark.parametrize("theirs", [b"before", b"mine"], ids=["nothing", "the same"])
    def test_with_the_same_bytes_is_not_asked_about(self, signed_in, asset, based_on, theirs):
        Asset.objects.upload("kitchen.bin", [theirs])

        assert self.send(signed_in, asset, based_on).status_code == 302
        assert mirrored() == b"mine"

    @pytest.mark.both_databases
    def test_or_deleted_is_brought_back_with_the_upload(self, signed_in, asset, based_on, maria):
        url = change_url(asset)
        with changing(Origin(Way.ADMIN, maria)):
            asset.delete()

        with nothing_but_kept_bytes(), not_counted():
            asked = signed_in.post(url, {"based_on": based_on, **file(b"mine", "other.bin")})

        assert "<strong>maria</strong> deleted it meanwhile" in asked.content.decode()
        assert f'action="{ADD}"' in asked.content.decode()
        assert signed_in.post(ADD, fields(asked)).status_code == 302
        assert mirrored() == b"mine"

    @pytest.mark.both_databases
    def test_or_deleted_and_uploaded_again_is_asked_about(self, signed_in, asset, based_on):
        url = change_url(asset)
        asset.delete()
        successor = Asset.objects.upload("kitchen.bin", [b"theirs"])

        asked = signed_in.post(url, {"based_on": based_on, **file(b"mine")})

        assert "Version before" in text_of(asked)
        assert mirrored() == b"theirs"
        signed_in.post(change_url(successor), fields(asked))
        assert mirrored() == b"mine"

    def test_and_uploaded_again_before_the_answer_is_asked_about_again(self, signed_in, asset, based_on):
        url = change_url(asset)
        asset.delete()
        asked = signed_in.post(url, {"based_on": based_on, **file(b"mine")})
        Asset.objects.upload("kitchen.bin", [b"theirs"])

        asked_again = signed_in.post(ADD, fields(asked))

        assert mirrored() == b"theirs"
        signed_in.post(ADD, fields(asked_again))
        assert mirrored() == b"mine"

    def test_or_deleted_comes_back_only_by_who_may_add(self, asset, based_on):
        editor = session_client(make_user("assets.view_asset", "assets.change_asset", is_staff=True))
        url = change_url(asset)
        asset.delete()

        assert editor.post(url, {"based_on": based_on, **file(b"mine")}).status_code == 403
        assert not PendingUpload.objects.exists()


def mirrored() -> bytes:
    return mirror_storage("assets").directory.joinpath("kitchen.bin").read_bytes()


def test_asks_about_a_name_that_is_there(signed_in: Client, asset: Asset):
    asked = signed_in.post(ADD, file(FOR_OTHER_CHIP))
    signed_in.post(ADD, fields(asked))

    assert Asset.objects.get().pk == asset.pk
    assert Asset.objects.get().chip == "ESP32-S3"


def test_keeps_the_choice_and_the_button(signed_in: Client, asset: Asset):
    asked = signed_in.post(
        change_url(asset), {**file(FOR_OTHER_CHIP), "unchanged_where_running": "on", "_continue": "Save"}
    )

    saved = signed_in.post(change_url(asset), fields(asked))

    assert saved["Location"] == change_url(asset)
    assert Asset.objects.get().unchanged_where_running


def test_asks_nothing_where_there_is_no_doubt(signed_in: Client, asset: Asset):
    assert signed_in.post(change_url(asset), file(make_image(version=b"1.5.0"))).status_code == 302
    assert not PendingUpload.objects.exists()


def test_who_does_not_save_changes_nothing(signed_in: Client, asset: Asset):
    asked = signed_in.post(change_url(asset), file(FOR_OTHER_CHIP))

    assert f'<a class="closelink" href="{change_url(asset)}">Do not save</a>' in asked.content.decode()
    assert Asset.objects.get().chip == "ESP32-C3"


@pytest.mark.both_databases
def test_what_is_pending_outlives_a_start(signed_in: Client, asset: Asset):
    asked = signed_in.post(change_url(asset), file(FOR_OTHER_CHIP))

    Asset.collect_garbage()
    signed_in.post(change_url(asset), fields(asked))

    assert Asset.objects.get().chip == "ESP32-S3"


@pytest.mark.both_databases
def test_what_nobody_answers_is_forgotten_after_a_day(signed_in: Client, asset: Asset):
    asked = signed_in.post(change_url(asset), file(FOR_OTHER_CHIP))
    PendingUpload.objects.update(created_at=timezone.now() - timedelta(days=1, minutes=1))

    with nothing_changed():
        late = signed_in.post(change_url(asset), fields(asked))
    removed = Asset.collect_garbage()

    assert "was not answered for too long. Choose the file again." in text_of(late)
    assert removed == [hashlib.sha256(FOR_OTHER_CHIP).hexdigest()]
    assert not SharedChunk.objects.filter(sha256=removed[0]).exists()


@pytest.mark.both_databases
def test_one_person_has_five_at_most(signed_in: Client, asset: Asset):
    for number in range(7):
        signed_in.post(change_url(asset), file(make_image(9, version=b"%d" % number)))

    kept = {pending.inspection.image.version for pending in PendingUpload.objects.all() if pending.inspection.image}
    assert kept == {"2", "3", "4", "5", "6"}


@pytest.mark.both_databases
def test_an_answer_counts_once(signed_in: Client, asset: Asset):
    asked = signed_in.post(change_url(asset), file(FOR_OTHER_CHIP))
    signed_in.post(change_url(asset), fields(asked))

    with nothing_changed():
        again = signed_in.post(change_url(asset), fields(asked))

    assert "This upload is saved already" in text_of(again)


@pytest.mark.parametrize("key", ["", "x", "00000000-0000-0000-0000-000000000000", "0" * 5000])
def test_a_made_up_answer_saves_nothing(signed_in: Client, asset: Asset, key: str):
    with nothing_changed():
        assert signed_in.post(change_url(asset), {"pending": key}).status_code == 200


@pytest.mark.both_databases
def test_nobody_answers_for_another_person_or_asset(signed_in: Client, asset: Asset):
    other = Asset.objects.upload("cellar.bin", [make_image()])
    asked = signed_in.post(change_url(asset), file(FOR_OTHER_CHIP))
    colleague = session_client(make_user("assets.change_asset", "assets.view_asset", is_staff=True))

    with nothing_changed():
        assert colleague.post(change_url(asset), fields(asked)).status_code == 200
        assert signed_in.post(change_url(other), fields(asked)).status_code == 200


def test_who_may_not_replace_is_not_asked(asset: Asset):
    adder = session_client(make_user("assets.add_asset", "assets.view_asset", is_staff=True))

    assert adder.post(ADD, file(FOR_OTHER_CHIP)).status_code == 403
    assert not PendingUpload.objects.exists()


def test_an_answer_whose_bytes_are_lost_is_refused(signed_in: Client, asset: Asset):
    asked = signed_in.post(change_url(asset), file(FOR_OTHER_CHIP))
    SharedChunk.objects.all().delete()
    mirror_storage("blobs").directory.joinpath(PendingUpload.objects.get().sha256).unlink()

    with nothing_changed():
        response = signed_in.post(change_url(asset), fields(asked))

    assert "The kept bytes of this version are missing or damaged." in text_of(response)


@pytest.mark.both_databases
def test_a_name_and_a_project_are_text(signed_in: Client):
    asked = signed_in.post(ADD, file(make_image(project=b"<b>x</b>")[:-1], "<i>.bin"))

    assert b"<b>x" not in asked.content and b"<i>" not in asked.content


def test_a_version_that_comes_back_is_judged_anew(signed_in: Client, asset: Asset):
    asset = Asset.objects.upload("kitchen.bin", [FOR_OTHER_CHIP])

    signed_in.post(f"{LIST}versions/kitchen.bin/1/restore/", {"based_on": asset.sha256})

    assert Asset.objects.get().chip == "ESP32-C3"
    assert Asset.objects.get().warnings == [
        "It is for another chip than the version before: ESP32-C3 instead of ESP32-S3."
    ]


class TestChoice:
    @pytest.mark.both_databases
    def test_is_saved_without_a_file(self, signed_in: Client, asset: Asset):
        with not_counted():
            response = signed_in.post(change_url(asset), {"unchanged_where_running": "on"})

        assert response.status_code == 302
        after = Asset.objects.get()
        assert (after.unchanged_where_running, after.uploaded_at) == (True, asset.uploaded_at)
        assert after.history.latest().history_user is not None

    def test_is_no_news_for_devices(self, signed_in: Client, asset: Asset, monkeypatch: pytest.MonkeyPatch):
        from notifications.publisher import publisher

        monkeypatch.setattr(type(publisher), "is_on", True)
        Announcement.objects.all().delete()

        signed_in.post(change_url(asset), {"unchanged_where_running": "on"})

        assert not Announcement.objects.exists()

    def test_needs_the_permission(self, asset: Asset):
        guest = session_client(make_user("assets.view_asset", is_staff=True))

        assert guest.post(change_url(asset), {"unchanged_where_running": "on"}).status_code == 403


class TestPage:
    def test_says_what_the_image_is(self, signed_in: Client, asset: Asset):
        page = text_of(signed_in.get(change_url(asset)))

        for said in ["kitchen", "1.4.2", "ESP32-C3", "v5.3.1", "2026-11-03T14:02:11", asset.image_sha256]:
            assert said in page

    def test_has_lines_to_copy(self, signed_in: Client, asset: Asset):
        page = text_of(signed_in.get(change_url(asset)))

        url = "http://testserver/assets/kitchen.bin"
        assert f"curl -f -o kitchen.bin {url}" in page
        assert f'httpUpdate.update(client, "{url}");' in page
        assert f'{{.url = "{url}"' in page
        assert f"source: {url}.manifest.json" in page

    def test_has_lines_that_a_shell_takes(self, signed_in: Client):
        asset = Asset.objects.upload("it's $1 & größe.bin", [make_image()])

        page = text_of(signed_in.get(change_url(asset)))

        assert """curl -f -o 'it'"'"'s $1 & größe.bin' 'http://testserver/assets/it""" in page

    @pytest.mark.parametrize(("content", "has"), [(make_image()[:-1], True), (b"a font", False)])
    def test_offers_nothing_that_does_not_work(self, signed_in: Client, content: bytes, has: bool):
        page = text_of(signed_in.get(change_url(Asset.objects.upload("a.bin", [content]))))

        assert "manifest.json" not in page
        assert ("httpUpdate.update" in page) == has

    @pytest.mark.both_databases
    def test_says_how_many_boards_say_that_they_run_each_version(self, signed_in: Client, asset: Asset):
        first, second = asset.sha256, Asset.objects.upload("kitchen.bin", [make_image(version=b"1.5.0")]).sha256
        for number, (sha256, state) in enumerate(
            [
                (first, State.CURRENT),
                (first, State.WAITING),
                (second, State.BEHIND),
                (first, State.GONE),
                ("0" * 64, "current"),
            ]
        ):
            Board.objects.create(
                mac_address=f"00-00-00-00-00-0{number}",
                state=state,
                runs_filename="kitchen.bin",
                runs_asset_sha256=sha256,
            )

        page = signed_in.get(change_url(asset))

        assert [(row.version.version, row.boards, row.is_current) for row in page.context["versions"]] == [
            ("1.5.0", 1, True),
            ("1.4.2", 2, False),
        ]
        assert "Boards that say they run another version of this name: 1" in text_of(page)

    def test_costs_the_same_with_many_versions(self, signed_in: Client, asset: Asset):
        def queries() -> int:
            with CaptureQueriesContext(connection) as captured:
                signed_in.get(change_url(asset))
            return len(captured)

        queries()  # asks for what a process keeps from then on, such as the types of content
        before = queries()
        for number in range(20):
            Asset.objects.upload("kitchen.bin", [make_image(version=b"2.%d" % number)])

        assert queries() == before
