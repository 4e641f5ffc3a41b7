"""Logs, metrics and the request id that ties them to an answer."""

import logging
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import structlog
from prometheus_client import Counter, Gauge, Histogram

_request_id: ContextVar[str] = ContextVar("ragsite_request_id", default="")

BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

REQUESTS = Counter("rag_requests_total", "Questions and searches", ["endpoint", "status"])
REQUEST_LATENCY = Histogram(
    "rag_request_latency_seconds", "Time to the last byte", ["endpoint"], buckets=BUCKETS
)
STAGE_LATENCY = Histogram("rag_stage_latency_seconds", "Time within a stage", ["stage"], buckets=BUCKETS)
CACHE_HITS = Counter("rag_cache_hits_total", "Cache hits", ["layer"])
CACHE_MISSES = Counter("rag_cache_misses_total", "Cache misses", ["layer"])
CACHE_BYTES = Gauge(
    "rag_cache_bytes",
    "What the caches hold, of all tenants together",
    ["layer"],
    multiprocess_mode="mostrecent",
)
LLM_CALLS = Counter("rag_llm_calls_total", "Model calls", ["provider", "model", "status"])
LLM_COST = Counter("rag_llm_cost_dollars_total", "Model cost in US dollars", ["model"])
LLM_TOKENS = Counter("rag_llm_tokens_total", "Model tokens", ["model", "kind"])
ACTIVE_REQUESTS = Gauge("rag_active_requests", "Questions being answered", multiprocess_mode="livesum")
RETRIEVAL_RESULTS = Histogram(
    "rag_retrieval_results", "Passages per question", buckets=(0, 1, 2, 3, 5, 10, 20)
)
RERANKED = Counter("rag_rerank_total", "Questions whose candidates were reranked", ["status"])
INDEX_REFRESH = Histogram(
    "rag_index_refresh_seconds", "Bringing a tenant's search index up to date", ["kind"], buckets=BUCKETS
)
EMPTY_RESULTS = Counter("rag_empty_results_total", "Questions without enough evidence")
FEEDBACK = Counter("rag_feedback_total", "Ratings", ["rating"])
INGESTED = Counter("rag_ingest_documents_total", "Documents ingested", ["status"])
INDEX_DOCUMENTS = Gauge(
    "rag_index_documents", "Documents of all tenants that are not deleted", multiprocess_mode="mostrecent"
)
INDEX_CHUNKS = Gauge("rag_index_chunks", "Passages that are searched", multiprocess_mode="mostrecent")
INDEX_BYTES = Gauge("rag_index_bytes", "Originals of the documents, in bytes", multiprocess_mode="mostrecent")
QUEUE_DEPTH = Gauge("rag_queue_depth", "Jobs that wait", ["queue"], multiprocess_mode="mostrecent")
BUDGETS = Counter(
    "rag_budget_events_total", "Budgets near their end, spent, questions refused, and lost", ["event"]
)
LIMITED = Counter("rag_limited_total", "Requests refused by a rate limit", ["subject", "what"])
LIMITS_SKIPPED = Counter("rag_limits_skipped_total", "Requests that passed uncounted, as Redis was away")
BREAKER_STATE = Gauge(
    "rag_breaker_state",
    "0 closed, 1 half open (one call at a time tries), 2 open",
    ["component"],
    multiprocess_mode="mostrecent",
)
BREAKER_CHANGES = Counter("rag_breaker_changes_total", "Changes of a breaker's state", ["component", "state"])
UNSCOPED = Counter("rag_unscoped_total", "Platform work across tenants", ["reason"])


def new_request_id() -> str:
    """A fresh request id. It is always ours: it names the stored answer, so a client may not choose it."""
    return str(uuid.uuid4())


def current_request_id() -> str:
    """The id of the request being served, or an empty string outside of one."""
    return _request_id.get()


@contextmanager
def request_context(request_id: str) -> Iterator[None]:
    """Binds the request id for problems and log lines of this context."""
    token = _request_id.set(request_id)
    try:
        with structlog.contextvars.bound_contextvars(request_id=request_id):
            yield
    finally:
        _request_id.reset(token)


class Stopwatch:
    """Milliseconds per named stage, for ``timings`` and the stage histogram."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.timings: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - begun)

    def add(self, name: str, seconds: float) -> None:
        self.timings[name] = round(self.timings.get(name, 0.0) + seconds * 1000, 2)
        STAGE_LATENCY.labels(name).observe(seconds)

    @property
    def elapsed_ms(self) -> float:
        return round((time.perf_counter() - self.started) * 1000, 2)


def configure_logging(*, level: str, json_lines: bool) -> None:
    """Sends the standard library's and structlog's records through one formatter to stderr."""
    shared: list[Any] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if json_lines
        # Plain: rich, where it happens to be installed, would print every local variable (keys, documents), for seconds.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
        )
    )
    last: list[Any] = [structlog.processors.format_exc_info, renderer] if json_lines else [renderer]
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(level)
    noisy_ones = (
        "httpx",
        "httpx2",
        "httpcore",
        "sentence_transformers",
        "transformers",
        "django.request",
        "mcp",
    )
    for noisy in noisy_ones:
        logging.getLogger(noisy).setLevel("WARNING")
