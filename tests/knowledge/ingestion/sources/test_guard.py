"""The guard: what is not public is refused in every spelling, and the connection goes to the address that was checked."""

import datetime
import ssl
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from knowledge.ingestion.sources import guard
from knowledge.ingestion.sources.base import SourceError
from knowledge.ingestion.sources.client import GuardedClient, TooLarge
from knowledge.ingestion.sources.guard import Refused, check_url, read_url, resolve_host
from ragsite.core.config import ConfigError, config
from tests.knowledge.ingestion.sources.sites import Page, Resolver, Site, bomb, redirect, resolver, serve_site

__all__ = ["resolver"]

# fmt: off
INSIDE = [
    "127.0.0.1", "127.8.9.10", "0.0.0.0", "0.1.2.3", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1",
    "100.64.0.1", "100.127.255.254", "100.100.100.200", "169.254.169.254", "169.254.1.1", "168.63.129.16", "192.0.0.192",
    "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "192.88.99.1", "224.0.0.1", "239.255.255.250",
    "240.0.0.1", "255.255.255.255",
    "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "fd12:3456::1", "ff02::1", "fec0::1", "100::1", "2001:db8::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:a9fe:a9fe", "0:0:0:0:0:ffff:7f00:1", "::127.0.0.1", "::a9fe:a9fe",
    "2002:7f00:1::", "2002:a9fe:a9fe::1", "64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::10.0.0.1",
    "64:ff9b:1::1", "2001:0:7f00:1::", "2001:10::1", "3fff::1", "5f00::1",
]
PUBLIC = ["1.1.1.1", "8.8.8.8", "172.15.0.1", "172.32.0.1", "100.63.0.1", "100.128.0.1", "192.0.1.1", "223.255.255.1",
          "2606:4700::1111", "2a00:1450:4001::1", "64:ff9b::8.8.8.8", "::ffff:8.8.8.8"]
SPELLINGS = ["2130706433", "0x7f000001", "0x7f.1", "127.1", "0177.0.0.1", "017700000001", "127.0.0.1.5", "0x7F.0x0.0x0.0x1"]
# fmt: on


@pytest.fixture
def site() -> Iterator[Site]:
    with serve_site() as found:
        yield found


@pytest.fixture
def client() -> Iterator[GuardedClient]:
    found = GuardedClient()
    yield found
    found.close()


def get(client: GuardedClient, url: str, **options: Any) -> Any:
    return client.request("GET", url, **{"max_bytes": 100_000, "seconds": 5, **options})


@pytest.mark.parametrize("address", INSIDE)
def test_addresses_that_are_not_public_are_refused(address: str, resolver: Resolver) -> None:
    literal = f"[{address}]" if ":" in address else address
    resolver.teach("name.example", address)
    for host in (literal, "name.example"):
        with pytest.raises(Refused, match="RAGSITE_SOURCE_ALLOWED_HOSTS"):
            check_url(f"http://{host}/")


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass(address: str, resolver: Resolver) -> None:
    resolver.teach("name.example", address)
    assert (
        resolve_host(address, 443)
        and resolve_host("name.example", 443)
        and resolve_host("NAME.example.", 443)
    )


@pytest.mark.parametrize("host", SPELLINGS)
def test_numbers_in_disguise_are_refused(host: str, configure: Any) -> None:
    configure(
        RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.0/8"
    )  # not even then: nobody spells an address so in good faith
    with pytest.raises(Refused):
        check_url(f"http://{host}/")


def test_a_name_of_other_letters_is_looked_up_as_it_is_asked_for(resolver: Resolver, configure: Any) -> None:
    resolver.teach("fass.example", "8.8.8.8")
    resolver.teach("xn--fa-hia.example", "10.0.0.1")
    for host in ("faß.example", "xn--fa-hia.example"):
        with pytest.raises(Refused, match="RAGSITE_SOURCE_ALLOWED_HOSTS"):
            check_url(f"https://{host}/")
    with pytest.raises(Refused, match="xn--"):
        resolve_host("faß.example", 443)
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="xn--fa-hia.example")
    assert check_url("https://faß.example/")


def test_one_address_inside_among_public_ones_refuses_the_host(resolver: Resolver) -> None:
    resolver.teach("mixed.example", ["8.8.8.8", "10.0.0.1"])
    with pytest.raises(Refused):
        resolve_host("mixed.example", 443)


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://8.8.8.8/", "gopher://8.8.8.8/", "javascript:alert(1)", "//8.8.8.8/", "8.8.8.8", "",
        "http:///path", "http://", "http://user@8.8.8.8/", "http://user:secret@8.8.8.8/", "http://a@8.8.8.8@127.0.0.1/",
        "http://[::1", "http://[fe80::1%25eth0]/", "http://8.8.8.8:22/", "http://8.8.8.8:25/", "http://8.8.8.8:6379/",
        "http://8.8.8.8:99999/", "http://exa mple.com/", "http://127.0.0.1\\@8.8.8.8/",
    ],
)  # fmt: skip
def test_other_schemes_names_ports_and_broken_addresses_are_refused(url: str) -> None:
    with pytest.raises(Refused) as caught:
        check_url(url)
    assert "secret" not in str(caught.value) and caught.value.permanent


def test_the_operator_allows_names_and_networks(configure: Any, resolver: Resolver) -> None:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="wiki.corp.internal, *.docs.internal, 10.20.0.0/16, fd12::/16")
    for name in ("wiki.corp.internal", "a.docs.internal", "a.b.docs.internal", "outside.example"):
        resolver.teach(name, "10.9.9.9")
    assert resolve_host("wiki.corp.internal", 8090) == ("10.9.9.9",)  # at any port
    assert resolve_host("A.docs.internal", 80) and resolve_host("a.b.docs.internal", 80)
    assert (
        resolve_host("10.20.3.4", 9000)
        and resolve_host("::ffff:10.20.3.4", 80)
        and resolve_host("fd12::5", 80)
    )
    for host in ("outside.example", "10.21.0.1", "xwiki.corp.internal.", "127.0.0.1"):
        resolver.teach("xwiki.corp.internal", "10.9.9.9")
        with pytest.raises(Refused):
            resolve_host(host, 80)
    # Where credentials are handed out is not opened by a name or a wide network.
    for address in ("169.254.169.254", "fe80::1", "224.0.0.1", "0.0.0.0"):
        resolver.teach("wiki.corp.internal", address)
        with pytest.raises(Refused):
            resolve_host("wiki.corp.internal", 80)
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="0.0.0.0/0, ::/0")
    with pytest.raises(Refused):
        resolve_host("169.254.169.254", 80)
    assert resolve_host("127.0.0.1", 80)
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="169.254.169.254")
    assert resolve_host("169.254.169.254", 80)


@pytest.mark.parametrize("entry", ["http://wiki", "10.0.0.1/8", "300.1.1.1", "a b", "wiki:80", "-x.example"])
def test_a_wrong_list_of_allowed_hosts_stops_the_boot(entry: str, configure: Any) -> None:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS=f"fine.example, {entry}")
    with pytest.raises(ConfigError, match="RAGSITE_SOURCE_ALLOWED_HOSTS: “"):
        config()


def test_an_unknown_host_may_be_there_later(resolver: Resolver) -> None:
    with pytest.raises(SourceError, match="not known") as caught:
        resolve_host("nothing.invalid", 80)
    assert not caught.value.permanent


def test_the_connection_goes_to_the_address_that_was_checked(
    resolver: Resolver, configure: Any, site: Site, client: GuardedClient
) -> None:
    """The name says something else at every look; nothing but a checked answer is ever gone to."""
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.2")
    with serve_site(host="127.0.0.2", port=site.port) as wanted:
        wanted.pages["/"] = Page("wanted", headers=(("Connection", "close"),))
        site.pages["/"] = Page("secret")
        resolver.teach("rebind.example", "127.0.0.2", "127.0.0.1", "127.0.0.2", ["127.0.0.2", "127.0.0.1"])
        url = f"http://rebind.example:{site.port}/"
        assert get(client, url).body == b"wanted"
        assert resolver.asked == ["rebind.example"]  # one look, one connection
        with pytest.raises(Refused):
            get(client, url)
        check_url(url)  # a look that is fine …
        with pytest.raises(Refused):
            get(client, url)  # … does not help the next one
    assert wanted.asked[0].headers["host"] == f"rebind.example:{site.port}"
    assert len(wanted.asked) == 1 and not site.asked


def test_every_redirect_is_checked(configure: Any, site: Site, client: GuardedClient) -> None:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1")
    with serve_site(host="127.0.0.2") as inside:
        inside.fallback = Page("secret")
        for number, target in enumerate(
            [inside.url, "http://169.254.169.254/latest/meta-data/", "file:///etc/passwd", "http://0x7f.2/",
             f"http://[::ffff:127.0.0.2]:{inside.port}/", "http://user:x@127.0.0.1/", f"//127.0.0.2:{inside.port}/"]
        ):  # fmt: skip
            site.pages[f"/{number}"] = redirect(target, (301, 302, 303, 307, 308)[number % 5])
            site.pages[f"/via/{number}"] = redirect(f"/{number}")
            for path in (f"/{number}", f"/via/{number}"):
                with pytest.raises(Refused):
                    get(client, site.url + path)
    assert not inside.asked


def test_redirects_are_bounded_and_may_be_left_alone(
    configure: Any, site: Site, client: GuardedClient
) -> None:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1")
    site.pages["/end"] = Page("end")
    for number in range(6):
        site.pages[f"/{number}"] = redirect(f"/{number + 1}" if number < 5 else "/end")
    site.pages["/loop"] = redirect("/loop")
    answer = get(client, site.url + "/1")
    assert answer.body == b"end" and str(answer.url) == site.url + "/end"
    for path in ("/0", "/loop"):
        with pytest.raises(SourceError, match="more than 5 times"):
            get(client, site.url + path)
    left = get(client, site.url + "/4", follow=lambda url: url.path != "/end")
    assert (left.status, left.location) == (301, site.url + "/end")


def test_answers_are_bounded_in_bytes(configure: Any, site: Site, client: GuardedClient) -> None:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1")
    site.pages["/long"] = Page("x" * 100_001)
    site.pages["/fits"] = Page("x" * 100_000)
    site.pages["/liar"] = Page("x" * 300_000, headers=(("Content-Length", "10"),))
    site.pages["/bomb"] = bomb(30 * 2**20)
    site.pages["/packed"] = bomb(100_000)
    site.pages["/twice"] = Page(b"x", headers=(("Content-Encoding", "gzip, gzip"),))
    site.pages["/broken"] = Page(b"no gzip", headers=(("Content-Encoding", "gzip"),))
    assert len(get(client, site.url + "/fits").body) == len(get(client, site.url + "/packed").body) == 100_000
    assert len(get(client, site.url + "/liar").body) == 10
    started = time.monotonic()
    for path in ("/long", "/bomb"):
        with pytest.raises(TooLarge):
            get(client, site.url + path)
    assert time.monotonic() - started < 2
    for path in ("/twice", "/broken"):
        with pytest.raises(SourceError):
            get(client, site.url + path)


def test_answers_are_bounded_in_time(configure: Any, site: Site, client: GuardedClient) -> None:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1")
    site.pages["/drip"] = Page("x" * 100, drip=0.1)  # each byte comes well within any time-out between bytes
    site.pages["/later"] = lambda asked: (time.sleep(1.5), Page("late"))[1]
    site.pages["/hop"] = redirect("/drip")
    for path in ("/drip", "/later", "/hop"):
        started = time.monotonic()
        with pytest.raises(SourceError, match="did not answer within"):
            get(client, site.url + path, seconds=0.5)
        assert time.monotonic() - started < 1.2
    site.pages["/after"] = Page("fine")
    assert get(client, site.url + "/after").body == b"fine"


def test_credentials_go_to_their_owner_alone(configure: Any, site: Site) -> None:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.0/8")
    with serve_site(host="127.0.0.2") as other, serve_site() as neighbour:
        other.pages["/"] = neighbour.pages["/"] = site.pages["/"] = Page("ok")
        site.pages["/out"], site.pages["/port"] = redirect(other.url + "/"), redirect(neighbour.url + "/")
        client = GuardedClient(authorization="Bearer t0ken", owner=read_url(site.url))
        for path in ("/", "/out", "/port"):
            assert get(client, site.url + path).body == b"ok"
        client.close()
    assert all(one.headers["authorization"] == "Bearer t0ken" for one in site.asked)
    assert not any("authorization" in one.headers for one in other.asked + neighbour.asked)
    assert len(other.asked) == len(neighbour.asked) == 1


def _certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's context with a certificate of its own making for ``name``, and the file that vouches for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    public, private = folder / f"{name}.pem", folder / f"{name}.key"
    public.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(public, private)
    return context, public


def test_tls_asks_for_the_certificate_of_the_name_not_of_the_address(
    configure: Any, resolver: Resolver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="wiki.internal, other.internal")
    served, trusted = _certificate(tmp_path, "wiki.internal")
    context = ssl.create_default_context(cafile=str(trusted))
    monkeypatch.setattr(guard, "_certificates", lambda: context)
    names: list[str | None] = []
    served.sni_callback = lambda sock, name, context: names.append(name)
    resolver.teach("wiki.internal", "127.0.0.1")
    resolver.teach("other.internal", "127.0.0.1")
    with serve_site(certificate=served) as site:
        site.pages["/"] = Page("over TLS")
        client = GuardedClient()
        assert get(client, f"https://wiki.internal:{site.port}/").body == b"over TLS"
        with pytest.raises(SourceError, match=r"(?i)certificate"):
            get(client, f"https://other.internal:{site.port}/")
        client.close()
    assert names == ["wiki.internal", "other.internal"]
    assert site.asked[0].headers["host"] == f"wiki.internal:{site.port}"
