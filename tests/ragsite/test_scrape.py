"""Metrics of several processes, added up for Prometheus."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from prometheus_client import Gauge

from ragsite.core import observability
from ragsite.core.scrape import FOLDER_VARIABLE, collect_metrics, may_scrape, share_metrics
from tests.ragsite.helpers import CHECKOUT

COUNT = """
from ragsite.core.observability import ACTIVE_REQUESTS, INGESTED, QUEUE_DEPTH
INGESTED.labels("success").inc(3)
ACTIVE_REQUESTS.inc()
QUEUE_DEPTH.labels("bulk").set(7)
"""


def test_what_processes_counted_is_told_together_and_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, "")  # and taken back after the test
    folder = tmp_path / "metrics"
    folder.mkdir()
    (folder / "counter_1.db").write_text("of a run before")
    share_metrics(folder=folder)
    assert os.environ[FOLDER_VARIABLE] == str(folder) and not list(folder.iterdir())
    for _ in range(2):
        subprocess.run([sys.executable, "-c", COUNT], cwd=CHECKOUT, check=True, timeout=60)
    told = collect_metrics().decode()
    assert 'rag_ingest_documents_total{status="success"} 6.0' in told
    assert 'rag_queue_depth{queue="bulk"} 7.0' in told
    # Both have ended: nothing is being answered any more.
    assert "rag_active_requests 2.0" not in told and "rag_active_requests 1.0" not in told
    assert "process_resident_memory_bytes" in told


def test_no_gauge_of_ours_is_told_once_for_each_process() -> None:
    gauges = {name: each for name, each in vars(observability).items() if isinstance(each, Gauge)}
    assert gauges and [name for name, each in gauges.items() if each._multiprocess_mode == "all"] == []


def test_a_folder_of_the_operators_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    share_metrics(folder=tmp_path / "other")
    assert os.environ[FOLDER_VARIABLE] == str(tmp_path) and not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("token", "authorization", "address", "allowed"),
    [
        ("", "", "127.0.0.1", True),
        ("", "", "::1", True),
        ("", "", "203.0.113.9", False),
        ("", "", "", False),
        ("secret", "Bearer secret", "203.0.113.9", True),
        ("secret", "", "127.0.0.1", False),
        ("secret", "Bearer sécret", "127.0.0.1", False),
    ],
)
def test_metrics_are_for_the_token_or_for_this_machine(
    token: str, authorization: str, address: str, allowed: bool
) -> None:
    assert may_scrape(token=token, authorization=authorization, address=address) is allowed
