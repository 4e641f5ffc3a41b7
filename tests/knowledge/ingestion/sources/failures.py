"""What a source says when it cannot be read."""

from collections.abc import Callable
from typing import Any

import pytest

from knowledge.ingestion.sources.base import SourceError


def fails(work: Callable[[], Any]) -> SourceError:
    """The error that the work ends with."""
    with pytest.raises(SourceError) as caught:
        work()
    return caught.value
