"""The answerer without a language model: quotes the sentences, lines and tables that answer a question.

Units are scored by the question's terms that they hold, weighted by inverse document frequency over the
passages given (Robertson and Spärck Jones' idf), with what their heading, title and neighbours add, their
passage's rank, and the cosine of their embedding where an embedder is given.
"""

import asyncio
import math
import re
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from knowledge.llm.base import (
    BlockEnd,
    Cited,
    Finished,
    ModelConfig,
    Passage,
    Prompt,
    ProviderError,
    ProviderEvent,
    TextDelta,
    Usage,
)
from knowledge.llm.rendering import Candidate, render_blocks
from knowledge.llm.sentences import Unit, split_units
from knowledge.llm.terms import extract_terms, is_identifier

NOTICE = "No language model is configured, so this answer quotes your documents word for word."

UNCONFIRMED = "Your documents do not mention {}. The nearest that they say:\n\n"

MAX_UNITS = 5
MAX_WORDS = 150
# A list, table or stanza that has been begun is finished rather than cut, up to this many words in all.
HARD_WORDS = 190
LIST_ITEMS = 8
# Embedding every sentence would cost more than it finds: these are embedded, best lexical score first.
EMBEDDED_UNITS = 12

IDENTIFIER_WEIGHT = 2.5
# What the title or heading says holds for every sentence below it, whether or not a sentence repeats it.
CONTEXT_SHARE = 0.6
REPEATED_SHARE = 0.8
PASSAGE_SHARE = 0.4
NEIGHBOUR_SHARE = 0.2
RANK_DECAY = 0.12
COSINE_SHARE = 0.4
DUPLICATE_OVERLAP = 0.8

_DANGLING = re.compile(
    r"(?:it|its|this|these|those|they|their|them|that|he|she|such|however|therefore|thus|also|otherwise|instead|"
    r"both|then|in that case|as a result|for this reason|"
    r"er|sie|dies|diese|dieser|dieses|dabei|dann|deshalb|daher)\b",
    re.IGNORECASE,
)
_PROCEDURE = re.compile(
    r"\b(?:how (?:do|to|can|should|would)|steps?|procedure|process|runbook|wie)\b", re.IGNORECASE
)
_CODE = re.compile(
    r"\b(?:commands?|config\w*|cli|syntax|snippet|example|script|befehle?|konfig\w*)\b", re.IGNORECASE
)
# "Owner: Network Architecture", "Status: approved": a document's data about itself.
_METADATA = re.compile(r"[A-Z][\w ]{2,24}: \S+(?: \S+){0,5}$")
# A question that asks for a kind of thing is better answered by a sentence that holds one.
_EXPECTED: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = (
    (
        re.compile(
            r"\b(?:how (?:many|much|long|often|large|big|fast|old)|when|which (?:port|vlan|asn?|version)|"
            r"timers?|mtu|threshold|limit|value|wie (?:viele|lange|oft)|wann)\b",
            re.IGNORECASE,
        ),
        re.compile(r"\d"),
    ),
    (
        re.compile(r"\b(?:why|cause[ds]?|reason|warum|ursache)\b", re.IGNORECASE),
        re.compile(
            r"\b(?:because|caus\w+|due to|reason|since|triggered|ursache|weil|wegen)\b", re.IGNORECASE
        ),
    ),
    (
        re.compile(r"\b(?:who|whom|contact|escalat\w+|wer|wen)\b", re.IGNORECASE),
        re.compile(r"\b(?:team|on-call|owner|manager|lead|contact|escalat\w+)\b|@", re.IGNORECASE),
    ),
)

Embed = Callable[[Sequence[str]], Awaitable["np.ndarray"]]


@dataclass
class _Selection:
    """What has been chosen so far, by passage and position, and how many words that makes."""

    chosen: dict[tuple[int, int], Candidate] = field(default_factory=dict)
    words: int = 0

    def add(self, candidate: Candidate, *, limit: int) -> bool:
        key = (candidate.passage.n, candidate.index)
        if key in self.chosen:
            return True
        if self.chosen and self.words + candidate.words > limit:
            return False
        self.chosen[key] = candidate
        self.words += candidate.words
        return True


class ExtractiveProvider:
    """Quotes the passages; needs no network and costs nothing.

    Args:
        embed: maps texts to rows of float32, L2-normalised, one a text; without it only words count.
    """

    name = "extractive"

    def __init__(self, *, embed: Embed | None = None) -> None:
        self._embed = embed

    async def stream(self, prompt: Prompt, *, config: ModelConfig) -> AsyncGenerator[ProviderEvent, None]:
        # Tens of milliseconds of counting words: other requests' streams shall not wait for it.
        units = await asyncio.to_thread(_collect_scored, prompt)
        everything = [candidate for group in units for candidate in group]
        if self._embed is not None and everything:
            await _blend_cosine(prompt.question, everything, self._embed)
        selection = select_candidates(prompt.question, units)
        if selection and prompt.unconfirmed:
            yield TextDelta(UNCONFIRMED.format(", ".join(prompt.unconfirmed)))
            yield BlockEnd()
        for block in render_blocks(selection):
            yield TextDelta(block.text)
            yield Cited(source=block.source, quote=block.quote)
            yield BlockEnd()
        yield Finished(
            model="extractive",
            stop_reason="end_turn" if selection else "empty",
            usage=Usage(),
            provider=self.name,
        )

    async def complete(self, *, system: str, text: str, config: ModelConfig) -> tuple[str, Finished]:
        raise ProviderError("Quoting the documents completes nothing; ask a language model.", permanent=True)

    async def close(self) -> None:
        """Nothing is held open."""


def _collect_scored(prompt: Prompt) -> list[list[Candidate]]:
    units = [collect_candidates(passage) for passage in prompt.shown]
    score_candidates(prompt.question, units)
    return units


def collect_candidates(passage: Passage) -> list[Candidate]:
    """The units of a passage in their order, headings included: they give context to what follows them."""
    about = frozenset(extract_terms(f"{passage.title} {passage.heading}"))
    heading: frozenset[str] = frozenset()
    opening: frozenset[str] = frozenset()
    opened_by: Unit | None = None
    candidates = []
    for index, unit in enumerate(split_units(passage.text)):
        terms = frozenset(extract_terms(passage.text[unit.start : unit.end]))
        if unit.kind == "heading":
            heading = terms
        if unit.lead:
            opened_by, opening = unit, terms
        context = about | heading | frozenset(extract_terms(" ".join(unit.above)))
        if (
            opened_by is not None
            and unit.kind in ("item", "row")
            and unit.paragraph - opened_by.paragraph <= 1
        ):
            context |= opening
        candidates.append(Candidate(passage, unit, index, terms, context))
    return candidates


def score_candidates(question: str, units: Sequence[Sequence[Candidate]]) -> None:
    """Sets each candidate's lexical score: the share of the question's weight that it covers."""
    everything = [candidate for group in units for candidate in group]
    frequency = Counter(term for candidate in everything for term in candidate.terms)
    named = frozenset(term for candidate in everything for term in candidate.context)
    weights: dict[str, float] = {}
    for term in dict.fromkeys(extract_terms(question)):
        if term in frequency or term in named:
            df = frequency[term]
            idf = math.log(1 + (len(everything) - df + 0.5) / (df + 0.5))
            plain_number = term.isdigit() and len(term) < 3
            weights[term] = idf * (IDENTIFIER_WEIGHT if is_identifier(term) and not plain_number else 1.0)
    total = sum(weights.values())
    if not total:
        return
    identifiers = frozenset(term for term in weights if is_identifier(term))
    procedure = bool(_PROCEDURE.search(question))
    wants_code = bool(_CODE.search(question))
    expected = [answer for asks, answer in _EXPECTED if asks.search(question)]
    for rank, group in enumerate(units):
        inside = frozenset[str]().union(*(c.terms | c.context for c in group))
        whole = sum(weight for term, weight in weights.items() if term in inside) / total
        passage_factor = (1 - PASSAGE_SHARE + PASSAGE_SHARE * whole) / (1 + RANK_DECAY * rank)
        for position, candidate in enumerate(group):
            near: set[str] = set()
            for other in group[max(0, position - 1) : position + 2]:
                if other.unit.paragraph == candidate.unit.paragraph:
                    near |= other.terms
            score = 0.0
            for term, weight in weights.items():
                if term in candidate.context:
                    repeated = term in candidate.terms and not is_identifier(term)
                    score += weight * (REPEATED_SHARE if repeated else CONTEXT_SHARE)
                elif term in candidate.terms:
                    score += weight
                elif term in near:
                    score += NEIGHBOUR_SHARE * weight
            if not candidate.terms & weights.keys():
                score *= 0.5
            if identifiers and not identifiers & (candidate.terms | candidate.context):
                # Asked for ERR-4711, its neighbour ERR-4712 is wrong however much it looks alike.
                score *= 0.6
            candidate.score = score / total * _shape_factor(candidate) * passage_factor
            if candidate.score and any(answer.search(candidate.text) for answer in expected):
                candidate.score *= 1.2
            if procedure and candidate.unit.kind == "item":
                candidate.score *= 1.15
            if candidate.unit.kind == "code" and not (procedure or wants_code):
                # Configuration proves what prose explains: where both answer, the prose comes first.
                candidate.score *= 0.8


def _shape_factor(candidate: Candidate) -> float:
    unit = candidate.unit
    if unit.kind == "heading" or (unit.kind == "row" and unit.lead):
        return 0.0
    if unit.kind == "sentence" and candidate.text.endswith("?"):
        return 0.4
    if unit.lead:
        return 0.8
    if unit.kind == "code" and all(line.lstrip()[:1] in ("!", "#") for line in candidate.text.splitlines()):
        return 0.6
    if unit.kind == "sentence" and (len(candidate.terms) < 3 or _METADATA.match(candidate.text)):
        return 0.7
    return 0.9 if unit.kind == "sentence" and candidate.words > 50 else 1.0


async def _blend_cosine(question: str, candidates: list[Candidate], embed: Embed) -> None:
    shown = [c for c in candidates if c.unit.kind != "heading"]
    shown.sort(key=lambda c: -c.score)
    shown = shown[:EMBEDDED_UNITS]
    texts = [f"{c.passage.title} {c.passage.heading}: {c.text}" for c in shown]
    vectors = np.asarray(await embed([question, *texts]), dtype=np.float32)
    cosines = vectors[1:] @ vectors[0]
    for candidate in candidates:
        candidate.score *= 1 - COSINE_SHARE
    for candidate, cosine in zip(shown, cosines, strict=True):
        candidate.score += COSINE_SHARE * max(0.0, float(cosine)) * _shape_factor(candidate)


def select_candidates(question: str, units: Sequence[Sequence[Candidate]]) -> list[Candidate]:
    """Chooses what to quote, the best passage first and in document order inside a passage."""
    ranked = sorted((c for group in units for c in group if c.score > 0), key=lambda c: -c.score)
    if not ranked:
        # No word in common: the passages were found by their meaning, so the best one's beginning is shown.
        ranked = [c for group in units[:1] for c in group if _shape_factor(c) > 0][:2]
    if not ranked:
        return []
    groups = {group[0].passage.n: group for group in units if group}
    asked = frozenset(extract_terms(question))
    procedure = bool(_PROCEDURE.search(question))
    selection = _Selection()
    covered: set[str] = set()
    picked: list[Candidate] = []
    for candidate in ranked:
        if len(picked) >= MAX_UNITS or selection.words >= MAX_WORDS:
            break
        news = (candidate.terms & asked) - covered
        if picked and candidate.score < ranked[0].score * (0.65 if news else 0.8):
            continue
        if candidate.unit.kind == "code" and not news and picked and candidate.text.count("\n") > 1:
            # Configuration repeats itself: the second stanza of a kind says nothing that the first did not.
            continue
        if any(_overlap(candidate, other) > DUPLICATE_OVERLAP for other in picked):
            continue
        group = groups[candidate.passage.n]
        if not _add_with_opening(selection, candidate, group, first=not picked):
            continue
        picked.append(candidate)
        covered |= candidate.terms & asked
        _add_rest_of_list(selection, candidate, group, procedure=procedure)
    _add_elaboration(selection, picked[0], groups[picked[0].passage.n])
    order = {n: i for i, n in enumerate(dict.fromkeys(c.passage.n for c in picked))}
    return sorted(selection.chosen.values(), key=lambda c: (order[c.passage.n], c.index))


def _overlap(one: Candidate, other: Candidate) -> float:
    both = len(one.terms | other.terms)
    return len(one.terms & other.terms) / both if both else 0.0


def _add_with_opening(
    selection: _Selection, candidate: Candidate, group: Sequence[Candidate], *, first: bool
) -> bool:
    """Adds a unit with what it cannot be read without: the sentence before an "It", a list's opening line."""
    opening: Candidate | None = None
    if (
        candidate.index
        and candidate.unit.kind == "sentence"
        and _DANGLING.match(candidate.text.lstrip("*_`"))
    ):
        before = group[candidate.index - 1]
        if before.unit.paragraph == candidate.unit.paragraph and before.unit.kind == "sentence":
            opening = before
        elif not first:
            return False
    elif candidate.unit.kind in ("item", "row"):
        opening = _find_lead(candidate, group)
    extra = opening.words if opening is not None else 0
    if not first and selection.words + candidate.words + extra > MAX_WORDS:
        return False
    if opening is not None:
        selection.add(opening, limit=HARD_WORDS)
    return selection.add(candidate, limit=HARD_WORDS)


def _find_lead(candidate: Candidate, group: Sequence[Candidate]) -> Candidate | None:
    """The line that opens the list or table of `candidate`, if there is one."""
    index = candidate.index - 1
    while index >= 0 and group[index].unit.kind == candidate.unit.kind:
        if group[index].unit.lead and candidate.unit.kind == "row":
            return group[index]
        index -= 1
    lead = group[index] if index >= 0 else None
    near = lead is not None and lead.unit.lead and group[index + 1].unit.paragraph - lead.unit.paragraph <= 1
    return lead if near else None


def _add_rest_of_list(
    selection: _Selection, candidate: Candidate, group: Sequence[Candidate], *, procedure: bool
) -> None:
    """Finishes what a chosen line has begun: the list after its opening, or all steps of a procedure."""
    if candidate.unit.lead and candidate.unit.kind != "row":
        start = candidate.index + 1
    elif candidate.unit.kind == "item" and procedure:
        start = candidate.index
        while start and group[start - 1].unit.kind == "item":
            start -= 1
    else:
        return
    if start >= len(group) or group[start].unit.kind not in ("item", "code", "row"):
        return
    kind = group[start].unit.kind
    for taken, follower in enumerate(group[start:]):
        if follower.unit.kind != kind or taken >= LIST_ITEMS or (kind == "code" and taken):
            break
        if not selection.add(follower, limit=HARD_WORDS):
            break


def _add_elaboration(selection: _Selection, best: Candidate, group: Sequence[Candidate]) -> None:
    """Gives a lone sentence the next one of its paragraph when that has something to say on the question."""
    after = best.index + 1
    if len(selection.chosen) > 1 or best.unit.kind != "sentence" or after >= len(group):
        return
    follower = group[after]
    if follower.unit.paragraph == best.unit.paragraph and follower.score >= 0.3 * best.score:
        selection.add(follower, limit=MAX_WORDS)
