"""Fewer tokens for the same answer: of the passages, the sentences that matter to the question, each once."""

from collections.abc import Sequence
from dataclasses import replace

from knowledge.llm.base import Passage
from knowledge.llm.extractive import collect_candidates, score_candidates
from knowledge.llm.rendering import Candidate

CHARS_PER_TOKEN = 4
DUPLICATE_OVERLAP = 0.85
# What a passage keeps however little its sentences share with the question: enough to judge what it is about.
FEWEST_UNITS = 1
NEIGHBOUR_SHARE = 0.5


def compress_passages(passages: Sequence[Passage], *, question: str, tokens: int) -> tuple[Passage, ...]:
    """The passages cut down to about ``tokens`` together, under their own numbers, so that citations stay right.

    What is left is verbatim and in its order: whole sentences, list items, table rows and code blocks. They are chosen by
    the question's terms (as the extractive answerer scores them) with a share for their neighbours, since an answer
    often stands beside the sentence that names its subject; what an earlier passage has said already goes first.
    """
    budget = tokens * CHARS_PER_TOKEN
    if tokens <= 0 or sum(len(passage.text) for passage in passages) <= budget:
        return tuple(passages)
    groups = [collect_candidates(passage) for passage in passages]
    score_candidates(question, groups)
    ranked: list[tuple[float, int, Candidate]] = []
    seen: list[frozenset[str]] = []
    for rank, group in enumerate(groups):
        for at, candidate in enumerate(group):
            if _repeats(candidate, seen):
                continue
            seen.append(candidate.terms)
            near = max((c.score for c in group[max(0, at - 1) : at + 2]), default=0.0)
            ranked.append((max(candidate.score, NEIGHBOUR_SHARE * near), rank, candidate))
    ranked.sort(key=lambda each: (-each[0], each[1], each[2].index))
    kept: list[set[int]] = [set() for _ in groups]
    for rank in range(len(groups)):
        best = [candidate for _, r, candidate in ranked if r == rank][:FEWEST_UNITS]
        for candidate in best:
            kept[rank].add(candidate.index)
            budget -= len(candidate.text)
    for _, rank, candidate in ranked:
        if candidate.index in kept[rank]:
            continue
        extra = len(candidate.text) + 1
        if extra > budget:
            continue
        budget -= extra
        kept[rank].add(candidate.index)
    return tuple(
        replace(passage, text=_join(passage, group, chosen)) if group else passage
        for passage, group, chosen in zip(passages, groups, kept, strict=True)
    )


def count_passage_tokens(passages: Sequence[Passage]) -> int:
    return -(-sum(len(passage.text) for passage in passages) // CHARS_PER_TOKEN)


def _repeats(candidate: Candidate, seen: list[frozenset[str]]) -> bool:
    """Whether an earlier sentence says the same, by its words; a short one is never taken for another."""
    terms = candidate.terms
    return len(terms) >= 4 and any(
        len(terms & each) >= DUPLICATE_OVERLAP * len(terms | each) for each in seen
    )


def _join(passage: Passage, group: Sequence[Candidate], chosen: set[int]) -> str:
    """The chosen units in their order; neighbours keep what parts them, gaps become an empty line."""
    parts: list[str] = []
    previous: Candidate | None = None
    for candidate in group:
        if candidate.index not in chosen:
            continue
        if previous is not None:
            adjoins = candidate.index == previous.index + 1
            parts.append(passage.text[previous.unit.end : candidate.unit.start] if adjoins else "\n\n")
        parts.append(candidate.text)
        previous = candidate
    return "".join(parts)
