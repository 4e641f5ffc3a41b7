"""Whether two questions ask the same in other words. Strict: in doubt they do not.

A cosine near 1 cannot tell `ge-0/0/1` from `ge-0/0/2`, `allow` from `deny` or `from A to B` from `from B to A`. So every
word counts, unless ``synonyms.py`` says that it does not or that another may stand for it: two questions are the same when
they ask in the same form (how, when, why …) for the same terms, in an order that does not change the meaning.
"""

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise

from knowledge.answering.synonyms import (
    ASKS_WHETHER,
    DIRECTIONS,
    DROPPED,
    FORMS,
    FRAMES,
    HELPING,
    JOINTS,
    MODALS,
    PAST,
    PASTS,
    PREPOSITIONS,
    REWRITES,
    SOFT,
    SYNONYMS,
)

# Terms that name nothing.
OURSELVES = frozenset({"i", "we", "you", "they", "one", "it"})
ASKING = (FORMS - {"means"}) | {"what"}
LINKING = MODALS | DIRECTIONS | ASKING | {"not", "no", "or", "because"}
NOTHING = DROPPED | PAST | {",", "means"}
# A question that says less is too open: what it is about, one knows from what came before.
FEWEST_TERMS = 2
# A soft word is left out where so many others remain.
ENOUGH_TERMS = 3
# In longer questions nothing may move: there are too many ways to try.
MOST_TERMS = 30
SHORTEST_MISTYPED = 5
MOST_MISTYPED = 2

_CONTRACTIONS = tuple(
    (re.compile(pattern), then)
    for pattern, then in (
        (r"\bcan't\b|\bcannot\b", "can not"), (r"\bwon't\b", "will not"), (r"\bmustn't\b", "must not"), (r"n't\b", " not"),
        (r"\b(what|who|where|when|how|why|that|there|it|here)'s\b", r"\1 is"), (r"'re\b", " are"), (r"'m\b", " am"),
        (r"'ve\b", " have"), (r"'ll\b", " will"), (r"'d\b", " would"), (r"'s\b|'(?=\s|$)", ""), (r"(?<=\d),(?=\d{3}\b)", ""),
    )
)  # fmt: skip
# Names that look like words of no meaning: wave A, the IT department.
_NAMES = re.compile(r"(?<=[\w,] )(A|IT|US|OR|AND|NO|SO|AM|AS|AT|ON|BE)\b(?=[\s?.,!]|$)")
_TOKEN = re.compile(r"\w+(?:[-./:_@+#]+\w+)*#?|,")
_VOWEL = re.compile(r"[aeiouy]")
_PLURAL_LIKE = frozenset(
    re.findall(r"\S+", "https sftps ldaps ftps ips qos dns nas tls ios wms axis redis always news")
)


@dataclass(frozen=True)
class Wording:
    """What a question asks.

    Attributes:
        forms: of the question, as `why` or `howmany`, sorted; none: what or which; `whether`: yes or no.
        order: its terms as they come, each once; `what` for what and which, and what asks in another form, are among them,
            since `who pays Telvia` and `who does Telvia pay` differ in order alone.
        repeated: those that come more than once.
        starts: where in ``order`` a part begins: behind a preposition, a conjunction or a comma.
        led: those of them behind a preposition that has no meaning of its own.
        owned: those of them behind `of`.
        directions: words such as `from`, each with the term behind it.
        has_subject: whether `do` stands before somebody who does it, other than ourselves.
    """

    forms: tuple[str, ...]
    order: tuple[str, ...]
    repeated: frozenset[str]
    starts: frozenset[int]
    led: frozenset[int]
    owned: frozenset[int]
    directions: frozenset[tuple[str, str]]
    has_subject: bool


def same_question(one: str, other: str) -> bool:
    """Whether both ask the same."""
    return same_wording(read_wording(one), read_wording(other))


def same_wording(one: Wording, other: Wording) -> bool:
    if one.forms != other.forms or not (_says_enough(one) and _says_enough(other)):
        return False
    mistyped = _mistyped(set(one.order), set(other.order))
    if mistyped is None:
        return False
    if mistyped:
        one = replace(
            one,
            order=tuple(mistyped.get(term, term) for term in one.order),
            directions=frozenset((word, mistyped.get(term, term)) for word, term in one.directions),
        )
    if one.directions != other.directions or one.repeated != other.repeated:
        return False
    heads, others = _heads(one), _heads(other)
    if any(heads[part] != others[part] for part in heads.keys() & others.keys()):
        return False  # a host of the guest network, the office of the guest network
    if one.has_subject == other.has_subject and _parts(one) == _parts(other):
        return True
    return _is_moved(one, other) or _is_moved(other, one)


def _says_enough(wording: Wording) -> bool:
    telling = [term for term in wording.order if term not in LINKING]
    return len(telling) >= FEWEST_TERMS or any(
        any(map(str.isdigit, term)) and not term.isdigit() for term in telling
    )


def _parts(wording: Wording) -> frozenset[tuple[str, ...]]:
    cuts = sorted({0, len(wording.order), *wording.starts})
    return frozenset((*("of",) * (a in wording.owned), *wording.order[a:b]) for a, b in pairwise(cuts))


def _heads(wording: Wording) -> dict[str, str]:
    """The terms that stand behind prepositions, each with the one before."""
    return {wording.order[at]: wording.order[at - 1] for at in wording.led if at}


def _is_moved(one: Wording, other: Wording) -> bool:
    """Whether ``other`` has the order of ``one`` with a part turned or moved that may be.

    `limit of a session` may become `session limit`; what stands behind a preposition, or the end of the question, may come
    first: `on core-1, what is …`. Not both, since what comes first may have belonged to one thing or the other.
    """
    asked, order = one.order, _plain(one.order)
    if order == _plain(other.order) or len(order) > MOST_TERMS:
        return order == _plain(other.order)
    for start, part, rest in _led_parts(one):
        if start not in one.owned and _plain(part + asked[:start] + rest) == _plain(other.order):
            return True
    count = len(other.order)
    for cut in range(count):
        rotated = other.order[cut:] + other.order[:cut]
        if cut and cut not in other.owned and _plain(rotated) == order:
            return True
        starts = {(at - cut) % count for at in (*other.starts, 0)}
        may_turn = one.has_subject == other.has_subject and cut not in other.led
        if may_turn and _is_turned(one, rotated, starts):
            return True
    return False


def _is_turned(wording: Wording, order: tuple[str, ...], starts: set[int]) -> bool:
    """Whether an order has one part before what it belongs to, with no start between the two."""
    asked = wording.order
    for start, part, rest in _led_parts(wording):
        head = max((at for at in wording.starts if at < start), default=0)
        for at in range(head + (asked[head] in ASKING), start):
            inner = range(at + 1, at + len(part) + start - at)
            if asked[:at] + part + asked[at:start] + rest == order and starts.isdisjoint(inner):
                return MODALS.isdisjoint(asked[at:start])
    return False


def _led_parts(wording: Wording) -> Iterator[tuple[int, tuple[str, ...], tuple[str, ...]]]:
    """Where what stands behind a preposition begins, that, however long it is, and the terms behind it."""
    cuts = sorted({*wording.starts, len(wording.order)})
    for start in wording.led:
        for end in range(start + 1, next(cut for cut in cuts if cut > start) + 1):
            yield start, wording.order[start:end], wording.order[end:]


def _plain(order: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(term for term in order if term not in MODALS)


def _mistyped(one: set[str], other: set[str]) -> dict[str, str] | None:
    """Terms of one question by those of the other that they were meant to be; ``None`` where other terms differ."""
    ours, theirs = sorted(one - other), sorted(other - one)
    if len(ours) != len(theirs) or len(ours) > MOST_MISTYPED:
        return None
    meant: dict[str, str] = {}
    for term in ours:
        found = [each for each in theirs if is_slip(term, each)]
        if len(found) != 1 or found[0] in meant.values():
            return None
        meant[term] = found[0]
    return meant


def is_slip(one: str, other: str) -> bool:
    """Whether two words are one with a slip of the fingers: two letters that changed places, or one of a double letter left
    out or added, inside a long word. A letter that is another one, is missing or at an end makes another word too easily:
    `filer` is no `filter`, and no `contact` a `contract`."""
    if (
        one == other
        or min(len(one), len(other)) < SHORTEST_MISTYPED
        or not (one.isalpha() and other.isalpha())
    ):
        return False
    if one[0] != other[0] or one[-1] != other[-1]:
        return False
    differ = (place for place, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    at = next(differ, min(len(one), len(other)))
    if len(one) == len(other):
        return one[at + 1 :: -1][:2] == other[at : at + 2] and one[at + 2 :] == other[at + 2 :]
    short, long = sorted((one, other), key=len)
    return long[at] == long[at - 1] and long[:at] + long[at + 1 :] == short


@lru_cache(maxsize=4096)
def read_wording(question: str) -> Wording:
    """What a question asks, as ``same_wording`` compares it."""
    text = " ".join(unicodedata.normalize("NFKC", question).replace("’", "'").split()).rstrip(" ?!.")
    before = ""
    while before != text:
        before, text = text, FRAMES.sub("", text)
    if not text.isupper():
        text = _NAMES.sub(r"\1#", text)
    text = text.casefold()
    for pattern, then in _CONTRACTIONS:
        text = pattern.sub(then, text)
    asks_whether = ASKS_WHETHER.match(text) is not None
    said = re.findall(r"[a-z]+", text)
    is_past = not PAST.isdisjoint(said)
    if HELPING.isdisjoint(said):  # who approved it
        is_past = any(word in PASTS or (len(word) > 4 and word.endswith("ed")) for word in said)
    for pattern, then in REWRITES:
        text = pattern.sub(then, text)
    forms = ["whether"] if asks_whether else []
    tokens = _words(text)
    is_past = is_past or not PAST.isdisjoint(tokens)
    if tokens and tokens[-1] in DIRECTIONS:  # which range is it moved to: to which range
        asked = next(
            (at for at, token in enumerate(tokens) if token in FORMS or _term_of(token) == "what"), None
        )
        if asked is not None:
            tokens.insert(asked, tokens.pop())
    terms = [_term_of(token) for token in tokens]
    soft = [token in SOFT and _is_soft(SOFT[token], tokens) for token in tokens]
    says_enough = (
        len({term for term, can_go in zip(terms, soft, strict=True) if not can_go} - ASKING - {""})
        >= ENOUGH_TERMS
    )
    # A few words are a question for what they name.
    order = [] if forms or not ASKING.isdisjoint(terms) else ["what"]
    repeated: set[str] = set()
    starts, led, owned, directions = set(), set(), set(), set()
    direction = ""
    for token, term, can_go in zip(tokens, terms, soft, strict=True):
        if token in JOINTS or token in FORMS:
            starts.add(len(order))
            if token in PREPOSITIONS:
                led.add(len(order))
                if token == "of":  # noqa: S105  a word
                    owned.add(len(order))
        if token in FORMS:
            forms.append(token)
        if not term or (says_enough and can_go):
            continue
        if direction:
            directions.add((direction, term))
        direction = term if term in DIRECTIONS else ""
        if term in order:
            repeated.add(term)
        else:
            order.append(term)
    if direction:
        directions.add((direction, ""))
    return Wording(
        forms=tuple(sorted([*forms, *(["past"] if is_past else [])])),
        order=tuple(order),
        repeated=frozenset(repeated),
        starts=frozenset(at for at in starts if at < len(order)),
        led=frozenset(at for at in led if at < len(order)),
        owned=frozenset(owned),
        directions=frozenset(directions),
        has_subject=any(
            token in ("do", "does", "did") and then not in OURSELVES for token, then in pairwise(tokens)
        ),
    )


def _is_soft(forms: str, tokens: Sequence[str]) -> bool:
    """Whether a soft word may go in a question of these tokens."""
    if forms == "which":
        return FORMS.isdisjoint(tokens)
    return not forms or not set(forms.split()).isdisjoint(tokens)


def _term_of(token: str) -> str:
    """What counts of a word; nothing of one without a meaning of its own."""
    if token in ("what", "which"):
        return "what"
    if token in NOTHING:
        return ""
    if token in FORMS:
        return token
    word = token if any(map(str.isdigit, token)) else inflect(token)
    return _STANDS_FOR.get(token) or _STANDS_FOR.get(word, word)


def _words(text: str) -> list[str]:
    words: list[str] = []
    for token in _TOKEN.findall(text):
        has_digit = any(map(str.isdigit, token))
        words += [token] if has_digit or token.endswith("#") else re.findall(r"[^\W_]+|,", token)
    return words


def inflect(word: str) -> str:
    """A word without the ending of its inflection, and of nothing else: `routes`, `routed` and `routing` agree, `router` and
    `routable` do not."""
    if len(word) <= 3 or word in _PLURAL_LIKE or word.endswith(("ss", "us", "is")):
        return word
    if word.endswith("ies"):
        return word[:-3] + "y"
    for ending in ("ing", "ed"):
        base = word[: -len(ending)]
        if word.endswith(ending) and len(base) >= 3 and _VOWEL.search(base) and not word.endswith("eed"):
            if base[-1] == base[-2] and base[-1] not in "lsz":
                base = base[:-1]
            return base.removesuffix("e")
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    return word.removesuffix("s").removesuffix("e") if len(word) > 4 else word.removesuffix("s")


_STANDS_FOR = {each: inflect(first) for word, first in SYNONYMS.items() for each in (word, inflect(word))}
