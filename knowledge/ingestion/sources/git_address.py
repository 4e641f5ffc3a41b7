"""Addresses of git repositories, and the secrets that go with them."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

from knowledge.ingestion.sources.base import SourceError
from knowledge.ingestion.sources.guard import WEB_PORTS, host_of, resolve_host
from knowledge.ingestion.sources.places import read_web_place

SSH_PORTS = frozenset({22, 443, 2222, 7999})
_SHORT = re.compile(
    r"(?P<user>[A-Za-z0-9_][A-Za-z0-9._-]*)@(?P<host>[A-Za-z0-9][A-Za-z0-9.-]*):(?P<path>[^-:/\s][^\s]*)"
)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]*")
_HOST = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*|[0-9a-fA-F:]+")
EXAMPLES = "https://host/team/handbook.git or git@host:team/handbook.git"


@dataclass(frozen=True)
class GitAddress:
    """Where a repository lies: ``url`` as git is given it."""

    url: str
    scheme: str
    host: str
    port: int

    @property
    def is_ssh(self) -> bool:
        return self.scheme == "ssh"

    @property
    def host_key_name(self) -> str:
        """What its line in a known_hosts file begins with."""
        return self.host if self.port == 22 else f"[{self.host}]:{self.port}"

    def resolve(self) -> tuple[str, ...]:
        """The addresses that may be connected to, each of them checked. Raises SourceError."""
        return resolve_host(self.host, self.port, ports=SSH_PORTS if self.is_ssh else WEB_PORTS)


def read_address(typed: str) -> GitAddress:
    """An address over https or ssh.

    Raises:
        SourceError: what is wrong with it, and what to write.
    """
    text = typed.strip()
    if not text or any(letter <= " " or letter == "\x7f" for letter in text):
        raise SourceError(f"Give the repository's address without spaces: {EXAMPLES}.", permanent=True)
    if short := _SHORT.fullmatch(text):
        return GitAddress(url=text, scheme="ssh", host=short["host"].lower(), port=22)
    if text.startswith("ssh://"):
        return _read_ssh(text)
    if text.startswith(("https://", "http://")):
        parsed = read_web_place(text)
        if not parsed.path.strip("/"):
            raise SourceError(f"The address names a server, but no repository: {EXAMPLES}.", permanent=True)
        host = host_of(parsed)
        # Git must ask for the very name that is looked up and pinned.
        spelt_so = (urlsplit(text).hostname or "") == host
        return GitAddress(
            url=text if spelt_so else str(parsed.copy_with(host=host)),
            scheme=parsed.scheme,
            host=host,
            port=parsed.port or (443 if parsed.scheme == "https" else 80),
        )
    raise SourceError(
        f"Repositories are read over https:// or ssh://, for instance {EXAMPLES}.", permanent=True
    )


def _read_ssh(text: str) -> GitAddress:
    try:
        parts = urlsplit(text)
        port = parts.port or 22
    except ValueError:
        raise SourceError(f"This is no address of a repository: {EXAMPLES}.", permanent=True) from None
    host = (parts.hostname or "").lower()
    if parts.password is not None:
        raise SourceError("The address must not hold a password: give a deploy key.", permanent=True)
    if not parts.username or not _USER.fullmatch(unquote(parts.username)):
        raise SourceError(
            "Name the user of the ssh server, for instance ssh://git@host/team/handbook.git.", permanent=True
        )
    if (
        not _HOST.fullmatch(host)
        or not parts.path.strip("/")
        or parts.path.startswith("/-")
        or parts.query
        or parts.fragment
    ):
        raise SourceError(f"This is no address of a repository: {EXAMPLES}.", permanent=True)
    return GitAddress(url=text, scheme="ssh", host=host, port=port)


def check_private_key(text: str) -> str:
    """A private key as ssh reads it.

    Raises:
        ValueError: says what is wrong with it, never what it holds.
    """
    key = "\n".join(line.strip() for line in text.strip().splitlines()) + "\n"
    load = load_ssh_private_key if "BEGIN OPENSSH" in key else load_pem_private_key
    try:
        load(key.encode(), None)
    except TypeError:
        raise ValueError(
            "The key is protected by a passphrase: make one without (ssh-keygen -t ed25519 -N '')."
        ) from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError(
            "This is no private key: give the whole file, from the line with BEGIN to the line with END "
            "(not the one that ends in .pub)."
        ) from None
    return key


def ssh_command(*, home: Path, address: GitAddress, pinned: str, given: str, private_key: str) -> str:
    """The ssh command line: one key, one server, nobody's configuration.

    Args:
        pinned: lines of known_hosts from the first time that the server was seen; empty: this is it.
        given: lines of known_hosts that an admin gave; they alone hold.
    """
    key, known = home / "key", home / "known_hosts"
    key.touch(mode=0o600)
    key.write_text(private_key)
    known.write_text((given or pinned).rstrip("\n") + "\n" if given or pinned else "")
    options = {
        "BatchMode": "yes",
        "CheckHostIP": "no",
        "ClearAllForwardings": "yes",
        "ConnectTimeout": "10",
        "ControlMaster": "no",
        "ControlPath": "none",
        "ForwardAgent": "no",
        "GlobalKnownHostsFile": "/dev/null",
        "HashKnownHosts": "no",
        # The very address that was checked; the key must still be that of the name.
        "HostKeyAlias": address.host_key_name,
        "HostName": address.resolve()[0],
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "IdentityFile": str(key),
        "LogLevel": "ERROR",
        "PermitLocalCommand": "no",
        "PreferredAuthentications": "publickey",
        "ServerAliveCountMax": "2",
        "ServerAliveInterval": "15",
        "StrictHostKeyChecking": "yes" if given or pinned else "accept-new",
        "UpdateHostKeys": "no",
        "UserKnownHostsFile": str(known),
    }
    return shlex.join(
        [
            "ssh",
            "-F",
            "none",
            *(part for name, value in options.items() for part in ("-o", f"{name}={value}")),
        ]
    )
