"""What is asked of the provider when somebody comes back from it, and what is believed."""

from __future__ import annotations

from typing import Any

import jwt
import requests
from django.conf import settings
from django.contrib.auth.models import User
from mozilla_django_oidc.auth import OIDCAuthenticationBackend

from iotsupport.accounts import identities
from iotsupport.accounts.oidc import provider

ALGORITHM = "RS256"
# Seconds by which the clocks of both servers may differ.
LEEWAY = 60


def library_settings(found: provider.Provider) -> dict[str, Any]:
    """What ``mozilla-django-oidc`` looks up, by its names."""
    return {
        "OIDC_OP_AUTHORIZATION_ENDPOINT": found.authorization_endpoint,
        "OIDC_OP_TOKEN_ENDPOINT": found.token_endpoint,
        "OIDC_OP_USER_ENDPOINT": found.userinfo_endpoint,
        "OIDC_OP_JWKS_ENDPOINT": found.jwks_uri,
        "OIDC_RP_CLIENT_ID": settings.OIDC_CLIENT_ID,
        "OIDC_RP_CLIENT_SECRET": settings.OIDC_CLIENT_SECRET,
        "OIDC_RP_SIGN_ALGO": ALGORITHM,
        "OIDC_RP_SCOPES": " ".join(found.scopes),
        "OIDC_TOKEN_USE_BASIC_AUTH": found.takes_basic,
        "OIDC_AUTHENTICATION_CALLBACK_URL": "admin:oidc_callback",
        "OIDC_USE_PKCE": True,
        "OIDC_TIMEOUT": provider.TIMEOUT,
    }


class Client(OIDCAuthenticationBackend):
    """The library's, which also looks at whose token it is, for whom and of when; it knows people by their subject."""

    def __init__(self) -> None:
        self.provider = provider.find()
        self._settings = library_settings(self.provider)
        super().__init__()

    def get_settings(self, attr: str, *default: Any) -> Any:
        return self._settings[attr] if attr in self._settings else super().get_settings(attr, *default)

    def retrieve_matching_jwk(self, token: str) -> jwt.PyJWK:
        """Return the provider's key that a token names, or its only one where it names none (Core, section 10.1)."""
        answer = requests.get(self.provider.jwks_uri, timeout=provider.TIMEOUT)
        answer.raise_for_status()
        kid = jwt.get_unverified_header(token).get("kid")
        keys = [key for key in answer.json()["keys"] if key.get("kty") == "RSA" and key.get("use") != "enc"]
        named = [key for key in keys if kid is None or key.get("kid") == kid]
        if len(named) != 1:
            raise jwt.InvalidKeyError(f"The provider has {len(keys)} keys, and the token says which by {kid!r}.")
        return jwt.PyJWK(named[0], ALGORITHM)

    def _verify_jws(self, payload: str, key: Any) -> dict[str, Any]:
        """Return what a token claims; raises ``jwt.PyJWTError`` if it is not for us (OpenID Connect Core, 3.1.3.7)."""
        claims = jwt.decode(
            payload,
            key,
            algorithms=[ALGORITHM],
            audience=settings.OIDC_CLIENT_ID,
            issuer=self.provider.issuer,
            leeway=LEEWAY,
            options={"require": ["iss", "sub", "aud", "exp", "iat"]},
        )
        if claims.get("azp", settings.OIDC_CLIENT_ID) != settings.OIDC_CLIENT_ID:
            raise jwt.InvalidAudienceError("The token was made for another client.")
        return claims

    def get_or_create_user(self, access_token: str, id_token: str, payload: dict[str, Any]) -> User:
        """Return who it is, as :func:`identities.sign_in` does."""
        claims = payload
        if self.provider.userinfo_endpoint:
            more = self.get_userinfo(access_token, id_token, payload)
            if more.get("sub") != payload["sub"]:  # OpenID Connect Core, 5.3.2
                raise jwt.InvalidTokenError("What the provider knows is about somebody else.")
            claims = {**more, **payload}
        return identities.sign_in(self.provider.issuer, claims)
