"""Single sign-on by a header that a trusted proxy sets: who is believed, who gets in, and who is signed out."""

from __future__ import annotations

from typing import Any

import pytest
from django.conf import LazySettings
from django.contrib.auth.models import Group, Permission, User
from django.contrib.sessions.models import Session
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from iotsupport.accounts import remote_user
from iotsupport.serving import clients
from iotsupport.tests.support.api_client import make_user

pytestmark = pytest.mark.django_db

PROXY, STRANGER = "10.0.0.5", "10.0.1.5"
ADMINS = "iot-admins"


@pytest.fixture(autouse=True)
def by_header(settings: LazySettings) -> Any:
    settings.REMOTE_USER_HEADER, settings.REMOTE_GROUPS_HEADER = "X-Remote-User", "X-Remote-Groups"
    settings.OIDC_ADMIN_GROUP = ADMINS
    settings.AUTHENTICATION_BACKENDS = [remote_user.BACKEND, *settings.AUTHENTICATION_BACKENDS]
    clients.trust(["10.0.0.0/24"])
    yield
    clients.trust([])


@pytest.fixture
def editors() -> Group:
    group = Group.objects.create(name="editors")
    group.permissions.set(Permission.objects.filter(content_type__app_label="devices"))
    return group


def come(name: str | None, groups: str = "", *, by: str = PROXY, client: Client | None = None, path: str = "/admin/"):
    """Ask for a page as the proxy passes it on; the sentence of the answer is its ``why``."""
    headers = {} if name is None else {"X-Remote-User": name, "X-Remote-Groups": groups}
    answer: Any = (client or Client()).get(path, headers=headers, REMOTE_ADDR=by)
    _, _, rest = answer.content.decode().partition('<p id="why">')
    answer.why = rest.partition("</p>")[0]
    return answer


def name_in(client: Client) -> str | None:
    pk = client.session.get("_auth_user_id")
    return User.objects.get(pk=pk).username if pk else None


class TestSomebodyWithAGroup:
    def test_is_an_administrator_by_the_one_that_is_named(self):
        client = Client()

        answer = come("maria", f"staff,{ADMINS}", client=client)

        maria = User.objects.get()
        assert answer.status_code == 200
        assert (maria.is_superuser, maria.is_staff, maria.has_usable_password()) == (True, True, False)
        assert name_in(client) == "maria"

    @pytest.mark.both_databases(once=True)
    @pytest.mark.parametrize("groups", ["editors", "sales, editors", "sales|editors"])
    def test_may_what_groups_of_the_same_name_may(self, editors: Group, groups: str):
        answer = come("maria", groups)

        maria = User.objects.get()
        assert answer.status_code == 200
        assert not maria.is_superuser
        assert list(maria.groups.all()) == [editors]
        assert maria.has_perm("devices.change_deviceconfig")

    @pytest.mark.both_databases
    def test_loses_what_is_taken_from_their_groups_while_they_are_signed_in(self, editors: Group):
        client = Client()
        come("maria", f"{ADMINS},editors", client=client)

        later = come("maria", "editors", client=client)
        last = come("maria", "", client=client)

        maria = User.objects.get()
        assert (later.status_code, last.status_code) == (200, 403)
        assert (maria.is_superuser, maria.is_staff, maria.groups.count()) == (False, False, 0)
        assert name_in(client) is None

    @pytest.mark.both_databases
    def test_writes_nothing_more_in_the_session(self, editors: Group):
        client = Client()
        come("maria", "editors", client=client)

        with CaptureQueriesContext(connection) as captured:
            come("maria", "editors", client=client)

        assert {query["sql"].split()[0] for query in captured} == {"SELECT"}

    def test_uses_the_api_with_the_session(self, editors: Group):
        client = Client()

        before = come("maria", "editors", client=client, path="/configs")
        come("maria", "editors", client=client)
        after = come("maria", "editors", client=client, path="/configs")
        without = come(None, client=client, path="/configs")

        assert [before.status_code, after.status_code, without.status_code] == [401, 200, 401]

    def test_begins_a_session_that_nobody_could_prepare(self, editors: Group):
        client = Client()
        client.cookies["sessionid"] = "a" * 32

        come("maria", "editors", client=client)

        assert client.cookies["sessionid"].value != "a" * 32


class TestSomebodyWithoutAGroup:
    @pytest.mark.both_databases
    def test_reads_whom_to_ask_and_leaves_no_row(self):
        answer = come("maria", "sales,<b>")

        assert answer.status_code == 403
        assert answer.why.startswith(
            "You are known as maria, but none of your groups may do anything here. Ask whoever"
        )
        assert "&lt;b&gt;, sales." in answer.why
        assert (User.objects.count(), Session.objects.count()) == (0, 0)
        assert "sessionid" not in answer.cookies

    def test_may_sign_in_with_a_password_of_this_server(self):
        make_user(username="ada", password="swallows-return", is_staff=True)
        client = Client()
        headers = {"X-Remote-User": "maria"}
        page = client.get("/admin/login/", headers=headers, REMOTE_ADDR=PROXY)
        fields = {"username": "ada", "password": "swallows-return"}
        client.post("/admin/login/", fields, headers=headers, REMOTE_ADDR=PROXY)

        answer = come("maria", client=client)

        assert (page.status_code, answer.status_code, name_in(client)) == (200, 200, "ada")

    def test_of_a_group_that_is_only_nearly_the_right_one(self, editors: Group):
        assert [come("maria", name).status_code for name in ["IOT-ADMINS", "iot-admins2", "Editors", "/editors"]] == [
            403
        ] * 4

    def test_where_no_group_makes_administrators(self, settings: LazySettings):
        settings.OIDC_ADMIN_GROUP = ""

        assert come("maria", ",,").status_code == 403


class TestAnAccountThatWasThere:
    @pytest.mark.parametrize(("groups", "status"), [("", 403), ("editors", 403), (ADMINS, 200)])
    def test_with_a_password_is_nobody_s_by_its_name_who_may_less(self, editors: Group, groups: str, status: int):
        admin = make_user(username="admin", password="pigeons", is_staff=True, is_superuser=True)

        answer = come("admin", groups)

        admin.refresh_from_db()
        assert answer.status_code == status
        assert (admin.is_superuser, admin.is_staff, admin.has_usable_password()) == (True, True, True)

    def test_says_how_it_becomes_theirs(self, editors: Group):
        admin = make_user(username="admin", password="pigeons", is_staff=True, is_superuser=True)
        before = come("admin", "editors")
        admin.set_unusable_password()
        admin.save()

        after = come("admin", "editors")

        admin.refresh_from_db()
        assert "has a password of its own here" in before.why
        assert (after.status_code, admin.is_superuser) == (200, False)

    @pytest.mark.both_databases
    def test_that_was_deactivated_stays_so(self):
        client = Client()
        come("maria", ADMINS, client=client)
        User.objects.update(is_active=False)

        answer = come("maria", ADMINS, client=client)

        assert answer.status_code == 403
        assert answer.why == "The account maria was deactivated here. Ask an administrator of this server."

    @pytest.mark.parametrize(("is_staff", "status"), [(True, 200), (False, 403)])
    def test_keeps_its_rights_where_no_header_tells_of_groups(
        self, settings: LazySettings, is_staff: bool, status: int
    ):
        settings.REMOTE_GROUPS_HEADER = ""
        make_user(username="maria", password="pigeons", is_staff=is_staff)

        answers = [come("maria", ADMINS), come("olga", ADMINS)]

        assert [answer.status_code for answer in answers] == [status, 403]
        assert "no account of that name may use these pages" in answers[1].why
        assert not User.objects.get().is_superuser


class TestTheHeader:
    @pytest.mark.parametrize("by", [STRANGER, "127.0.0.1", "::1", "", "/run/iot.sock", "10.0.0.5.evil"])
    def test_is_believed_from_nobody_else(self, by: str):
        headers = {
            "X-Remote-User": "maria",
            "X-Remote-Groups": ADMINS,
            "X-Forwarded-For": PROXY,
            "Forwarded": f"for={PROXY}",
        }

        answer = Client().get("/admin/", headers=headers, REMOTE_ADDR=by)

        assert answer.status_code == 302
        assert not User.objects.exists()

    def test_is_believed_of_ipv4_that_comes_over_ipv6(self):
        assert come("maria", ADMINS, by=f"::ffff:{PROXY}").status_code == 200

    @pytest.mark.parametrize(
        "name",
        ["maria,admin", "dom\\maria", "maria hill", "m" * 151, "ａdmin", "maria\0", "<b>", "cn=maria", "\xff", "ﬁn"],
    )
    def test_with_what_cannot_be_a_name_signs_nobody_in(self, name: str):
        make_user(username="admin", password="pigeons", is_staff=True, is_superuser=True)
        sent = name if name == "\xff" else name.encode().decode("latin-1")

        answer = come(sent, ADMINS)

        assert answer.status_code == 403
        assert "which cannot be the name of an account here" in answer.why
        assert len(answer.why) < 500
        assert User.objects.count() == 1

    def test_is_read_in_utf_8(self):
        assert come("ma\u00f1ana".encode().decode("latin-1"), ADMINS).status_code == 200
        assert User.objects.get().username == "ma\u00f1ana"

    @pytest.mark.parametrize("name", ["", "  "])
    def test_that_is_empty_names_nobody(self, name: str):
        assert come(name, ADMINS).status_code == 302

    def test_of_the_longest_name(self):
        assert come("m" * 150, ADMINS).status_code == 200

    def test_that_is_gone_ends_the_session(self):
        client = Client()
        come("maria", ADMINS, client=client)

        gone = come(None, client=client)

        assert (gone.status_code, name_in(client), Session.objects.count()) == (302, None, 0)

    def test_that_comes_from_elsewhere_ends_the_session(self):
        """Somebody has the cookie, and talks to the server itself."""
        client = Client()
        come("maria", ADMINS, client=client)

        assert come("maria", ADMINS, client=client, by=STRANGER).status_code == 302
        assert not Session.objects.exists()

    def test_that_names_somebody_else_switches(self):
        client = Client()
        come("maria", ADMINS, client=client)
        key = client.cookies["sessionid"].value

        come("olga", ADMINS, client=client)

        assert name_in(client) == "olga"
        assert client.cookies["sessionid"].value != key

    def test_leaves_who_signed_in_with_a_password_alone(self):
        client = Client()
        client.force_login(make_user(username="ada", is_staff=True), "django.contrib.auth.backends.ModelBackend")

        come("maria", ADMINS, client=client)

        assert name_in(client) == "ada"

    def test_is_nothing_to_devices_and_probes(self):
        answers = [come("maria", ADMINS, path=path) for path in ["/health", "/configs/02-00-00-00-00-01.json"]]

        assert not any(answer.cookies for answer in answers)
        assert not User.objects.exists()

    def test_whose_setting_is_gone_ends_the_sessions_that_it_began(self, settings: LazySettings):
        client = Client()
        come("maria", ADMINS, client=client)
        settings.REMOTE_USER_HEADER = ""
        settings.AUTHENTICATION_BACKENDS = settings.AUTHENTICATION_BACKENDS[1:]

        cookie = {"Cookie": f"sessionid={client.cookies['sessionid'].value}"}

        assert Client(headers=cookie).get("/admin/").status_code == 302

    def test_signs_nobody_in_while_the_one_for_groups_is_wrong(self, settings: LazySettings):
        settings.REMOTE_GROUPS_HEADER = ""
        settings.ENVIRONMENT_PROBLEMS = {"REMOTE_GROUPS_HEADER": "It cannot be right."}
        make_user(username="admin", password="pigeons", is_staff=True, is_superuser=True)

        assert come("admin").status_code == 302


def test_signing_out_says_that_the_proxy_signs_in_again():
    client = Client()
    headers = {"X-Remote-User": "maria", "X-Remote-Groups": ADMINS}
    come("maria", ADMINS, client=client)

    answer = client.post("/admin/logout/", headers=headers, REMOTE_ADDR=PROXY)

    assert "You are signed out here, but not where you signed in first" in answer.content.decode()
    assert name_in(client) is None
