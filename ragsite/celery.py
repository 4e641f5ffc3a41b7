"""The Celery application."""

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "ragsite.settings")
# Indexing writes whole documents in one statement: the web's 5 seconds are not for the worker.
os.environ.setdefault("RAGSITE_DATABASE_TIMEOUT_SECONDS", "120")

from celery import Celery
from celery.signals import worker_ready

from ragsite.core.config import config
from ragsite.core.scrape import serve_metrics, share_metrics

if "worker" in sys.argv and config().worker_metrics_port:
    # A worker without a web process beside it: what its pool counts is told by the process that leads the pool.
    share_metrics(folder=Path(tempfile.gettempdir()) / f"ragsite-metrics-{os.getpid()}")

app = Celery("ragsite")
app.set_default()  # the current app is one of its thread; requests come in others
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks(["tenants", "knowledge", "feedback"])


@worker_ready.connect
def serve_worker_metrics(**_: Any) -> None:
    """Prometheus's address of a worker, where one is configured."""
    if port := config().worker_metrics_port:
        serve_metrics(host=config().host, port=port, token=config().metrics_token)
