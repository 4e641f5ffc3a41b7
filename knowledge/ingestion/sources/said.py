"""What a source passes over, told on its page."""

import os
from collections.abc import Sequence

TOLD = 5
MAX_NAME = 1000
UNNAMEABLE = "The names of these are too long or not in UTF-8, rename them: {}"


def name_some(words: str, paths: Sequence[str]) -> list[str]:
    """A sentence with the first of the paths in the place of ``{}``; none where there are none."""
    if not paths:
        return []
    more = f" and {len(paths) - TOLD} more" if len(paths) > TOLD else ""
    return [words.format(", ".join(path[:200] for path in paths[:TOLD])) + more + "."]


def readable(path: str | os.PathLike[str]) -> str:
    """A path of this machine with � for what is not in UTF-8."""
    return os.fsencode(path).decode("utf-8", "replace")
