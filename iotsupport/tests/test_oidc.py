"""Single sign-on with OpenID Connect: what is believed, whose account it is, and what goes wrong, with its sentence."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from django.conf import LazySettings
from django.contrib.auth.models import Group, User
from django.contrib.sessions.models import Session
from django.test import Client

from iotsupport.accounts import oidc
from iotsupport.accounts.oidc import provider as asking
from iotsupport.accounts.oidc import views
from iotsupport.models import Identity
from iotsupport.tests.support.api_client import make_user, token_client
from iotsupport.tests.support.oidc import CLIENT_ID, CLIENT_SECRET, Provider, serving

pytestmark = pytest.mark.django_db

CALLBACK = "/admin/sign-in/callback/"


@pytest.fixture(scope="module")
def shared() -> Iterator[Provider]:
    with serving() as provider:
        yield provider


@pytest.fixture
def provider(shared: Provider, settings: LazySettings) -> Iterator[Provider]:
    """One that knows Maria, an administrator; on, and asked anew."""
    shared.__dict__.update(Provider(shared.url).__dict__)
    settings.OIDC_ISSUER, settings.OIDC_CLIENT_ID, settings.OIDC_CLIENT_SECRET = shared.url, CLIENT_ID, CLIENT_SECRET
    settings.OIDC_ADMIN_GROUP = "iot-admins"
    settings.AUTHENTICATION_BACKENDS = [oidc.BACKEND, *settings.AUTHENTICATION_BACKENDS]
    asking.forget()
    views.forget()
    yield shared
    asking.forget()


def begin(client: Client, next_url: str = "/admin/", **options: Any) -> dict[str, str]:
    """Go to the provider; what it is asked."""
    answer = client.get("/admin/sign-in/", {"next": next_url}, **options)
    assert answer.status_code == 302
    return {name: values[0] for name, values in parse_qs(urlsplit(answer["Location"]).query).items()}


def come_back(provider: Provider, client: Client, asked: dict[str, str], **fields: str) -> Any:
    """Come back with a code for what was asked; the sentence of the answer is its ``why``."""
    provider.claims.setdefault("nonce", asked.get("nonce", ""))
    answer: Any = client.get(CALLBACK, {"code": "a-code", "state": asked["state"], **fields})
    _, _, rest = answer.content.decode().partition('<p id="why">')
    answer.why = unescape(rest.partition("</p>")[0])
    return answer


def sign_in(provider: Provider, client: Client | None = None) -> Any:
    client = client or Client()
    provider.claims.pop("nonce", None)
    return come_back(provider, client, begin(client))


class TestSigningIn:
    @pytest.mark.both_databases
    def test_goes_to_the_provider_and_back_to_the_page(self, provider: Provider):
        client = Client()
        asked = begin(client, "/admin/devices/deviceconfig/?state=behind")

        answer = come_back(provider, client, asked)

        assert {name: asked[name] for name in ["client_id", "response_type", "scope", "code_challenge_method"]} == {
            "client_id": CLIENT_ID,
            "response_type": "code",
            "scope": "openid profile email",
            "code_challenge_method": "S256",
        }
        assert asked["redirect_uri"] == f"http://testserver{CALLBACK}"
        assert (answer.status_code, answer["Location"]) == (302, "/admin/devices/deviceconfig/?state=behind")
        assert provider.sent[0]["code_verifier"]
        assert client.get("/admin/").status_code == 200

    @pytest.mark.both_databases
    def test_makes_one_account_for_a_subject_with_the_rights_of_its_groups(self, provider: Provider):
        editors = Group.objects.create(name="editors")
        provider.userinfo |= {"email": "maria@example.com", "given_name": "Maria", "family_name": "Hill"}
        sign_in(provider)
        first = User.objects.get()
        provider.userinfo |= {"groups": ["editors", "sales"], "preferred_username": "mhill", "email": "m@example.com"}
        sign_in(provider)

        maria = User.objects.get()
        assert (first.username, first.is_superuser, first.get_full_name()) == ("maria", True, "Maria Hill")
        assert (maria.username, maria.is_superuser, maria.is_staff, maria.email) == (
            "maria",
            False,
            True,
            "m@example.com",
        )
        assert list(maria.groups.all()) == [editors]
        assert not maria.has_usable_password()

    def test_asks_for_groups_where_the_provider_knows_of_them(self, provider: Provider):
        provider.metadata["scopes_supported"] = ["openid", "groups"]

        assert begin(Client())["scope"] == "openid profile email groups"

    def test_takes_what_the_token_says_where_there_is_nothing_else(self, provider: Provider):
        provider.metadata.pop("userinfo_endpoint")
        provider.claims |= provider.userinfo

        assert sign_in(provider).status_code == 302
        assert User.objects.get().username == "maria"

    @pytest.mark.parametrize(("kid", "more", "status"), [(None, 0, 302), ("1", 1, 302), (None, 1, 403), ("3", 1, 403)])
    def test_finds_the_key(self, provider: Provider, kid: str | None, more: int, status: int):
        provider.kid, provider.more_keys = kid, [{"kty": "RSA", "kid": "2", "n": "AQAB", "e": "AQAB"}] * more
        provider.more_keys += [{"kty": "RSA", "use": "enc"}, {"kty": "EC"}]

        assert sign_in(provider).status_code == status

    def test_works_in_several_tabs(self, provider: Provider):
        client = Client()
        first, second = begin(client, "/admin/auth/user/"), begin(client)
        provider.claims["nonce"] = first["nonce"]

        assert come_back(provider, client, first)["Location"] == "/admin/auth/user/"
        provider.claims["nonce"] = second["nonce"]
        assert come_back(provider, client, second)["Location"] == "/admin/"

    def test_begins_a_session_that_nobody_could_prepare(self, provider: Provider):
        client = Client()
        client.force_login(make_user(username="eve"), "django.contrib.auth.backends.ModelBackend")
        key = client.cookies["sessionid"].value

        sign_in(provider, client)

        assert client.cookies["sessionid"].value != key
        assert not Session.objects.filter(session_key=key).exists()

    def test_comes_back_over_https_behind_a_front_server(self, provider: Provider):
        assert begin(Client(), secure=True)["redirect_uri"] == f"https://testserver{CALLBACK}"

    @pytest.mark.parametrize(
        "next_url", ["//evil.example", "https://evil.example/admin/", "/admin/logout/", "javascript:1"]
    )
    def test_goes_nowhere_else(self, provider: Provider, next_url: str):
        client = Client()

        assert come_back(provider, client, begin(client, next_url))["Location"] == "/admin/"


@pytest.mark.both_databases
class TestAnAccountThatWasThere:
    @pytest.mark.parametrize("name", ["maria", "Maria"])
    def test_is_nobody_s_by_its_name_or_address(self, provider: Provider, name: str):
        local = make_user(username=name, password="pigeons", is_staff=True, is_superuser=True, email="m@example.com")
        provider.userinfo |= {"email": "m@example.com", "email_verified": True, "groups": ["iot-admins"]}

        sign_in(provider)

        new = Identity.objects.get().user
        assert new != local
        assert new.username == "maria@127.0.0.1"

    def test_gets_another_name_where_that_is_taken_too(self, provider: Provider):
        make_user(username="maria")
        make_user(username="maria@127.0.0.1")

        sign_in(provider)

        assert Identity.objects.get().user.username.startswith("user-")

    def test_of_another_subject_is_another_account(self, provider: Provider):
        sign_in(provider)
        provider.claims["sub"] = provider.userinfo["sub"] = "4712"

        sign_in(provider)

        assert sorted(User.objects.values_list("username", flat=True)) == ["maria", "maria@127.0.0.1"]

    def test_that_was_deactivated_stays_so(self, provider: Provider):
        sign_in(provider)
        User.objects.update(is_active=False)

        answer = sign_in(provider)

        assert answer.status_code == 403
        assert answer.why == "The account maria was deactivated here. Ask an administrator of this server."

    def test_loses_what_it_may_with_its_last_group(self, provider: Provider):
        sign_in(provider)
        script = token_client(User.objects.get())
        provider.userinfo["groups"] = ["sales"]

        answer = sign_in(provider)

        assert answer.status_code == 403
        assert script.get("/configs").status_code == 403

    @pytest.mark.parametrize("name", ["", None, 7, "a b", "m" * 151, "\0", ["maria"]])
    def test_gets_a_name_whatever_the_provider_says(self, provider: Provider, name: Any):
        provider.userinfo |= {"preferred_username": name, "email": "x" * 300, "given_name": "\0", "family_name": 1}

        assert sign_in(provider).status_code == 302
        assert User.objects.get().username.startswith("user-")


def test_the_page_of_a_user_says_who_that_is_there(provider: Provider, signed_in: Client):
    provider.claims["sub"] = provider.userinfo["sub"] = "<b>4711"
    sign_in(provider)
    local, maria = User.objects.order_by("pk")

    pages = [signed_in.get(f"/admin/auth/user/{user.pk}/change/").content.decode() for user in [local, maria]]

    assert ["Single sign-on" in page for page in pages] == [False, True]
    assert f"&lt;b&gt;4711 of {provider.url}" in pages[1]


class TestSomebodyWithoutAGroup:
    @pytest.mark.parametrize("groups", [None, [], ["sales", "<b>"], "sales", ["IOT-ADMINS"], [7], {"iot-admins2": 1}])
    def test_reads_whom_to_ask_and_leaves_no_row(self, provider: Provider, groups: Any):
        provider.userinfo["groups"] = groups

        answer = sign_in(provider)

        assert answer.status_code == 403
        assert answer.why.startswith(
            "You are known as maria, but none of your groups may do anything here. Ask whoever"
        )
        assert (User.objects.count(), Session.objects.count()) == (0, 0)

    def test_nor_does_whoever_only_begins(self, provider: Provider):
        client = Client()
        begin(client)

        assert not Session.objects.exists()
        cookie = client.cookies["oidc_auth"]
        assert (cookie["path"], cookie["httponly"], cookie["samesite"]) == ("/admin/sign-in/", True, "Lax")


def other_key(provider: Provider) -> None:
    provider.signs_with = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def no_signature(provider: Provider) -> None:
    provider.signs_with, provider.algorithm = "", "none"


def what_everybody_knows_as_a_password(provider: Provider) -> None:
    number = provider.key.public_key().public_numbers().n
    provider.signs_with, provider.algorithm = str(number), "HS256"


def claims(**changed: Any) -> Callable[[Provider], None]:
    def change(provider: Provider) -> None:
        provider.claims |= changed
        provider.claims = {name: value for name, value in provider.claims.items() if value is not None}

    return change


def somebody_else(provider: Provider) -> None:
    provider.userinfo["sub"] = "admin"


class TestWhatIsNotBelieved:
    @pytest.mark.parametrize(
        "change",
        [
            other_key,
            no_signature,
            what_everybody_knows_as_a_password,
            somebody_else,
            claims(nonce="another"),
            claims(aud="another-client"),
            claims(aud=[CLIENT_ID, "another"], azp="another"),
            claims(iss="http://127.0.0.1:1"),
            claims(exp=None),
            claims(iat=None),
            claims(sub=None),
            claims(sub="x" * 256),
        ],
    )
    def test_signs_nobody_in(self, provider: Provider, change: Callable[[Provider], None], caplog: Any):
        change(provider)
        client = Client()

        answer = come_back(provider, client, begin(client))

        assert answer.status_code == 403
        assert answer.why.endswith(
            "cannot be verified, so it is not taken. Ask whoever runs this server to look into its log."
        )
        assert "is not believed" in caplog.text
        assert not User.objects.exists()

    @pytest.mark.parametrize(("changed", "status"), [({"exp": -90}, 403), ({"iat": 90}, 403), ({"exp": -30}, 302)])
    def test_or_is_of_another_time(self, provider: Provider, changed: dict[str, int], status: int):
        provider.claims |= {name: int(time.time()) + seconds for name, seconds in changed.items()}

        answer = sign_in(provider)

        assert answer.status_code == status
        assert status == 302 or answer.why.startswith("The clocks of this server and of 127.0.0.1:")

    def test_a_state_of_another_browser(self, provider: Provider):
        asked = begin(Client())

        answer = come_back(provider, Client(), asked)

        assert answer.status_code == 400
        assert "belongs to no sign-in that this browser began here" in answer.why
        assert not provider.sent

    def test_a_state_that_was_used(self, provider: Provider):
        client = Client()
        asked = begin(client)
        come_back(provider, client, asked)

        assert come_back(provider, client, asked).status_code == 400
        assert len(provider.sent) == 1

    def test_a_state_that_somebody_made_up(self, provider: Provider):
        client = Client()
        client.cookies["oidc_auth"] = client.cookies["sessionid"] = "eyJvaWRjX3N0YXRlcyI6e319:1:x"

        assert come_back(provider, client, {"state": "x"}).status_code == 400
        assert client.get(CALLBACK).status_code == 400

    def test_nor_a_password_with_the_answer_of_a_provider_in_the_query(self, provider: Provider):
        answer = Client().post("/admin/login/?code=a-code&state=x", {"username": "maria", "password": "x"})

        assert answer.status_code == 200
        assert not provider.asked


class TestWhatGoesWrong:
    def test_somebody_cancels(self, provider: Provider):
        answer = Client().get(CALLBACK, {"error": "access_denied"})

        assert answer.status_code == 403
        assert "Signing in was cancelled at 127.0.0.1:" in answer.content.decode()

    @pytest.mark.parametrize(
        ("error", "told"), [("invalid_scope", "(invalid_scope)"), ("<script>x", "(without saying why)")]
    )
    def test_the_provider_refuses(self, provider: Provider, error: str, told: str):
        answer = Client().get(CALLBACK, {"error": error, "error_description": "Call 555-EVIL"}).content.decode()

        assert f"did not sign you in {told}" in answer
        assert "EVIL" not in answer

    def test_the_secret_is_wrong(self, provider: Provider, caplog: Any):
        provider.refusal = 401, {"error": "invalid_client", "error_description": CLIENT_SECRET}

        answer = sign_in(provider)

        assert "did not take what this server sent (invalid_client)" in answer.why
        assert CLIENT_SECRET not in answer.content.decode() + caplog.text

    @pytest.mark.parametrize(
        "refusal", [(500, "broken"), (200, {}), (200, {"id_token": "x"}), (200, []), (200, {"id_token": None})]
    )
    def test_its_answer_makes_no_sense(self, provider: Provider, refusal: tuple[int, Any]):
        provider.refusal = refusal

        assert sign_in(provider).status_code == 403

    def test_it_is_away(self, provider: Provider, settings: LazySettings):
        settings.OIDC_ISSUER = "http://127.0.0.1:1"

        answers: list[Any] = [Client().get("/admin/sign-in/") for _ in range(2)]

        assert [answer.status_code for answer in answers] == [503, 503]
        assert "127.0.0.1:1, does not answer as it should (no connection). Try again" in answers[0].content.decode()
        assert answers[0]["Retry-After"]
        assert Client().get("/admin/login/").status_code == 200

    @pytest.mark.parametrize(
        ("changed", "why"),
        [
            ({"issuer": "http://127.0.0.1:1"}, "it calls itself otherwise than OIDC_ISSUER"),
            ({"issuer": None}, "what it says of itself is not that of a provider"),
            ({"token_endpoint": "file:///etc/passwd"}, "its token_endpoint is no address that can be used"),
            ({"jwks_uri": 7}, "its jwks_uri is no address that can be used"),
        ],
    )
    def test_what_it_says_of_itself_cannot_be(self, provider: Provider, changed: dict[str, Any], why: str):
        provider.metadata |= changed

        answer = Client().get("/admin/sign-in/")

        assert answer.status_code == 503
        assert why in answer.content.decode()

    def test_is_asked_once_for_all(self, provider: Provider):
        for _ in range(3):
            begin(Client())

        assert provider.asked == ["/.well-known/openid-configuration"]

    def test_somebody_sends_answers_without_end(self, provider: Provider):
        provider.refusal = 400, {"error": "invalid_grant"}

        statuses = [sign_in(provider).status_code for _ in range(17)]

        assert statuses == [403] * 15 + [503] * 2
        assert len(provider.sent) == 15

    def test_shows_no_secret_where_pages_are_debugged(
        self, provider: Provider, settings: LazySettings, monkeypatch: pytest.MonkeyPatch
    ):
        def fail(*args: Any) -> None:
            raise RuntimeError("A bug.")

        monkeypatch.setattr("iotsupport.accounts.identities.sign_in", fail)
        settings.DEBUG = True
        client = Client(raise_request_exception=False)
        asked = begin(client)
        cookie = client.cookies["oidc_auth"].value

        answer = come_back(provider, client, asked)

        assert answer.status_code == 500
        assert not [secret for secret in [CLIENT_SECRET, "secret-access", cookie] if secret in answer.content.decode()]


class TestThePageToSignIn:
    def test_offers_it(self, provider: Provider):
        page = Client().get("/admin/login/?next=/admin/auth/user/").content.decode()

        assert '<a class="button" href="/admin/sign-in/?next=%2Fadmin%2Fauth%2Fuser%2F">Sign in with 127.0.0.1:' in page

    def test_does_not_where_it_is_off(self):
        assert "/admin/sign-in/" not in Client().get("/admin/login/").content.decode()
        assert [Client().get(path).status_code for path in ["/admin/sign-in/", CALLBACK]] == [404, 404]

    def test_keeps_what_was_typed_for_who_signs_in_in_another_tab(self, provider: Provider):
        client = Client()
        client.get("/admin/login/")
        typed = {"content": '{"a": 1}', "csrfmiddlewaretoken": client.cookies["csrftoken"].value}

        page: Any = client.post("/admin/devices/deviceconfig/add/", typed)

        assert page.status_code == 403
        assert "Sign in in another tab" in page.content.decode()

    def test_signing_out_says_that_the_provider_does_not(self, provider: Provider):
        client = Client()
        sign_in(provider, client)

        page = client.post("/admin/logout/").content.decode()

        assert "You are signed out here, but not at 127.0.0.1:" in page
