"""How long an answer may be shown again: by the content of what it cites, the shortest-lived of it."""

from collections.abc import Mapping

from knowledge.answering.journey import Journey
from knowledge.config import AnswerConfig
from knowledge.models import Collection

# After this part of its life an answer is shown as stale while it is made again; past its life it is not shown at all.
FRESH_PART = 0.8


def seconds_to_keep(journey: Journey, *, config: AnswerConfig) -> int:
    """The seconds that the answer may be shown for; 0: not at all. In the scope of its asker."""
    if config.cache_seconds <= 0:
        return 0
    cited = {citation["source"] for citation in journey.citations}
    slugs = {source["collection"] for source in journey.sources if source["n"] in cited}
    if not slugs:
        return config.cache_seconds
    classes = Collection.objects.filter(slug__in=slugs).values_list("content_class", flat=True)
    return shortest_life(classes=set(classes), seconds=config.class_seconds, otherwise=config.cache_seconds)


def shortest_life(*, classes: set[str], seconds: Mapping[str, int], otherwise: int) -> int:
    """The fewest seconds of the content classes; ``otherwise`` where there are none."""
    return min((seconds[each] for each in classes), default=otherwise)
