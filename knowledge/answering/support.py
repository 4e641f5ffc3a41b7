"""Whether a sentence of an answer says what its passages say: by its words, numbers and names, without a model.

It finds what is made up or mixed up, not what is wrongly understood: a sentence of the passage's own words in another order
passes.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from knowledge.llm.sentences import split_sentences
from knowledge.llm.terms import extract_terms, is_identifier

Reason: TypeAlias = Literal["unsupported", "names", "negation", "cut_off"]

# Of a sentence's words, so many must stand in what it is said to rest on. Set on the answers of the demo data's questions:
# true sentences in a model's own words share 60 % and more, sentences moved to another passage 30 % and less.
SHARED_WORDS = 0.45
FEWEST_WORDS = 3
NEAR_WORDS = 0.8

_NEGATION = re.compile(
    r"\b(?:not|no|never|without|cannot|neither|nor|nicht|kein\w*|nie(?:mals)?|ohne)\b|n't\b", re.IGNORECASE
)
_NOTHING_FOUND = re.compile(
    r"\b(?:documents?|passages?|sources?|dokument\w*|quellen?)\b[^.]{0,60}\b(?:do(?:es)? not|don't|doesn't|no|nothing|"
    r"not|kein\w*|nicht|nichts)\b|\bnot (?:mentioned|stated|specified|documented|covered)\b",
    re.IGNORECASE,
)
_FUNCTION_WORDS = {
    name: frozenset(re.findall(r"\w+", words))
    for name, words in {
        "en": "the is are of and to in on for with must be by at it that this from",
        "de": "der die das ist sind und zu mit auf für von den dem im ein eine wird nicht",
    }.items()
}
_WORD = re.compile(r"[^\W\d_]+")


@dataclass(frozen=True)
class Evidence:
    """A passage made comparable."""

    terms: frozenset[str]
    sentences: tuple[tuple[frozenset[str], bool], ...]  # terms, and whether it denies something
    language: str


def read_evidence(text: str) -> Evidence:
    sentences = []
    for start, end in split_sentences(text):
        sentence = text[start:end]
        sentences.append((frozenset(extract_terms(sentence)), bool(_NEGATION.search(sentence))))
    terms = frozenset[str]().union(*(terms for terms, _ in sentences))
    return Evidence(terms=terms, sentences=tuple(sentences), language=guess_language(text))


def guess_language(text: str) -> str:
    """`en`, `de` or an empty string, by the commonest words."""
    words = [word.lower() for word in _WORD.findall(text)]
    counts = {name: sum(word in known for word in words) for name, known in _FUNCTION_WORDS.items()}
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else ""


def is_claim(sentence: str) -> bool:
    """Whether a sentence says something that needs a source: no heading, no opening of a list, no “not found”."""
    shown = sentence.strip().rstrip("*_ ")
    if not shown or shown.startswith("#") or shown.endswith((":", "?")) or _NOTHING_FOUND.search(shown):
        return False
    return len(set(extract_terms(shown))) >= FEWEST_WORDS


def judge_sentence(sentence: str, *, evidence: Sequence[Evidence], known: frozenset[str]) -> Reason | None:
    """What is wrong with a sentence that rests on `evidence`; None where nothing is.

    Args:
        known: terms that it may use without a source: those of the question, of titles and headings.
    """
    terms = set(extract_terms(sentence))
    held = frozenset[str]().union(*(each.terms for each in evidence))
    if any(is_identifier(term) and term not in held and term not in known for term in terms):
        return "names"
    language = guess_language(sentence)
    if language and all(each.language and each.language != language for each in evidence):
        return None  # in another language only names and numbers can be compared
    own = {term for term in terms if term not in known} or terms
    if len(own) >= FEWEST_WORDS and len(own & held) < SHARED_WORDS * len(own):
        return "unsupported"
    return "negation" if _is_denied(terms, sentence, evidence) else None


def _is_denied(terms: set[str], sentence: str, evidence: Sequence[Evidence]) -> bool:
    """It has nearly all words of a sentence of its passages, and no other, but denies what that says, or the reverse."""
    if len(terms) < FEWEST_WORDS:
        return False
    denies = bool(_NEGATION.search(sentence))
    near = [
        negated
        for each in evidence
        for words, negated in each.sentences
        if words and len(terms & words) >= NEAR_WORDS * len(terms | words)
    ]
    return bool(near) and all(negated != denies for negated in near)
