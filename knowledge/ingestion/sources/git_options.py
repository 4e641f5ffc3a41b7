"""What an admin may say of a git repository beside its address, and the secrets that open it."""

import re
from typing import Any

from django.utils.translation import gettext_lazy as _
from pydantic import SecretStr, field_validator, model_validator

from knowledge.ingestion.sources.git_address import check_private_key, read_address
from knowledge.ingestion.sources.globs import read_patterns
from knowledge.ingestion.sources.kinds import Credentials, Options, option, patterns

KEPT_KNOWN_HOSTS = 8_000  # characters
_REF = re.compile(
    r"(?!.*(?:\.\.|//|@\{|\.lock$|\.$|/$))[^\x00-\x20\x7f~^:?*\[\\/.-][^\x00-\x20\x7f~^:?*\[\\]*"
)


class GitOptions(Options):
    branch: str = option(_("Branch or tag"), _("Empty: the repository's default branch."), max_length=250)
    folder: str = option(_("Sub-folder"), _("Empty: the whole repository."), max_length=500)
    include: tuple[str, ...] = patterns(
        _("Only these files"), _("Patterns such as *.md or docs/**; empty: all.")
    )
    exclude: tuple[str, ...] = patterns(_("Not these files"), _("Patterns such as **/drafts/** or *.log."))
    known_hosts: str = option(
        _("Host keys of the ssh server"),
        _(
            "Lines of a known_hosts file. Empty: the key that the server shows first is kept, and must stay the same."
        ),
        widget="text",
        max_length=KEPT_KNOWN_HOSTS,
    )

    @field_validator("include", "exclude")
    @classmethod
    def _are_patterns(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        return read_patterns(lines)

    @field_validator("branch")
    @classmethod
    def _is_ref(cls, value: str) -> str:
        value = value.removeprefix("refs/heads/").removeprefix("refs/tags/")
        if value and not _REF.fullmatch(value):
            raise ValueError("This cannot be the name of a branch or tag: give one such as main.")
        return value

    @field_validator("folder")
    @classmethod
    def _is_folder(cls, value: str) -> str:
        value = value.strip("/")
        if (
            "\0" in value
            or "\\" in value
            or any(part in ("", ".", "..") for part in value.split("/") if value)
        ):
            raise ValueError("Give a folder of the repository such as docs/handbook.")
        return value

    @field_validator("known_hosts")
    @classmethod
    def _is_known_hosts(cls, value: str) -> str:
        for line in value.splitlines():
            if line.strip() and not line.startswith("#") and len(line.split()) < 3:
                raise ValueError("Each line names a host, a kind of key and the key: host ssh-ed25519 AAAA…")
        return value


class GitCredentials(Credentials):
    username: SecretStr = option(
        _("User name"),
        _("Beside a token, where the server asks for one."),
        default=SecretStr(""),
        widget="plain",
        max_length=200,
    )
    token: SecretStr = option(
        _("Access token"),
        _("For https:// addresses; it only needs to read."),
        default=SecretStr(""),
        max_length=4000,
    )
    private_key: SecretStr = option(
        _("Deploy key"),
        _("For ssh addresses: a private key without a passphrase."),
        default=SecretStr(""),
        widget="text",
        max_length=20_000,
    )

    @field_validator("private_key")
    @classmethod
    def _is_key(cls, value: SecretStr) -> SecretStr:
        return SecretStr(check_private_key(value.get_secret_value())) if value.get_secret_value() else value

    @field_validator("username", "token")
    @classmethod
    def _is_one_line(cls, value: SecretStr) -> SecretStr:
        if not value.get_secret_value().isprintable():
            raise ValueError("This must be one line: copy it again.")
        return value

    @model_validator(mode="after")
    def _go_together(self) -> "GitCredentials":
        given = self.values()
        if "username" in given and "token" not in given:
            raise ValueError("A user name alone opens nothing: give the token too.")
        return self


def fit_together(path: str, credentials: Any) -> tuple[str, str]:
    """The field of the credentials that does not go with the address, and why; both empty when all do."""
    given = credentials.values()
    if read_address(path).is_ssh:
        if "private_key" not in given:
            return "private_key", "An ssh address needs a deploy key; for a token write the https:// address."
        if "token" in given:
            return "token", "An ssh address takes a deploy key, no token: leave it empty, or write https://."
    elif "private_key" in given:
        return "private_key", "A deploy key is for ssh addresses (git@host:team/repository.git)."
    return "", ""
