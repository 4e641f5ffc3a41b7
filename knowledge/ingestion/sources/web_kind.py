"""What a web site as a source says of itself."""

import base64
from typing import Any

import httpx2
from django.utils.translation import gettext_lazy as _
from pydantic import SecretStr, model_validator

from knowledge.ingestion.sources.guard import origin_of
from knowledge.ingestion.sources.kinds import (
    Credentials,
    SourceKind,
    open_credentials,
    option,
    stored_options,
)
from knowledge.ingestion.sources.places import read_web_place
from knowledge.ingestion.sources.web import WebConnector
from knowledge.ingestion.sources.web_scope import WebOptions
from knowledge.models import Source


class WebCredentials(Credentials):
    username: SecretStr = option(_("User name"), default=SecretStr(""), widget="plain", max_length=200)
    password: SecretStr = option(_("Password"), default=SecretStr(""), max_length=4000)
    token: SecretStr = option(
        _("Access token"),
        _("In the place of a user name and password."),
        default=SecretStr(""),
        max_length=4000,
    )

    @model_validator(mode="after")
    def _go_together(self) -> "WebCredentials":
        given = self.values()
        if not all(value.isprintable() for value in given.values()):
            raise ValueError("Each must be one line: copy it again.")
        if "token" in given and len(given) > 1:
            raise ValueError("Give either a token, or a user name and a password.")
        if "password" in given and "username" not in given:
            raise ValueError("A password alone opens nothing: give the user name too.")
        return self

    @property
    def authorization(self) -> str:
        """The header's value; empty for none."""
        given = self.values()
        if "token" in given:
            return f"Bearer {given['token']}"
        if "username" not in given:
            return ""
        pair = f"{given['username']}:{given.get('password', '')}"
        return f"Basic {base64.b64encode(pair.encode()).decode()}"


def _connect(source: Source) -> WebConnector:
    credentials: WebCredentials = open_credentials(source, WebCredentials)
    return WebConnector(
        address=source.path,
        options=stored_options(source, WebOptions),
        state=source.state,
        authorization=credentials.authorization,
    )


def _secrets_for(path: str, options: Any) -> str:
    return str(origin_of(httpx2.URL(path)))


KIND = SourceKind(
    kind=Source.Kind.WEB,
    title=_("Web site"),
    place=_("Address"),
    hint=_("The page to begin at, or the sitemap. What robots.txt forbids is not read."),
    example="https://docs.example.com/guide/",
    read_place=lambda typed, options: str(read_web_place(typed.strip())),
    connect=_connect,
    options=WebOptions,
    credentials=WebCredentials,
    secrets_for=_secrets_for,
)
