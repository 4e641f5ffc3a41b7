"""Buckets of a real S3 server: what is taken, how it is signed, and what is said when it fails."""

import base64
import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from knowledge.ingestion.parse import ParseError
from knowledge.ingestion.sources.base import SourceError, SourceItem
from knowledge.ingestion.sources.s3 import KIND, S3Connector, S3Credentials, S3Options, read_place
from tests.knowledge.ingestion.sources.s3_servers import BUCKET, S3Site, Scripted, s3_site, scripted_site

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
KEYS = {"access_key": "AKIAIOSFODNN7EXAMPLE", "secret_key": SECRET}


@pytest.fixture(scope="module")
def server() -> Iterator[S3Site]:
    with s3_site() as site:
        yield site


@pytest.fixture
def bucket(server: S3Site) -> S3Site:
    server.empty()
    return server


@pytest.fixture
def faulty() -> Iterator[Scripted]:
    with scripted_site() as site:
        yield site


Connect = Callable[..., S3Connector]


@pytest.fixture
def connect(configure: Any) -> Iterator[Connect]:
    configure(RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1, localhost, .localhost")
    made: list[S3Connector] = []

    def make(
        url: str, place: str = f"s3://{BUCKET}/", keys: dict[str, str] | None = None, **options: Any
    ) -> Any:
        connector = S3Connector(
            path=read_place(place, None),
            options=S3Options(endpoint=url, **options),
            credentials=S3Credentials(**(keys or {})),
        )
        made.append(connector)
        return connector

    yield make
    for connector in made:
        connector.close()


def fails(work: Callable[[], Any]) -> SourceError:
    with pytest.raises(SourceError) as caught:
        work()
    assert SECRET not in str(caught.value)
    return caught.value


def error_of(code: str, **more: str) -> bytes:
    fields = "".join(f"<{name}>{value}</{name}>" for name, value in {"Code": code, **more}.items())
    return f"<?xml version='1.0'?><Error>{fields}</Error>".encode()


def listing(*rows: tuple[str, int], token: str = "", truncated: bool = False) -> bytes:
    items = "".join(
        f'<Contents><Key>{key}</Key><Size>{size}</Size><ETag>"e{size}"</ETag></Contents>'
        for key, size in rows
    )
    more = f"<IsTruncated>{str(truncated).lower()}</IsTruncated>"
    more += f"<NextContinuationToken>{token}</NextContinuationToken>" if token else ""
    return f'<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">{more}{items}</ListBucketResult>'.encode()


# What is taken


def test_a_bucket_is_read(bucket: S3Site, connect: Connect) -> None:
    odd = "docs/a b+c&d=e%20f (1) ünï~'*!.md"
    for key, body in {odd: b"# Odd\n", "docs/b.md": b"# B\n", "top.txt": b"top\n"}.items():
        bucket.put(key, body, ChecksumAlgorithm="SHA256")
    bucket.put("docs/", b"")
    bucket.put("docs/.hidden/x.md", b"hidden")
    connector = connect(bucket.url, keys=bucket.keys)
    assert connector.check() == f"The bucket {BUCKET} answers."
    items = {item.uri: item for item in connector.list_items()}
    assert set(items) == {odd, "docs/b.md", "top.txt"}
    assert connector.fetch(items[odd]) == b"# Odd\n" and connector.fetch(items["top.txt"]) == b"top\n"
    assert items["top.txt"].size == 4 and all(item.fingerprint for item in items.values())
    # Only what lies below the prefix, and what the patterns take.
    below = connect(bucket.url, f"{BUCKET}/docs/", bucket.keys, exclude=["*+c*"])
    assert [item.uri for item in below.list_items()] == ["docs/b.md"]
    assert (
        connect(bucket.url, f"{BUCKET}/nothing/", bucket.keys)
        .check()
        .endswith("holds nothing below nothing/.")
    )


def test_a_fingerprint_changes_with_the_content_alone(bucket: S3Site, connect: Connect) -> None:
    bucket.put("a.md", b"one")
    bucket.put("b.md", b"two")

    def seen() -> dict[str, str]:
        return {item.uri: item.fingerprint for item in connect(bucket.url, keys=bucket.keys).list_items()}

    first = seen()
    assert seen() == first
    bucket.put("a.md", b"ONE")
    second = seen()
    assert second["a.md"] != first["a.md"] and second["b.md"] == first["b.md"]


def test_many_pages_are_listed_to_the_end(bucket: S3Site, connect: Connect, monkeypatch: Any) -> None:
    for number in range(25):
        bucket.put(f"n/{number:02} x.md", b"x")
    connector = connect(bucket.url, keys=bucket.keys)
    query = connector._query
    monkeypatch.setattr(connector, "_query", lambda *, size, token="": query(size=min(size, 10), token=token))
    assert [item.uri for item in connector.list_items()] == [f"n/{number:02} x.md" for number in range(25)]


def test_wrong_keys_are_told_apart(bucket: S3Site, connect: Connect) -> None:
    wrong = bucket.keys | {"secret_key": SECRET}
    for keys, words in [
        (wrong, "does not accept the keys (SignatureDoesNotMatch)"),
        (KEYS, "does not accept the keys (InvalidAccessKeyId)"),
    ]:
        error = fails(connect(bucket.url, keys=keys).check)
        assert words in str(error) and error.permanent
    assert "no bucket nowhere" in str(fails(connect(bucket.url, "s3://nowhere", bucket.keys).check))


def test_an_object_that_has_just_gone(bucket: S3Site, connect: Connect) -> None:
    with pytest.raises(FileNotFoundError):
        connect(bucket.url, keys=bucket.keys).fetch(SourceItem(uri="gone.md", size=1))


def test_keys_of_the_machine_are_never_used(faulty: Scripted, connect: Connect, monkeypatch: Any) -> None:
    """Without keys of its own a source asks as anybody does, whatever this machine could prove."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEYS["access_key"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    faulty.answer = lambda path: (403, {}, error_of("AccessDenied"))
    assert "anonymous readers (no keys are stored)" in str(fails(connect(faulty.url).check))
    assert "Authorization" not in faulty.headers[0]
    fails(connect(faulty.url, keys=KEYS).check)
    assert KEYS["access_key"] in faulty.headers[1]["Authorization"] and SECRET not in str(faulty.headers)


def test_the_signature_is_amazons(connect: Connect, monkeypatch: Any) -> None:
    """The published example of a signed GET Object (Amazon S3 API reference, “Signature Calculations … Single Chunk”)."""
    from datetime import UTC, datetime

    import botocore.auth as auth

    monkeypatch.setattr(
        auth, "get_current_datetime", lambda: datetime(2013, 5, 24, tzinfo=UTC).replace(tzinfo=None)
    )
    connector = S3Connector(
        path="s3://examplebucket/", options=S3Options(path_style=False), credentials=S3Credentials(**KEYS)
    )
    url = "https://examplebucket.s3.amazonaws.com/test.txt"
    signed = connector._signed(url, {"Range": "bytes=0-9"})
    connector.close()
    assert connector._base == "https://examplebucket.s3.us-east-1.amazonaws.com"
    assert "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41" in signed["Authorization"]


# Servers that misbehave


@pytest.mark.parametrize(
    ("status", "headers", "body", "words", "permanent"),
    [
        (301, {"x-amz-bucket-region": "eu-west-1"}, error_of("PermanentRedirect"), "set the region to eu-west-1", True),
        (307, {"Location": "http://127.0.0.1:1/x"}, b"", "set the region, or the endpoint", True),
        (400, {}, error_of("AuthorizationHeaderMalformed", Region="eu-west-2"), "set the region to eu-west-2", True),
        (400, {}, error_of("ExpiredToken"), "does not accept the keys (ExpiredToken)", True),
        (403, {}, error_of("AccessDenied", Message=SECRET), "refuses these keys (AccessDenied)", True),
        (403, {}, error_of("RequestTimeTooSkewed"), "clock of this server", True),
        (403, {}, b"<html>", "refuses these keys:", True),
        (404, {}, error_of("NoSuchBucket"), "There is no bucket", True),
        (418, {}, error_of(f"<b>{SECRET}</b>"), "which is not how S3 answers", True),
        (200, {}, b"<html><body>Hello", "is not that of S3", True),
        (200, {}, b'<!DOCTYPE x [<!ENTITY a "b">]><x>&a;</x>', "", True),
        (503, {}, error_of("SlowDown"), "busy or in trouble (SlowDown)", False),
        (500, {}, b"", "busy or in trouble (500)", False),
    ],
)  # fmt: skip
def test_what_servers_answer_is_explained(
    faulty: Scripted,
    connect: Connect,
    status: int,
    headers: dict[str, str],
    body: bytes,
    words: str,
    permanent: bool,
) -> None:
    faulty.answer = lambda path: (status, headers, body)
    connector = connect(faulty.url, keys=KEYS)
    if words:
        error = fails(connector.check)
        assert words in str(error) and error.permanent is permanent
    else:
        assert connector.check()  # an entity is not unfolded, and nothing comes of it
    assert len(faulty.paths) == 1


def test_a_busy_server_is_asked_again(faulty: Scripted, connect: Connect) -> None:
    answers = [(503, {}, b""), (200, {}, listing(("a.md", 1)))]
    faulty.answer = lambda path: answers.pop(0)  # type: ignore[return-value]
    assert [item.uri for item in connect(faulty.url).list_items()] == ["a.md"]


def test_a_redirect_gets_nothing(faulty: Scripted, connect: Connect) -> None:
    with scripted_site() as thief:
        faulty.answer = lambda path: (301, {"Location": thief.url + path}, b"")
        fails(connect(faulty.url, keys=KEYS).check)
        assert not thief.paths


@pytest.mark.parametrize("token", ["", "again"])
def test_a_list_without_an_end_is_left(faulty: Scripted, connect: Connect, token: str) -> None:
    faulty.answer = lambda path: (200, {}, listing(("a.md", 1), token=token, truncated=True))
    assert "does not come to an end" in str(fails(lambda: list(connect(faulty.url).list_items())))
    assert len(faulty.paths) <= 2


def test_a_list_of_nothing_has_an_end(faulty: Scripted, connect: Connect, monkeypatch: Any) -> None:
    """Each page says that there is more, and where."""

    def list_all(*rows: tuple[str, int], size: int = 10) -> SourceError:
        faulty.paths.clear()
        numbers = itertools.count()
        faulty.answer = lambda path: (
            200, {}, listing(*rows, token=f"{next(numbers):0{size}}", truncated=True)
        )  # fmt: skip
        return fails(lambda: list(connect(faulty.url, include=("*.md",)).list_items()))

    monkeypatch.setattr("knowledge.ingestion.sources.s3.MAX_IDLE_PAGES", 20)
    error = list_all()
    assert "too few wanted" in str(error) and error.permanent and len(faulty.paths) == 20
    monkeypatch.setattr("knowledge.ingestion.sources.s3.MAX_KEYS", 25)
    error = list_all(("a.md", 1), ("b.png", 1), ("c.png", 1))
    assert "too few wanted" in str(error) and error.permanent and len(faulty.paths) == 9
    error = list_all(size=5000)
    assert "check the endpoint" in str(error) and error.permanent and len(faulty.paths) == 1
    monkeypatch.setattr("knowledge.ingestion.sources.s3.LIST_SECONDS", 0.0)
    error = list_all(("a.md", 1))
    assert "nothing was deleted" in str(error) and not error.permanent and len(faulty.paths) <= 1


def test_a_server_that_hangs_and_one_that_breaks_off(
    faulty: Scripted, connect: Connect, monkeypatch: Any
) -> None:
    monkeypatch.setattr("knowledge.ingestion.sources.s3.CHECK_SECONDS", 0.5)

    def hang(path: str) -> Any:
        time.sleep(1.5)
        return 200, {}, b""

    faulty.answer = hang
    begun = time.monotonic()
    error = fails(connect(faulty.url).check)
    assert "did not answer within" in str(error) and not error.permanent and time.monotonic() - begun < 1.4
    monkeypatch.setattr("knowledge.ingestion.sources.s3.TRIES", 1)
    faulty.answer = lambda path: (200, {"Content-Length": "100"}, b"half")
    connector = connect(faulty.url)
    # HTTP/1.0 ends with the connection: what was promised did not come.
    error = fails(lambda: connector._ask("/a.md", 1000, 1.0, tries=1))
    assert not error.permanent


def test_objects_fail_alone(faulty: Scripted, connect: Connect, configure: Any) -> None:
    configure(RAGSITE_MAX_UPLOAD_BYTES=2000, RAGSITE_SOURCE_ALLOWED_HOSTS="127.0.0.1")
    right = base64.b64encode(hashlib.sha256(b"right").digest()).decode()
    answers = {
        "/big.md": (200, {}, b"x" * 3000),
        "/glacier.md": (403, {}, error_of("InvalidObjectState")),
        "/denied.md": (403, {}, error_of("AccessDenied")),
        "/damaged.md": (200, {"x-amz-checksum-sha256": right}, b"wrong"),
        "/right.md": (200, {"x-amz-checksum-sha256": right}, b"right"),
        "/parts.md": (200, {"x-amz-checksum-sha256": "abcd-3"}, b"of three parts"),
    }
    faulty.answer = lambda path: answers[path.removeprefix(f"/{BUCKET}")]
    connector = connect(faulty.url, keys=KEYS)

    def reason(key: str) -> str:
        with pytest.raises(ParseError) as caught:
            connector.fetch(SourceItem(uri=key, size=0))
        return str(caught.value)

    assert "larger than" in reason("big.md")
    assert "archive class" in reason("glacier.md")
    assert "allow s3:GetObject" in reason("denied.md")
    assert "damaged" in reason("damaged.md")
    assert connector.fetch(SourceItem(uri="right.md", size=0)) == b"right"
    assert connector.fetch(SourceItem(uri="parts.md", size=0)) == b"of three parts"


def test_the_bucket_in_front_of_the_host(connect: Connect) -> None:
    connector = connect("https://s3.example.com", path_style=False)
    assert connector._base == f"https://{BUCKET}.s3.example.com"
    china = S3Options(region="cn-north-1")
    assert china.server == "https://s3.cn-north-1.amazonaws.com.cn"


# Places, options, keys


@pytest.mark.parametrize(
    ("typed", "place"),
    [
        ("handbook", "s3://handbook/"),
        (" s3://handbook/ ", "s3://handbook/"),
        ("handbook/a b/c", "s3://handbook/a b/c"),
        ("s3://my.bucket_1/x/", "s3://my.bucket_1/x/"),
    ],
)
def test_places(typed: str, place: str) -> None:
    assert read_place(typed, None) == place == read_place(place, None)


@pytest.mark.parametrize(
    "typed", ["", "s3://", "a", "b@d.example.com/x", "../x", "x/\0", "bucket/" + "x" * 901]
)
def test_places_that_are_none(typed: str) -> None:
    assert fails(lambda: read_place(typed, None)).permanent


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (S3Options, {"endpoint": "minio.example.com"}),
        (S3Options, {"endpoint": "http://minio.example.com"}),
        (S3Options, {"endpoint": "https://user:pass@minio.example.com"}),
        (S3Options, {"endpoint": "https://169.254.169.254"}),
        (S3Options, {"endpoint": "https://minio.example.com/bucket"}),
        (S3Options, {"region": "evil.example.com/"}),
        (S3Options, {"bucket": "x"}),
        (S3Credentials, {"access_key": "a"}),
        (S3Credentials, {"secret_key": SECRET}),
        (S3Credentials, {"access_key": "a", "secret_key": f"{SECRET}\n{SECRET}"}),
    ],
)
def test_values_that_are_none(model: Any, values: dict[str, Any]) -> None:
    with pytest.raises(ValueError) as caught:
        model(**values)
    assert SECRET not in str(caught.value)


def test_keys_are_for_a_server_and_a_bucket() -> None:
    whose = KIND.secrets_for
    here = whose("s3://a/", S3Options.model_construct())
    assert here == whose("s3://a/", S3Options.model_construct(include=("*.md",)))
    assert here != whose("s3://b/", S3Options.model_construct())
    assert here != whose("s3://a/", S3Options.model_construct(endpoint="https://minio.example.com"))
    assert here != whose("s3://a/", S3Options.model_construct(region="eu-west-1"))
