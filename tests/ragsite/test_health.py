"""Health for people, for load balancers, for Prometheus."""

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import httpx
import pytest

from ragsite import health
from ragsite.core.breaker import model_breaker

pytestmark = pytest.mark.django_db(transaction=True, databases=["default", "platform", "owner"])


def fail() -> str:
    raise ConnectionRefusedError("postgresql://user:secret@host")


def test_health_tells_what_works(client: Any, monkeypatch: Any) -> None:
    from knowledge.embedding.factory import embedder

    embedder()
    body = client.get("/health").json()
    assert set(body) == {"status", "checks", "timestamp"}
    assert set(body["checks"]) == {"database", "cache", "broker", "model", "embeddings", "worker"}
    for name in ("database", "cache", "broker", "model", "embeddings"):
        assert body["checks"][name]["status"] == "healthy", (name, body)
    # No worker runs here.
    assert body["checks"]["worker"]["status"] == "unhealthy" and body["status"] == "degraded"
    monkeypatch.setitem(health.CHECKS, "worker", lambda: "ok")
    whole = client.get("/health")
    assert whole.json()["status"] == "healthy" and whole.status_code == 200
    assert whole.headers["X-Request-ID"]

    monkeypatch.setitem(health.CHECKS, "cache", fail)
    degraded = client.get("/health")
    assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
    assert b"secret" not in degraded.content
    assert client.get("/readyz").status_code == 200
    monkeypatch.setitem(health.CHECKS, "database", fail)
    broken = client.get("/health")
    assert (broken.status_code, broken.json()["status"]) == (503, "unhealthy")
    assert client.get("/readyz").status_code == 503 and client.get("/readyz").json()["ready"] is False
    assert client.post("/health").status_code == 405


def test_many_who_ask_share_one_look(live_site: str, monkeypatch: Any) -> None:
    looks: Counter[str] = Counter()
    asked, may_end = threading.Event(), threading.Event()

    def look(name: str) -> str:
        looks[name] += 1
        if name == "worker":
            asked.set()
            assert may_end.wait(30)
        return "ok"

    for name in health.CHECKS:
        monkeypatch.setitem(health.CHECKS, name, partial(look, name))
    monkeypatch.setattr(health, "MEMORY_SECONDS", 3600)
    monkeypatch.setattr(health, "CHECK_SECONDS", 30)
    with httpx.Client(base_url=live_site, timeout=60) as client, ThreadPoolExecutor(8) as pool:
        many = [pool.submit(client.get, "/health") for _ in range(8)]
        assert asked.wait(30)
        assert client.get("/readyz").status_code == 200, (
            "one that hangs keeps none waiting that does not want it"
        )
        may_end.set()
        assert all(one.result().json()["status"] == "healthy" for one in many)
        assert client.get("/health").json()["status"] == "healthy"
        assert looks == dict.fromkeys(health.CHECKS, 1)
        monkeypatch.setattr(health, "MEMORY_SECONDS", 0)
        assert client.get("/health").status_code == 200
        assert looks == dict.fromkeys(health.CHECKS, 2)


def test_livez_touches_nothing(client: Any, django_assert_num_queries: Any) -> None:
    with django_assert_num_queries(0):
        assert client.get("/livez").content == b"ok\n"
        assert client.get("/livez", headers={"authorization": "Bearer nonsense"}).status_code == 200


def test_metrics_are_guarded_and_named(client: Any, monkeypatch: Any) -> None:
    response = client.get("/metrics")
    assert response.status_code == 200
    for name in (
        "rag_requests_total",
        "rag_request_latency_seconds",
        "rag_cache_hits_total",
        "rag_llm_calls_total",
    ):
        assert name in response.content.decode()
    assert client.get("/metrics", REMOTE_ADDR="203.0.113.9").status_code == 403
    # A proxy on this machine asks for the world.
    assert client.get("/metrics", headers={"x-forwarded-for": "127.0.0.1"}).status_code == 403
    broken = model_breaker("anthropic")
    for _ in range(5):
        broken.report_now(broken.admit_now(), "failure", reason="overloaded")
    page = client.get("/metrics").content.decode()
    assert 'rag_breaker_state{component="model:anthropic"} 2.0' in page
    assert 'rag_breaker_state{component="database"} 0.0' in page
    assert 'rag_breaker_changes_total{component="model:anthropic",state="open"}' in page
    from types import SimpleNamespace

    monkeypatch.setattr(health, "config", lambda: SimpleNamespace(metrics_token="tök"))
    assert client.get("/metrics").status_code == 403
    assert client.get("/metrics", headers={"authorization": "Bearer nö"}).status_code == 403
    allowed = client.get("/metrics", HTTP_AUTHORIZATION="Bearer tök", REMOTE_ADDR="203.0.113.9")
    assert allowed.status_code == 200
