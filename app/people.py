"""People who sign in: bearer tokens of an identity provider (OpenID Connect), whose groups give them roles here.

The provider says who they are, and is believed in which workspace they belong to; which of its groups is which role is
a setting of ours. Its keys are read as those of apps' tokens are (app/jwks.py). Nothing is kept of a person but the
name that the provider gives them (`sub`), with what they did.
"""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import jwt

from app.auth import Caller, unauthenticated
from app.jwks import LONGEST_TOKEN, BadToken, Issuer
from app.problems import ApiError
from app.settings import Settings
from profiles import workspaces
from profiles.errors import ProfileError
from profiles.keys import ROLES, Role
from profiles.models import KeyKind
from profiles.text import clean_text

LONGEST_SUBJECT = 255
"""Characters (OpenID Connect Core 1.0, 2: `sub`)."""


class SignIn:
    """Who signed in, by one identity provider's tokens."""

    def __init__(
        self,
        issuer: Issuer,
        *,
        roles: Mapping[str, Role],
        roles_claim: str,
        workspace: UUID | None,
        workspace_claim: str | None,
    ) -> None:
        self.issuer = issuer
        self.roles = roles
        self.roles_claim = roles_claim
        self.workspace = workspace
        self.workspace_claim = workspace_claim
        self.workspaces: dict[str, UUID] = {}
        """By name or id, those that are there: no more than there are."""

    @classmethod
    def of(cls, settings: Settings) -> "SignIn | None":
        """The provider in the settings; None when there is none."""
        url, name, audience = settings.oidc_jwks_url, settings.oidc_issuer, settings.oidc_audience
        if url is None or name is None or audience is None:
            return None
        return cls(
            Issuer(jwks_url=url, issuer=name, audience=audience),
            roles={group: Role(role) for group, role in settings.oidc_roles.items()},
            roles_claim=settings.oidc_roles_claim,
            workspace=settings.oidc_workspace,
            workspace_claim=settings.oidc_workspace_claim,
        )

    def is_for(self, token: str) -> bool:
        """Whether a token says that it is this provider's and for people; not whether that is true."""
        if token.count(".") != 2 or len(token) > LONGEST_TOKEN:
            return False
        try:
            said = jwt.decode(token, options={"verify_signature": False})
        except jwt.PyJWTError:
            return False
        audience = said.get("aud")
        return said.get("iss") == self.issuer.issuer and (
            self.issuer.audience in audience if isinstance(audience, list) else audience == self.issuer.audience
        )

    async def person(self, token: str) -> Caller:
        """Whom a token names, with the scopes of the highest of their roles, or none; raises ApiError
        UNAUTHENTICATED."""
        try:
            claims = await self.issuer.verified(token)
            subject = clean_text(str(claims["sub"]), what="Subject", most=LONGEST_SUBJECT, field=("sub",))
            expires_at = datetime.fromtimestamp(claims["exp"], UTC)
        except (BadToken, ProfileError, TypeError, ValueError, OverflowError) as fault:  # the last three: no such time
            raise unauthenticated("This token is not one of the identity provider's for us, or has expired.") from fault
        roles = [self.roles[group] for group in groups_of(claims.get(self.roles_claim)) if group in self.roles]
        return Caller(
            workspace_id=await self.workspace_of(claims),
            kind=KeyKind.SECRET,
            scopes=frozenset(scope for role in roles for scope in ROLES[role]),
            subject=subject,
            expires_at=expires_at,
        )

    async def workspace_of(self, claims: Mapping[str, Any]) -> UUID:
        """The workspace that a person belongs to; raises ApiError UNAUTHENTICATED when there is none such."""
        named = str(self.workspace) if self.workspace_claim is None else claims.get(self.workspace_claim)
        if not isinstance(named, str) or not named:
            raise no_workspace(f"Your token has no claim {self.workspace_claim} that names one.")
        if named not in self.workspaces:
            found = await workspaces.find_by_id_or_name(named)
            if found is None:
                raise no_workspace("The one that your token or the settings name does not exist.")
            self.workspaces[named] = found
        return self.workspaces[named]


def groups_of(claim: object) -> list[str]:
    """The groups in a claim: a list of texts, or one text of them with spaces between."""
    if isinstance(claim, str):
        return claim.split()
    return [one for one in claim if isinstance(one, str)] if isinstance(claim, list) else []


def no_workspace(why: str) -> ApiError:
    return unauthenticated(f"You are signed in, but belong to no workspace. {why}")
