"""Everything the environment may say, typed, checked at boot, with every bad variable named at once.

Variables carry the prefix ``RAGSITE_``; the conventional ones (``DATABASE_URL``, ``ANTHROPIC_API_KEY`` …) keep
their names. A ``.env`` file in the working directory is read in development only.
"""

import ipaddress
import os
import re
from dataclasses import dataclass, field
from email.utils import parseaddr
from functools import cache
from pathlib import Path
from typing import Literal, Self
from urllib.parse import parse_qs, unquote, urlsplit

from pydantic import AliasChoices, Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from ragsite.core.addresses import read_proxies

CHECKOUT = Path(__file__).resolve().parent.parent.parent
DEVELOPMENT_SECRET = "development-only-secret-key-that-production-refuses"  # noqa: S105

PROVIDERS = ("anthropic", "openai", "azure")  # of language models
Environment = Literal["dev", "staging", "prod"]


class ConfigError(Exception):
    """The environment cannot be used; the message names every bad variable, one a line."""


@dataclass(frozen=True)
class MailServer:
    """Where e-mail is handed over. ``tls`` is ``implicit`` (smtps), ``starttls`` or ``none``."""

    host: str
    port: int
    username: str
    password: str = field(repr=False)
    tls: str


def read_mail_server(url: str) -> MailServer:
    """``smtp://user:password@host:587/?tls=starttls`` or ``smtps://user:password@host``; TLS unless ``?tls=none``.

    Raises:
        ValueError: says what is wrong, never the password.
    """
    example = "for instance smtp://user:password@host:587/?tls=starttls"
    parts = urlsplit(url)
    if parts.scheme not in ("smtp", "smtps") or not parts.hostname:
        raise ValueError(f"must start with smtp:// or smtps:// and name a host, {example}")
    try:
        port = parts.port
    except ValueError:
        raise ValueError(f"the port must be a number from 1 to 65535, {example}") from None
    query = parse_qs(parts.query)
    tls = "implicit" if parts.scheme == "smtps" else query.pop("tls", ["starttls"])[-1]
    if query or parts.path not in ("", "/") or tls not in ("implicit", "starttls", "none"):
        raise ValueError(f"after the host only ?tls=starttls or ?tls=none may follow, {example}")
    return MailServer(
        host=parts.hostname,
        port=port or {"implicit": 465, "starttls": 587, "none": 25}[tls],
        username=unquote(parts.username or ""),
        password=unquote(parts.password or ""),
        tls=tls,
    )


@dataclass(frozen=True)
class AllowedHosts:
    """Hosts inside the network that documents may be fetched from.

    Attributes:
        names: in lower case; one that begins with a dot stands for every name below it.
        networks: addresses of them.
    """

    names: frozenset[str] = frozenset()
    networks: tuple[ipaddress.IPv4Network | ipaddress.IPv6Network, ...] = ()

    def allows_name(self, host: str) -> bool:
        parents = {host[at:] for at, letter in enumerate(host) if letter == "."}
        return host in self.names or bool(parents & self.names)


_HOST_NAME = re.compile(
    r"\.?(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?\.)*[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?"
)


def read_allowed_hosts(text: str) -> AllowedHosts:
    """``wiki.example.internal, *.docs.example.internal, 10.20.0.0/16, fd12::1``.

    Raises:
        ValueError: names the entry that is neither a name, an address nor a network.
    """
    names, networks = set(), []
    for entry in (part.strip().lower().rstrip(".") for part in text.split(",")):
        if not entry:
            continue
        try:
            networks.append(ipaddress.ip_network(entry.strip("[]")))
            continue
        except ValueError:
            name = entry.removeprefix("*")
        # A last label of digits is an address that was misspelt, or a way to hide one.
        if not _HOST_NAME.fullmatch(name) or name.rpartition(".")[2].isdigit():
            raise ValueError(
                f"“{entry}” is neither a host name, an address nor a network, for instance"
                " wiki.example.internal, *.example.internal, 10.20.0.0/16"
            )
        names.add(name)
    return AllowedHosts(frozenset(names), tuple(networks))


def _conventional(name: str) -> AliasChoices:
    return AliasChoices(name, f"RAGSITE_{name}")


class Config(BaseSettings):
    """The process's configuration. Durations are seconds, sizes bytes, unless a name says otherwise."""

    model_config = SettingsConfigDict(env_prefix="RAGSITE_", extra="ignore", populate_by_name=True)

    environment: Environment = "dev"
    secret_key: str = DEVELOPMENT_SECRET
    debug: bool = False
    allowed_hosts: str = "localhost,127.0.0.1,[::1]"
    csrf_trusted_origins: str = ""
    behind_tls_proxy: bool = False
    trusted_proxies: str = ""
    host: str = "127.0.0.1"
    port: int = Field(default=8000, ge=1, le=65535, validation_alias=_conventional("PORT"))
    data: Path = CHECKOUT / ".data"
    log_format: Literal["auto", "json", "console"] = "auto"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    metrics_token: str = ""
    worker_metrics_port: int = Field(default=0, ge=0, le=65535)

    database_url: str = Field(default="", validation_alias=_conventional("DATABASE_URL"))
    app_database_url: str = ""
    platform_database_url: str = ""
    database_timeout_seconds: float = Field(default=5, gt=0)
    database_connections: int = Field(default=12, ge=2, le=200)
    redis_url: str = Field(default="", validation_alias=_conventional("REDIS_URL"))
    redis_timeout_seconds: float = Field(default=0.25, gt=0)
    celery_broker_url: str = Field(default="", validation_alias=_conventional("CELERY_BROKER_URL"))

    anthropic_api_key: str = Field(
        default="", validation_alias=_conventional("ANTHROPIC_API_KEY"), repr=False
    )
    anthropic_base_url: str = Field(default="", validation_alias=_conventional("ANTHROPIC_BASE_URL"))
    openai_api_key: str = Field(default="", validation_alias=_conventional("OPENAI_API_KEY"), repr=False)
    openai_base_url: str = Field(default="", validation_alias=_conventional("OPENAI_BASE_URL"))
    openai_model: str = ""
    openai_small_model: str = ""
    azure_openai_api_key: str = Field(
        default="", validation_alias=_conventional("AZURE_OPENAI_API_KEY"), repr=False
    )
    azure_openai_endpoint: str = Field(default="", validation_alias=_conventional("AZURE_OPENAI_ENDPOINT"))
    azure_openai_api_version: str = Field(
        default="2024-10-21", validation_alias=_conventional("AZURE_OPENAI_API_VERSION")
    )
    azure_openai_deployment: str = Field(
        default="", validation_alias=_conventional("AZURE_OPENAI_DEPLOYMENT")
    )
    azure_openai_small_deployment: str = Field(
        default="", validation_alias=_conventional("AZURE_OPENAI_SMALL_DEPLOYMENT")
    )
    providers: str = "anthropic,openai,azure"
    routing: Literal["off", "rules", "model"] = "rules"
    prompt_tokens: int = Field(default=1200, ge=0, le=100_000)
    model: str = "claude-sonnet-5-5"
    small_model: str = "claude-haiku-5-5"
    max_tokens: int = Field(default=1000, ge=16, le=64_000)
    first_byte_seconds: float = Field(default=10, gt=0)
    call_seconds: float = Field(default=30, gt=0)
    answer_seconds: float = Field(default=60, gt=0)

    reranker_model: str = ""
    reranker_seconds: float = Field(default=1.0, gt=0, le=30)
    index_memory_bytes: int = Field(default=256 * 2**20, ge=2**20)
    embedding_model: str = Field(
        default="all-MiniLM-L6-v2/onnx-int8", min_length=1, validation_alias=_conventional("EMBEDDING_MODEL")
    )
    embedding_models: str = ""
    embedding_threads: int = Field(default=2, ge=1, le=64)
    models: Path | None = None

    site_url: str = ""
    email_url: str = Field(default="", repr=False)
    email_from: str = ""

    ingest_root: Path | None = None
    ingest_shared: bool | None = None
    ingest_turn_seconds: float = Field(default=20.0, gt=0, le=3000)
    max_upload_bytes: int = Field(default=50 * 2**20, ge=1024)
    parse_cpu_seconds: int = Field(default=60, ge=1)
    parse_seconds: float = Field(default=120, ge=1)
    parse_memory_bytes: int = Field(default=2**30, ge=128 * 2**20)
    parse_unpacked_bytes: int = Field(default=500 * 2**20, ge=2**20)
    parse_pages: int = Field(default=2000, ge=1)
    source_allowed_hosts: str = ""

    limit_user_requests: int = Field(default=60, ge=0)
    limit_user_tokens: int = Field(default=100_000, ge=0)
    limit_key_requests: int = Field(default=60, ge=0)
    limit_key_tokens: int = Field(default=100_000, ge=0)
    limit_tenant_requests: int = Field(default=600, ge=0)
    limit_tenant_tokens: int = Field(default=1_000_000, ge=0)
    answer_cache_seconds: int = Field(default=3600, ge=0)
    semantic_cache: bool = True
    fast_hits: bool = True
    web_processes: int = Field(default=1, ge=1, le=64)
    access_token_minutes: int = Field(default=15, ge=1, le=24 * 60)
    refresh_token_days: int = Field(default=14, ge=1, le=365)

    @field_validator("database_url", "app_database_url", "platform_database_url")
    @classmethod
    def _is_postgres(cls, value: str) -> str:
        if value and not value.startswith(("postgres://", "postgresql://")):
            raise ValueError(
                "must start with postgresql://, for instance postgresql://user:password@host:5432/name"
            )
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: str) -> str:
        if value and not value.startswith(("redis://", "rediss://", "unix://")):
            raise ValueError(
                "must start with redis://, rediss:// or unix://, for instance redis://host:6379/0"
            )
        return value

    @field_validator("celery_broker_url")
    @classmethod
    def _is_broker(cls, value: str) -> str:
        if value and not value.startswith(
            ("redis://", "rediss://", "redis+socket://", "amqp://", "amqps://")
        ):
            raise ValueError("must start with redis://, rediss://, redis+socket://, amqp:// or amqps://")
        return value

    @field_validator("email_url")
    @classmethod
    def _is_mail_server(cls, value: str) -> str:
        if value:
            read_mail_server(value)
        return value

    @field_validator("source_allowed_hosts")
    @classmethod
    def _is_list_of_hosts(cls, value: str) -> str:
        read_allowed_hosts(value)
        return value

    @field_validator("trusted_proxies")
    @classmethod
    def _is_list_of_proxies(cls, value: str) -> str:
        read_proxies(value)
        return value

    @field_validator("email_from")
    @classmethod
    def _is_sender(cls, value: str) -> str:
        _, address = parseaddr(value)
        local, at, domain = address.rpartition("@")
        if value and (not local or not at or not domain or "\n" in value or "\r" in value):
            raise ValueError("must be an address, for instance ragsite <ragsite@example.com>")
        return value

    @field_validator("site_url")
    @classmethod
    def _is_site(cls, value: str) -> str:
        parts = urlsplit(value)
        if value and (parts.scheme not in ("http", "https") or not parts.hostname or parts.path.strip("/")):
            raise ValueError("must be the address that people open, for instance https://rag.example.com")
        return value.rstrip("/")

    @field_validator("providers")
    @classmethod
    def _is_order(cls, value: str) -> str:
        names = [name.strip() for name in value.split(",") if name.strip()]
        if len(set(names)) < len(names) or set(names) - set(PROVIDERS):
            raise ValueError(
                f"must name some of {', '.join(PROVIDERS)}, each once, for instance openai,anthropic"
            )
        return value

    @field_validator("anthropic_base_url", "openai_base_url", "azure_openai_endpoint")
    @classmethod
    def _is_http(cls, value: str) -> str:
        if value and not value.startswith(("http://", "https://")):
            raise ValueError("must start with https:// (or http:// for a local server)")
        return value

    @model_validator(mode="after")
    def _is_fit_for_its_environment(self) -> Self:
        wrong = []
        if self.azure_openai_api_key and not (self.azure_openai_endpoint and self.azure_openai_deployment):
            wrong.append(
                "AZURE_OPENAI_API_KEY: give AZURE_OPENAI_ENDPOINT (https://….openai.azure.com) and"
                " AZURE_OPENAI_DEPLOYMENT with it"
            )
        if self.email_url and not self.email_from:
            wrong.append("RAGSITE_EMAIL_FROM: give the sender of e-mails, for instance ragsite@example.com")
        if self.environment == "dev":
            if wrong:
                raise ValueError("\n".join(wrong))
            return self
        if self.email_url and not self.public_url:
            wrong.append(
                "RAGSITE_SITE_URL: links in e-mails need it, for instance https://rag.example.com"
                " (or name the host first in RAGSITE_ALLOWED_HOSTS)"
            )
        if self.secret_key == DEVELOPMENT_SECRET or len(self.secret_key) < 40:
            wrong.append("RAGSITE_SECRET_KEY: set a random string of 40 characters or more")
        if self.debug and self.environment == "prod":
            wrong.append("RAGSITE_DEBUG: must be off in prod")
        if self.environment == "prod" and not self.database_url:
            wrong.append("DATABASE_URL: prod does not run on the embedded server, give PostgreSQL's URL")
        if self.environment == "prod" and not self.redis_url:
            wrong.append("REDIS_URL: prod does not run on the embedded server, give Redis's URL")
        if wrong:
            raise ValueError("\n".join(wrong))
        return self

    @property
    def provider_order(self) -> list[str]:
        return [name.strip() for name in self.providers.split(",") if name.strip()]

    @property
    def hosts(self) -> list[str]:
        return [host.strip() for host in self.allowed_hosts.split(",") if host.strip()]

    @property
    def offered_models(self) -> list[str]:
        """Embedding models that those who manage a tenant may change to, the configured one first."""
        named = [name.strip() for name in self.embedding_models.split(",") if name.strip()]
        return list(dict.fromkeys([self.embedding_model, *named]))

    @property
    def public_url(self) -> str:
        """What links in e-mails begin with; empty in dev, where it is the address that the request came to."""
        if self.site_url or self.environment == "dev":
            return self.site_url
        host = self.hosts[0] if self.hosts else ""
        is_public = host and not host.startswith((".", "*", "localhost", "127.", "["))
        return f"https://{host}" if is_public else ""

    @property
    def is_reached_by_tls(self) -> bool:
        """Whether browsers come over https://: outside of dev, unless the site of a staging system says otherwise."""
        return self.environment == "prod" or (
            self.environment == "staging" and not self.site_url.startswith("http://")
        )

    @property
    def shares_ingest_root(self) -> bool:
        """Whether tenants may use folders below the allowed root that are kept for none of them; by itself only in dev."""
        return self.environment == "dev" if self.ingest_shared is None else self.ingest_shared

    @property
    def mail_server(self) -> MailServer | None:
        return read_mail_server(self.email_url) if self.email_url else None

    @property
    def allowed_source_hosts(self) -> AllowedHosts:
        return read_allowed_hosts(self.source_allowed_hosts)

    @property
    def proxies(self) -> list[str]:
        """Addresses and networks whose ``X-Forwarded-For`` is believed."""
        return read_proxies(self.trusted_proxies)

    @property
    def trusted_origins(self) -> list[str]:
        return [origin.strip() for origin in self.csrf_trusted_origins.split(",") if origin.strip()]

    @property
    def broker_url(self) -> str:
        """The Celery broker: its own URL, else Redis (kombu spells a socket ``redis+socket://``)."""
        if self.celery_broker_url:
            return self.celery_broker_url
        if self.redis_url.startswith("unix://"):
            path, _, query = self.redis_url.removeprefix("unix://").partition("?")
            return f"redis+socket://{path}" + (f"?{query.replace('db=', 'virtual_host=')}" if query else "")
        return self.redis_url

    @property
    def models_root(self) -> Path:
        """Where models that were made ready to run are kept."""
        return self.models or self.data / "models"

    @property
    def documents_root(self) -> Path:
        """Where uploaded originals are stored."""
        return self.data / "documents"


def _variable_of(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else ""
    field = Config.model_fields.get(name)
    alias = field.validation_alias if field else None
    if isinstance(alias, AliasChoices):
        return str(alias.choices[0])
    return name if name.isupper() else f"RAGSITE_{name.upper()}"


def read_config() -> Config:
    """Reads the environment.

    Raises:
        ConfigError: names every bad variable and what is expected of it.
    """
    env_file = CHECKOUT / ".env" if os.environ.get("RAGSITE_ENVIRONMENT", "dev") == "dev" else None
    try:
        return Config(_env_file=env_file)  # type: ignore[call-arg]
    except ValidationError as error:
        lines = _lines_of(error)
        # What concerns several variables is looked at only when each is well formed: look again without the bad ones.
        bad = {str(problem["loc"][0]) for problem in error.errors() if problem["loc"]}
        defaults = {
            name: field.get_default(call_default_factory=True)
            for name, field in Config.model_fields.items()
            if {name, _variable_of((name,))} & bad
        }
        try:
            Config(_env_file=env_file, **defaults)  # type: ignore[call-arg]
        except ValidationError as further:
            named = {line.partition(":")[0] for line in lines}
            lines += [line for line in _lines_of(further) if line.partition(":")[0] not in named]
        raise ConfigError("The configuration cannot be used:\n" + "\n".join(lines)) from None


def _lines_of(error: ValidationError) -> list[str]:
    lines = []
    for problem in error.errors():
        message = problem["msg"].removeprefix("Value error, ")
        lines += [f"{_variable_of(problem['loc'])}: {message}"] if problem["loc"] else message.split("\n")
    return lines


@cache
def config() -> Config:
    """The configuration of this process, read once."""
    return read_config()
