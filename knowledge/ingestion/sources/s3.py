"""A bucket of Amazon S3 or of any server that speaks its protocol.

Requests go through the guarded client like every other; botocore does the signing alone, so that none of its own ways
to find credentials (the environment, files, the machine's metadata service) can come into play.
"""

import base64
import hashlib
import re
import time
import zlib
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, unquote, urlencode

import structlog
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials as Keys
from django.utils.translation import gettext_lazy as _
from lxml import etree
from pydantic import SecretStr, field_validator, model_validator

from knowledge.ingestion.parse import ParseError
from knowledge.ingestion.sources.base import SourceError, SourceItem
from knowledge.ingestion.sources.client import Fetched, GuardedClient, TooLarge
from knowledge.ingestion.sources.globs import is_wanted, read_patterns
from knowledge.ingestion.sources.guard import WEB_PORTS
from knowledge.ingestion.sources.kinds import (
    Credentials,
    Options,
    SourceKind,
    open_credentials,
    option,
    patterns,
    stored_options,
)
from knowledge.ingestion.sources.places import read_web_place
from knowledge.models import Source
from ragsite.core.config import config

logger = structlog.get_logger(__name__)

MAX_ITEMS = 200_000
# Of objects that are looked at, wanted or not, and of pages in a row that name none that is wanted.
MAX_KEYS, MAX_IDLE_PAGES = 5_000_000, 5_000
MAX_PAGE_BYTES, MAX_TOKEN = 4 * 2**20, 4096
PAGE_SECONDS, OBJECT_SECONDS, CHECK_SECONDS = 30.0, 180.0, 9.0
LIST_SECONDS = 3000.0  # below the worker's time limit
TRIES = 3
PORTS = WEB_PORTS | {9000}
_EMPTY = hashlib.sha256(b"").hexdigest()
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]")
_WORD = re.compile(r"[^A-Za-z0-9.-]")


class S3Options(Options):
    endpoint: str = option(
        _("Endpoint"),
        _("Empty: Amazon. Else the server's address, for instance https://minio.example.com."),
        max_length=300,
    )
    region: str = option(_("Region"), default="us-east-1", max_length=60)
    path_style: bool = option(
        _("Bucket in the path of the address"),
        _("Off: in front of the host's name, as some servers want it."),
        default=True,
    )
    include: tuple[str, ...] = patterns(
        _("Only these files"), _("Patterns such as *.md or docs/**; empty: all.")
    )
    exclude: tuple[str, ...] = patterns(_("Not these files"), _("Patterns such as **/drafts/** or *.log."))

    @field_validator("include", "exclude")
    @classmethod
    def _are_patterns(cls, lines: tuple[str, ...]) -> tuple[str, ...]:
        return read_patterns(lines)

    @field_validator("region")
    @classmethod
    def _is_region(cls, value: str) -> str:
        if not re.fullmatch(r"[a-z0-9-]{1,60}", value):
            raise ValueError("A region is a word such as eu-central-1.")
        return value

    @field_validator("endpoint")
    @classmethod
    def _is_endpoint(cls, value: str) -> str:
        try:
            parsed = read_web_place(value, ports=PORTS) if value else None
        except SourceError as error:
            raise ValueError(str(error)) from None
        if parsed is not None and parsed.path.strip("/"):
            raise ValueError(
                "Give the server alone, for instance https://minio.example.com; the bucket is the place."
            )
        return value.rstrip("/")

    @property
    def server(self) -> str:
        """The address that is asked."""
        return self.endpoint or (
            f"https://s3.{self.region}.amazonaws.com" + (".cn" if self.region.startswith("cn-") else "")
        )


class S3Credentials(Credentials):
    access_key: SecretStr = option(_("Access key"), _("With both keys empty the bucket is read as the public does."),
                                   default=SecretStr(""), widget="plain", max_length=256)  # fmt: skip
    secret_key: SecretStr = option(_("Secret key"), default=SecretStr(""), max_length=1000)
    session_token: SecretStr = option(
        _("Session token"), _("Of temporary keys only."), default=SecretStr(""), max_length=4000
    )

    @model_validator(mode="after")
    def _go_together(self) -> "S3Credentials":
        given = self.values()
        if given and not {"access_key", "secret_key"} <= given.keys():
            raise ValueError("Give access_key and secret_key together.")
        if any(not value.isascii() or not value.isprintable() or " " in value for value in given.values()):
            raise ValueError("Keys are letters, digits and signs without spaces: copy them again.")
        return self


def read_place(typed: str, options: Any) -> str:
    """``s3://bucket/prefix`` of what was typed, which may leave the scheme out."""
    bucket, _slash, prefix = typed.strip().removeprefix("s3://").lstrip("/").partition("/")
    if not _BUCKET.fullmatch(bucket):
        raise SourceError(
            "Give the bucket's name and, where only a part of it is wanted, the beginning of its keys: "
            "s3://bucket/handbook/.",
            permanent=True,
        )
    if "\0" in prefix or len(prefix.encode()) > 900:
        raise SourceError("The prefix is too long, or holds a NUL character.", permanent=True)
    return f"s3://{bucket}/{prefix}"


class S3Connector:
    """Objects of a bucket whose keys begin with the prefix. Hidden ones and folder marks are passed over."""

    def __init__(self, *, path: str, options: S3Options, credentials: S3Credentials) -> None:
        self._bucket, _slash, self._prefix = path.removeprefix("s3://").partition("/")
        self._options = options
        keys = credentials.values()
        self._keys = Keys(keys["access_key"], keys["secret_key"], keys.get("session_token")) if keys else None
        self._client = GuardedClient(ports=PORTS)
        scheme, _sep, host = options.server.partition("://")
        self._base = (
            f"{scheme}://{host}/{self._bucket}" if options.path_style else f"{scheme}://{self._bucket}.{host}"
        )

    def check(self) -> str:
        answer = self._ask("/?" + urlencode(self._query(size=1)), MAX_PAGE_BYTES, CHECK_SECONDS, tries=1)
        any_there = next(_children(_read_xml(answer), "Contents"), None) is not None
        where = f" below {self._prefix}" if self._prefix else ""
        return f"The bucket {self._bucket} answers" + ("." if any_there else f", and holds nothing{where}.")

    def _query(self, *, size: int, token: str = "") -> list[tuple[str, str]]:
        query = [
            ("encoding-type", "url"), ("list-type", "2"), ("max-keys", str(size)), ("prefix", self._prefix),
        ]  # fmt: skip
        return [("continuation-token", token), *query] if token else query

    def list_items(self) -> Iterator[SourceItem]:
        ends_at = time.monotonic() + LIST_SECONDS
        found, keys, idle, token, tokens = 0, 0, 0, "", set[bytes]()
        while True:
            if time.monotonic() > ends_at:
                raise SourceError(
                    f"The bucket could not be listed within {LIST_SECONDS / 60:.0f} minutes; nothing was deleted. Make "
                    "several sources, each with a prefix.",
                    permanent=False,
                )
            query = urlencode(self._query(size=1000, token=token))
            page = _read_xml(self._ask(f"/?{query}", MAX_PAGE_BYTES, PAGE_SECONDS))
            idle += 1
            for item in _items_of(page):
                keys += 1
                if not self._is_wanted(item.uri):
                    continue
                found, idle = found + 1, 0
                if found > MAX_ITEMS:
                    raise SourceError(
                        f"There are more than {MAX_ITEMS} documents: make several sources, each with a prefix.",
                        permanent=True,
                    )
                yield item
            if _text(page, "IsTruncated") != "true":
                return
            token = _text(page, "NextContinuationToken")
            digest = hashlib.sha256(token.encode()).digest()
            if not token or digest in tokens:
                raise SourceError("The server's list of the bucket does not come to an end.", permanent=False)
            tokens.add(digest)
            if len(token) > MAX_TOKEN:
                raise SourceError("This is not how S3 continues a list: check the endpoint.", permanent=True)
            if keys > MAX_KEYS or idle >= MAX_IDLE_PAGES:
                raise SourceError(
                    f"There are too few wanted documents among the {keys:,} objects that were listed; nothing was deleted. "
                    "Make several sources, each with a prefix.",
                    permanent=True,
                )

    def _is_wanted(self, key: str) -> bool:
        if key.endswith("/") or any(part.startswith(".") for part in key.split("/")) or len(key) > 1000:
            return False
        return key.startswith(self._prefix) and is_wanted(
            key, include=self._options.include, exclude=self._options.exclude
        )

    def fetch(self, item: SourceItem) -> bytes:
        headers = {"x-amz-checksum-mode": "ENABLED"}
        limit = config().max_upload_bytes + 1
        for attempt in range(1, TRIES + 1):
            try:
                answer = self._ask("/" + quote(item.uri, safe="/~"), limit, OBJECT_SECONDS, headers=headers)
            except TooLarge as error:
                raise ParseError("too_large", str(error)) from None
            if _is_whole(answer):
                return answer.body
            logger.warning("object came with a wrong checksum", attempt=attempt)
        raise ParseError("damaged", "It arrived damaged (its checksum is another): look at the object.")

    def state(self) -> dict[str, Any]:
        return {}

    def stop(self) -> None:
        self._client.stop()

    def close(self) -> None:
        self._client.close()

    def _ask(
        self,
        target: str,
        max_bytes: int,
        seconds: float,
        *,
        headers: dict[str, str] | None = None,
        tries: int = TRIES,
    ) -> Fetched:
        """An answer of 200, asked for again while the server is merely busy."""
        url = self._base + target
        for attempt in range(1, tries + 1):
            try:
                answer = self._client.request(
                    "GET",
                    url,
                    max_bytes=max_bytes,
                    seconds=seconds,
                    headers=self._signed(url, headers or {}),
                    follow=lambda target: False,
                )
                if answer.status == 200:
                    return answer
                raise self._wrong(answer, key=target)
            except SourceError as error:
                if error.permanent or attempt == tries:
                    raise
            time.sleep(0.2 * 4 ** (attempt - 1))
        raise AssertionError("unreachable")

    def _signed(self, url: str, headers: dict[str, str]) -> dict[str, str]:
        request = AWSRequest("GET", url, headers={"x-amz-content-sha256": _EMPTY} | headers)
        if self._keys is not None:
            S3SigV4Auth(self._keys, "s3", self._options.region).add_auth(request)
        # Not signed: a proxy may change it. Bytes as they are stored, because their size and checksum are.
        return dict(request.headers.items()) | {"Accept-Encoding": "identity"}

    def _wrong(self, answer: Fetched, *, key: str) -> Exception:
        """What an answer other than 200 means, and what to do. Only the server's code is told: its words may repeat keys."""
        try:
            told = _read_xml(answer)
            code, region = _word(_text(told, "Code")), _word(_text(told, "Region"))
        except SourceError:
            code = region = ""
        region = region or _word(answer.headers.get("x-amz-bucket-region", ""))
        told_code = f" ({code})" if code else ""
        if answer.status in (429, 500, 502, 503, 504) or code in ("SlowDown", "RequestTimeout"):
            return SourceError(
                f"The server is busy or in trouble ({code or answer.status}): try later.", permanent=False
            )
        if answer.location or code in (
            "PermanentRedirect",
            "AuthorizationHeaderMalformed",
            "TemporaryRedirect",
        ):
            hint = (
                f"set the region to {region}" if region else "set the region, or the endpoint, of the bucket"
            )
            return SourceError(f"The bucket lies elsewhere: {hint}.", permanent=True)
        if code == "InvalidObjectState":
            return ParseError("archived", "It lies in an archive class (Glacier): restore it, or exclude it.")
        if code == "NoSuchBucket" or (answer.status == 404 and key.startswith("/?")):
            return SourceError(
                f"There is no bucket {self._bucket} there: check name, region and endpoint.", permanent=True
            )
        if answer.status == 404:
            return FileNotFoundError(2, "it has just gone")
        if code in (
            "InvalidAccessKeyId",
            "SignatureDoesNotMatch",
            "InvalidToken",
            "ExpiredToken",
            "TokenRefreshRequired",
        ):
            return SourceError(
                f"The server does not accept the keys{told_code}: enter them again.", permanent=True
            )
        if code == "RequestTimeTooSkewed":
            return SourceError("The clock of this server is wrong: tell its operator.", permanent=True)
        if answer.status in (401, 403):
            whose = "these keys" if self._keys else "anonymous readers (no keys are stored)"
            if not key.startswith("/?"):  # perhaps a rule about this one
                return ParseError(
                    "refused", f"The server refuses it to {whose}{told_code}: allow s3:GetObject."
                )
            return SourceError(
                f"The server refuses {whose}{told_code}: allow s3:ListBucket on the bucket.", permanent=True
            )
        return SourceError(
            f"The server answers {answer.status}{told_code}, which is not how S3 answers: check the endpoint.",
            permanent=True,
        )


def _word(text: str) -> str:
    return _WORD.sub("", text)[:60]


def _read_xml(answer: Fetched) -> Any:
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, huge_tree=False)
    try:
        root = etree.fromstring(answer.body, parser)
    except (etree.XMLSyntaxError, ValueError):
        root = None
    if root is None:
        raise SourceError("The server's answer is not that of S3: check the endpoint.", permanent=True)
    return root


def _children(element: Any, name: str) -> Iterator[Any]:
    # Some servers leave the namespace out.
    return (each for each in element if isinstance(each.tag, str) and etree.QName(each).localname == name)


def _text(element: Any, name: str) -> str:
    found = next(_children(element, name), None)
    return (found.text or "").strip() if found is not None else ""


def _items_of(page: Any) -> Iterator[SourceItem]:
    encoded = _text(page, "EncodingType") == "url"
    for row in _children(page, "Contents"):
        key = next(_children(row, "Key")).text or ""
        size = _text(row, "Size")
        tag = _text(row, "ETag").strip('"')
        yield SourceItem(
            uri=unquote(key.replace("+", " ")) if encoded else key,
            size=int(size) if size.isdigit() else 0,
            fingerprint=f"{tag[:100]}-{size[:20]}-{_text(row, 'LastModified')[:40]}" if tag else "",
        )


def _is_whole(answer: Fetched) -> bool:
    """Whether the bytes are those that the server has a checksum of, where it tells one of the whole object."""
    if answer.headers.get("Content-Encoding"):
        return True  # of the packed bytes
    body = answer.body
    for name in ("sha256", "sha1", "crc32"):
        told = answer.headers.get(f"x-amz-checksum-{name}", "")
        if told and "-" not in told:  # “…-3”: made of the parts' checksums
            digest = (
                zlib.crc32(body).to_bytes(4, "big") if name == "crc32" else hashlib.new(name, body).digest()
            )
            return bool(told == base64.b64encode(digest).decode())
    return True


def _connect(source: Source) -> S3Connector:
    return S3Connector(
        path=source.path,
        options=stored_options(source, S3Options),
        credentials=open_credentials(source, S3Credentials),
    )


KIND = SourceKind(
    kind=Source.Kind.S3,
    title=_("S3 bucket"),
    place=_("Bucket"),
    hint=_("The bucket's name and, where only a part of it is wanted, the beginning of its keys."),
    example="s3://bucket/handbook/",
    read_place=read_place,
    connect=_connect,
    options=S3Options,
    credentials=S3Credentials,
    secrets_for=lambda path, options: f"{options.server} {path} {options.path_style}",
)
