"""The environment: every bad variable named at once, and what production refuses."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ragsite import boot
from ragsite.core.config import CHECKOUT, DEVELOPMENT_SECRET, Config, ConfigError, config, read_config

GOOD_PROD = {
    "RAGSITE_ENVIRONMENT": "prod",
    "RAGSITE_SECRET_KEY": "s" * 50,
    "DATABASE_URL": "postgresql://u:p@db:5432/ragsite",
    "REDIS_URL": "redis://cache:6379/0",
}


def read(monkeypatch: Any, **variables: str) -> Config:
    for name in ("DATABASE_URL", "REDIS_URL", "RAGSITE_SECRET_KEY", "RAGSITE_ENVIRONMENT", "RAGSITE_DATA"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return read_config()


def refused(monkeypatch: Any, **variables: str) -> str:
    with pytest.raises(ConfigError) as caught:
        read(monkeypatch, **variables)
    return str(caught.value)


def test_every_bad_variable_is_named_at_once(monkeypatch: Any) -> None:
    bad = {
        "PORT": "99999",
        "DATABASE_URL": "mysql://db",
        "REDIS_URL": "http://cache",
        "CELERY_BROKER_URL": "ftp://x",
        "ANTHROPIC_BASE_URL": "api.example",
        "RAGSITE_DEBUG": "perhaps",
        "RAGSITE_TRUSTED_PROXIES": "127.0.0.1, *",
        "RAGSITE_MAX_UPLOAD_BYTES": "lots",
        "RAGSITE_DATABASE_CONNECTIONS": "0",
        "RAGSITE_LOG_LEVEL": "LOUD",
        "RAGSITE_REFRESH_TOKEN_DAYS": "-1",
    }
    lines = refused(monkeypatch, **bad).splitlines()
    assert len(lines) == len(bad) + 1, lines
    for name in bad:
        (line,) = [line for line in lines if line.startswith(f"{name}: ")]
        assert len(line) > len(name) + 10
    assert "RAGSITE_ENVIRONMENT: " in refused(monkeypatch, RAGSITE_ENVIRONMENT="production")


def test_production_refuses_the_defaults_all_at_once(monkeypatch: Any) -> None:
    message = refused(monkeypatch, RAGSITE_ENVIRONMENT="prod", RAGSITE_DEBUG="1")
    for name in ("RAGSITE_SECRET_KEY", "RAGSITE_DEBUG", "DATABASE_URL", "REDIS_URL"):
        assert name in message
    assert "RAGSITE_SECRET_KEY" in refused(
        monkeypatch, **{**GOOD_PROD, "RAGSITE_SECRET_KEY": DEVELOPMENT_SECRET}
    )
    assert "RAGSITE_SECRET_KEY" in refused(monkeypatch, **{**GOOD_PROD, "RAGSITE_SECRET_KEY": "short"})
    assert "RAGSITE_DEBUG" in refused(monkeypatch, **GOOD_PROD, RAGSITE_DEBUG="true")
    monkeypatch.delenv("RAGSITE_DEBUG")
    assert read(monkeypatch, **GOOD_PROD).environment == "prod"
    assert "RAGSITE_SECRET_KEY" in refused(monkeypatch, RAGSITE_ENVIRONMENT="staging")


def test_values_and_their_other_names(monkeypatch: Any) -> None:
    found = read(
        monkeypatch,
        RAGSITE_DATABASE_URL="postgres://x/y",
        RAGSITE_ALLOWED_HOSTS=" a.example , b.example ",
        REDIS_URL="unix:///run/redis.sock?db=3",
        ANTHROPIC_API_KEY="sk-ant-secret-value",
    )
    assert found.database_url == "postgres://x/y" and found.hosts == ["a.example", "b.example"]
    assert found.broker_url == "redis+socket:///run/redis.sock?virtual_host=3"
    assert "sk-ant-secret-value" not in repr(found)
    own = read(monkeypatch, CELERY_BROKER_URL="amqp://broker", RAGSITE_DATA="/srv/ragsite")
    assert own.broker_url == "amqp://broker" and own.documents_root == Path("/srv/ragsite/documents")


@pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])
def test_production_refuses_demo_tenants(monkeypatch: Any) -> None:
    from tenants.people import create_tenant

    create_tenant(slug="real", name="Real")
    monkeypatch.setattr(boot, "config", lambda: SimpleNamespace(environment="prod"))
    boot.refuse_demo_data()
    create_tenant(slug="demo", name="Demo", is_demo=True)
    with pytest.raises(SystemExit, match="demo"):
        boot.refuse_demo_data()
    monkeypatch.setattr(boot, "config", lambda: SimpleNamespace(environment="dev"))
    boot.refuse_demo_data()
    assert config().environment == "dev"


@pytest.mark.parametrize(
    ("variables", "secure"),
    [
        ({"RAGSITE_ENVIRONMENT": "dev"}, False),
        ({"RAGSITE_ENVIRONMENT": "staging"}, True),
        ({"RAGSITE_ENVIRONMENT": "staging", "RAGSITE_SITE_URL": "http://rag.internal"}, False),
        ({**GOOD_PROD, "RAGSITE_SITE_URL": "http://rag.internal"}, True),
    ],
)
def test_cookies_go_over_tls_alone_outside_of_dev(variables: dict[str, str], secure: bool) -> None:
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "from ragsite import settings as s; print(s.SESSION_COOKIE_SECURE, s.CSRF_COOKIE_SECURE)",
        ],
        env=os.environ | {"RAGSITE_SECRET_KEY": "s" * 50} | variables,
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert told.stdout.split() == [str(secure)] * 2


def test_the_allowed_root_is_shared_in_dev_alone(monkeypatch: Any) -> None:
    assert read(monkeypatch).shares_ingest_root
    assert not read(monkeypatch, RAGSITE_INGEST_SHARED="false").shares_ingest_root
    monkeypatch.delenv("RAGSITE_INGEST_SHARED")
    for environment in ("staging", "prod"):
        there = {**GOOD_PROD, "RAGSITE_ENVIRONMENT": environment}
        assert not read(monkeypatch, **there).shares_ingest_root
        assert read(monkeypatch, **there, RAGSITE_INGEST_SHARED="true").shares_ingest_root
        monkeypatch.delenv("RAGSITE_INGEST_SHARED")
    assert "RAGSITE_INGEST_SHARED" in refused(monkeypatch, RAGSITE_INGEST_SHARED="perhaps")
