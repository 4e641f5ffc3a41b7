"""The runs of data sets whose tenants are gone: one JSON file a data set, in the data folder."""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from django.utils import timezone

from knowledge.evaluation.measure import Measured
from ragsite.core.config import config

KEPT = 20


def _path(data_hash: str) -> Path:
    return config().data.expanduser().resolve() / "evaluation" / f"{data_hash[:32]}.json"


def read_runs(*, data_hash: str) -> list[dict[str, Any]]:
    """The runs of a data set, oldest first; a file that cannot be read counts as none."""
    try:
        runs = json.loads(_path(data_hash).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return []
    return (
        [each for each in runs if isinstance(each, dict) and "results" in each]
        if isinstance(runs, list)
        else []
    )


def add_run(
    *, data_hash: str, name: str, measured: Measured, embedder: str, fingerprint: str, documents: int
) -> Path:
    """Keeps a run, and of all the newest ``KEPT``; written whole or not at all."""
    run = {
        "name": name,
        "at": timezone.now().isoformat(timespec="seconds"),
        "embedder": embedder,
        "fingerprint": fingerprint,
        "documents": documents,
        "arms": measured.arms,
        "p50_ms": measured.p50_ms,
        "p95_ms": measured.p95_ms,
        "results": measured.results,
    }
    path = _path(data_hash)
    path.parent.mkdir(parents=True, exist_ok=True)
    runs = [*read_runs(data_hash=data_hash), run][-KEPT:]
    handle, partial = tempfile.mkstemp(dir=path.parent, suffix=".partial")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(runs, file)
    Path(partial).replace(path)
    return path
