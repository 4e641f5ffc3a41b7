"""What is typed for a git repository: its address, its credentials, its options; no server is asked."""

from pathlib import Path
from typing import Any

import pytest

from knowledge.ingestion.sources.git_address import check_private_key, read_address
from knowledge.ingestion.sources.git_options import GitCredentials, GitOptions, fit_together
from tests.knowledge.ingestion.sources.failures import fails
from tests.knowledge.ingestion.sources.git_servers import make_key


@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("", "Give the repository's address"),
        ("git@host", "https:// or ssh://"),
        ("/srv/git/x.git", "https:// or ssh://"),
        ("file:///etc", "https:// or ssh://"),
        ("ext::sh -c touch% x", "without spaces"),
        ("ext::sh", "https:// or ssh://"),
        ("git://example.com/x.git", "https:// or ssh://"),
        ("--upload-pack=touch", "https:// or ssh://"),
        ("ssh://-oProxyCommand=touch/x", "Name the user"),
        ("ssh://git@-oProxyCommand=touch/x", "no address"),
        ("ssh://-l@host/x", "Name the user"),
        ("ssh://git:secret@host/x.git", "must not hold a password"),
        ("ssh://host/x.git", "Name the user"),
        ("ssh://git@host:bad/x.git", "no address"),
        ("https://user:secret@example.com/x.git", "must not hold a name or password"),
        ("https://example.com", "no repository"),
        ("https://example.com/x.git?a=b", "“?”"),
        ("http://example.com/x.git", "Use https://"),
        ("https://10.0.0.5/x.git", "public internet"),
        ("https://169.254.169.254/x.git", "public internet"),
        ("https://[::1]/x.git", "public internet"),
        ("https://2130706433/x.git", "number in disguise"),
    ],
)
def test_addresses_that_are_none(typed: str, words: str) -> None:
    error = fails(lambda: read_address(typed))
    assert words in str(error) and "secret" not in str(error) and error.permanent


def test_addresses_that_are_some(configure: Any) -> None:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="*.example.internal, 127.0.0.1")
    short = read_address(" git@git.example.internal:team/handbook.git ")
    assert (short.url, short.host, short.port) == (
        "git@git.example.internal:team/handbook.git",
        "git.example.internal",
        22,
    )
    long = read_address("ssh://git@git.example.internal:7999/team/handbook.git")
    assert (long.port, long.host_key_name) == (7999, "[git.example.internal]:7999")
    assert read_address("http://git.example.internal/x.git").port == 80
    # An ssh host inside the network is refused when it is gone to.
    assert "public internet" in str(fails(read_address("git@10.0.0.5:x.git").resolve))


def test_credentials_go_with_their_address(tmp_path: Path) -> None:
    key = make_key(tmp_path / "key")
    both = GitCredentials(token="t", private_key=key)
    assert fit_together("git@host:x.git", GitCredentials())[0] == "private_key"
    assert fit_together("git@host:x.git", both)[0] == "token"
    assert fit_together("https://example.com/x.git", both)[0] == "private_key"
    assert fit_together("https://example.com/x.git", GitCredentials()) == ("", "")
    assert check_private_key(key.replace("\n", "\r\n  ")) == key
    protected = make_key(tmp_path / "protected", "-N", "a passphrase")
    for text, words in [
        ((tmp_path / "key.pub").read_text(), "not the one that ends in .pub"),
        (protected, "passphrase"),
        ("BEGIN", "no private key"),
    ]:
        with pytest.raises(ValueError, match=words) as caught:
            GitCredentials(private_key=text)
        assert text == "BEGIN" or text[:40] not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"branch": "../main"}, {"branch": "-x"}, {"branch": "a b"}, {"branch": "x^{}"}, {"folder": "../etc"},
        {"folder": "a\0b"}, {"include": ["!x"]}, {"known_hosts": "host"}, {"branches": "main"},
    ],
)  # fmt: skip
def test_options_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        GitOptions(**options)
