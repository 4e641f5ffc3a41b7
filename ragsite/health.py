"""Health: for people, for load balancers, for Prometheus."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from functools import wraps
from typing import Any

import structlog
from django.db import DatabaseError, connections
from django.http import HttpRequest, HttpResponse, JsonResponse
from django.utils import timezone
from django_redis import get_redis_connection
from prometheus_client import CONTENT_TYPE_LATEST
from redis.exceptions import RedisError

from knowledge.answering.layers import read_bytes_of_all
from knowledge.config import configured_providers
from knowledge.embedding.base import EmbeddingError
from knowledge.embedding.factory import embedder, is_loaded
from knowledge.index_figures import read_sizes_of_all
from knowledge.ingestion.queue import queue_depths
from ragsite.celery import app
from ragsite.core.breaker import read_states
from ragsite.core.config import config
from ragsite.core.hops import run_db
from ragsite.core.observability import (
    BREAKER_STATE,
    CACHE_BYTES,
    INDEX_BYTES,
    INDEX_CHUNKS,
    INDEX_DOCUMENTS,
    QUEUE_DEPTH,
)
from ragsite.core.problems import Problem, problem_response
from ragsite.core.scrape import FORBIDDEN, collect_metrics, may_scrape

logger = structlog.get_logger(__name__)

CHECK_SECONDS = 2.0
MEMORY_SECONDS = 2.0  # anybody may ask, as often as they like
BREAKER_LEVELS = {"closed": 0, "half_open": 1, "open": 2}
View = Callable[[HttpRequest], Coroutine[Any, Any, HttpResponse]]
# Without these nothing can be answered; the rest only takes something away.
ESSENTIAL = frozenset({"database", "embeddings"})


def answers_get(view: View) -> View:
    """GET and HEAD; anything else is told as the API tells it."""

    @wraps(view)
    async def checked(request: HttpRequest) -> HttpResponse:
        if request.method in ("GET", "HEAD"):
            return await view(request)
        words = f"{request.method} is not possible here: use GET."
        return problem_response(Problem(405, "method-not-allowed", words, headers={"Allow": "GET, HEAD"}))

    return checked


@answers_get
async def livez(request: HttpRequest) -> HttpResponse:
    """The process serves requests; touches nothing else."""
    return HttpResponse("ok\n", content_type="text/plain")


def _check_database() -> str:
    with connections["default"].cursor() as cursor:
        cursor.execute("SELECT 1")
    return "ok"


def _check_cache() -> str:
    get_redis_connection("default").ping()
    return "ok"


def _check_broker() -> str:
    with app.connection_for_read(
        transport_options={"socket_timeout": 1, "socket_connect_timeout": 1}
    ) as broker:
        broker.ensure_connection(max_retries=1, interval_start=0, timeout=1)
    return "ok"


def _check_worker() -> str:
    if not app.control.inspect(timeout=0.8).ping():
        raise RuntimeError("no worker answers")
    return "ok"


def _check_model() -> str:
    providers = configured_providers()
    if not providers:
        return "not configured: answers quote the documents"
    states = {row["name"]: row["state"] for row in read_states()}
    resting = [name for name in providers if states[f"model:{name}"] == "open"]
    if len(resting) == len(providers):
        raise RuntimeError(f"{', '.join(resting)}: failed again and again, answers quote the documents")
    return f"ok, without {', '.join(resting)}" if resting else "ok"


def _check_embeddings() -> str:
    if not is_loaded():
        raise RuntimeError("loading")
    return "ok"


CHECKS: dict[str, Callable[[], str]] = {
    "database": _check_database,
    "cache": _check_cache,
    "broker": _check_broker,
    "model": _check_model,
    "embeddings": _check_embeddings,
    "worker": _check_worker,
}


@dataclass(frozen=True)
class Found:
    """What a check has found, and when (``time.monotonic()``)."""

    told: dict[str, Any]
    at: float


_looks: dict[str, asyncio.Task[Found]] = {}


async def _run_check(check: Callable[[], str]) -> Found:
    try:
        result: Awaitable[str] = run_db(check)
        told = {"status": "healthy", "detail": await asyncio.wait_for(result, CHECK_SECONDS)}
    except Exception as error:
        # A health check reports whatever is wrong; its words may hold addresses, so only the kind is told.
        detail = str(error) if isinstance(error, RuntimeError) else type(error).__name__
        told = {"status": "unhealthy", "detail": detail}
    return Found(told, time.monotonic())


def _is_over(look: asyncio.Task[Found]) -> bool:
    return look.done() and (look.cancelled() or time.monotonic() - look.result().at >= MEMORY_SECONDS)


async def _look(name: str) -> dict[str, Any]:
    """What a check finds, or has just found; whoever asks while it is under way waits for that one."""
    look = _looks.get(name)
    if look is None or look.get_loop() is not asyncio.get_running_loop() or _is_over(look):
        look = _looks[name] = asyncio.create_task(_run_check(CHECKS[name]))
    return (await asyncio.shield(look)).told


@answers_get
async def health(request: HttpRequest) -> HttpResponse:
    """What works and what does not; 503 when nothing can be answered."""
    results = await asyncio.gather(*(_look(name) for name in CHECKS))
    checks = dict(zip(CHECKS, results, strict=True))
    broken = {name for name, result in checks.items() if result["status"] != "healthy"}
    status = "unhealthy" if broken & ESSENTIAL else ("degraded" if broken else "healthy")
    return JsonResponse(
        {"status": status, "checks": checks, "timestamp": timezone.now().isoformat()},
        status=503 if status == "unhealthy" else 200,
    )


@answers_get
async def readyz(request: HttpRequest) -> HttpResponse:
    """Whether this process can take questions now."""
    names = sorted(ESSENTIAL)
    results = await asyncio.gather(*(_look(name) for name in names))
    checks = dict(zip(names, results, strict=True))
    ready = all(result["status"] == "healthy" for result in results)
    return JsonResponse({"ready": ready, "checks": checks}, status=200 if ready else 503)


def _is_forwarded(request: HttpRequest) -> bool:
    """Whether a proxy asks for somebody else: that the proxy is on this machine says nothing of them."""
    return any(name in request.headers for name in ("Forwarded", "X-Forwarded-For", "X-Real-IP"))


@answers_get
async def metrics(request: HttpRequest) -> HttpResponse:
    """Prometheus's text format, for the configured token, or from this machine where none is configured."""
    allowed = may_scrape(
        token=config().metrics_token,
        authorization=request.headers.get("Authorization", ""),
        address="" if _is_forwarded(request) else request.META.get("REMOTE_ADDR", ""),
    )
    if not allowed:
        return HttpResponse(FORBIDDEN, status=403)
    with contextlib.suppress(DatabaseError):  # the other figures are told all the same
        for queue, depth in (await run_db(queue_depths)).items():
            QUEUE_DEPTH.labels(queue).set(depth)
        sizes = await run_db(read_sizes_of_all)
        INDEX_DOCUMENTS.set(sizes["documents"])
        INDEX_CHUNKS.set(sizes["chunks"])
        INDEX_BYTES.set(sizes["original_bytes"])
    with contextlib.suppress(RedisError, OSError):
        for layer, size in (await run_db(read_bytes_of_all)).items():
            CACHE_BYTES.labels(layer).set(size)
    for row in await run_db(read_states):
        BREAKER_STATE.labels(row["name"]).set(BREAKER_LEVELS[row["state"]])
    return HttpResponse(collect_metrics(), content_type=CONTENT_TYPE_LATEST)


def load_model_in_background() -> None:
    """Loads the embedding model beside the first requests, so that the first question need not wait for it."""

    def load() -> None:
        try:
            embedder().embed_queries(["The first run is slower than those that follow."])
        except EmbeddingError as error:
            logger.error("the embedding model cannot be loaded", reason=error.reason)

    threading.Thread(target=load, name="load-embeddings", daemon=True).start()
