"""From text to search terms: words by their stem, identifiers whole.

Engineers search for what no stemmer knows: ``ge-0/0/1``, ``10.1.0.0/16``, ``ERR-4711``, ``MTU 9216``, ``RFC 7938``. A
compound is kept whole and gives its telling parts too; a word with the number behind it also counts as one (``rfc7938``),
however it is spelt. A stem says what a text is about, not how it says it: so words as they are written and pairs of words
that stand together (*forms*) count as well, for less. Terms and forms are stored as CRC-32 of their text, 4 bytes each:
among 100,000 of them one in some 40,000 that are absent is taken for another.
"""

import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from functools import cache
from itertools import pairwise, zip_longest

import numpy as np
import Stemmer
from django.db import connection
from numpy.typing import NDArray

MAX_QUESTION_TERMS = 60
# What a form of the question counts, beside 1 for a term: a word as it is written, and a pair (docs/decisions/0005).
WORD_SHARE, PAIR_SHARE = 0.3, 0.25
# A chunk's terms as they are stored, one behind the other: how often in 7 bits, and whether it is a form in the eighth.
TERM = np.dtype([("hash", "<u4"), ("count", "u1")])
MAX_COUNT, FORM = 127, 128
# Of what is stored: a chunk of another one is written again when its document is indexed.
TERMS_VERSION = "2"

_TOKEN = re.compile(r"\w+(?:[-./:@+]+\w+)*")
_PIECE_ENDS = re.compile(r"[/@:]+")
_PART = re.compile(r"[^\W_]+")
# A short word and the number that goes with it: RFC 7938, MTU 9216, err-4711, vlan210.
_NUMBERED = re.compile(r"\b([^\W\d_]{2,12})[ \-_]?(\d{2,8})(?![\w:/]|\.\d)")
# Scripts that are written without blanks are searched by pairs of characters.
_UNSPACED = re.compile(r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af]+")


@cache
def stemmer_of(language: str) -> "Stemmer.Stemmer | None":
    """Snowball's stemmer of one of PostgreSQL's text search configurations; ``None`` for one that does not stem."""
    return Stemmer.Stemmer(language) if language in Stemmer.algorithms() else None


def normalise(text: str) -> str:
    """Compatibility forms made one (NFKC), upper and lower case the same."""
    return unicodedata.normalize("NFKC", text).casefold()


def _terms_of(text: str) -> Iterator[tuple[str, bool]]:
    """``(term, whether it is a plain word, to be stemmed)`` of a normalised text, repeated ones too."""
    for token in _TOKEN.findall(text):
        parts = _PART.findall(token)
        if not parts:
            continue
        if parts[0] != token:
            yield token, False
            # 10.1.0.0 of 10.1.0.0/16, the host of an address with a path or a port
            yield from (
                (piece, False)
                for piece in _PIECE_ENDS.split(token)
                if piece != token and _PART.fullmatch(piece) is None
            )
        for part in parts:
            if _UNSPACED.search(part):
                yield from ((pair, False) for pair in _pairs_of(part))
            elif len(parts) == 1 or (len(part) > 1 and part != token):
                yield part, not any(character.isdigit() for character in part)
    for word, number in _NUMBERED.findall(text):
        yield word + number, False


def _pairs_of(text: str) -> Iterator[str]:
    for run in _UNSPACED.findall(text):
        yield from (run[place : place + 2] for place in range(max(1, len(run) - 1)))
    for rest in _UNSPACED.split(text):
        if rest:
            yield rest


def count_terms(text: str, *, language: str) -> Counter[str]:
    """The terms of a text with how often each occurs.

    Args:
        language: a ``Collection.Language``; words are stemmed by its Snowball algorithm, ``simple`` by none.
    """
    stemmer = stemmer_of(language)
    counts: Counter[str] = Counter()
    plain: Counter[str] = Counter()
    for term, is_word in _terms_of(normalise(text)):
        (plain if is_word and stemmer else counts)[term] += 1
    if stemmer and plain:
        words = list(plain)
        for word, stem in zip(words, stemmer.stemWords(words), strict=True):
            counts[stem] += plain[word]
    return counts


def hash_term(term: str) -> int:
    return zlib.crc32(term.encode("utf-8", "surrogatepass"))


def chunk_words(title: str, heading_path: Sequence[str], text: str) -> str:
    """What a chunk is found by, in one text."""
    return "\n".join([title, *heading_path, text])


def _units_of(text: str) -> Iterator[str]:
    """What stands beside what in a normalised text: words, and whatever holds a digit whole; scripts without blanks have
    their pairs of characters already."""
    for token in _TOKEN.findall(text):
        if any(character.isdigit() for character in token):
            yield token
        elif not _UNSPACED.search(token):
            yield from _PART.findall(token)


def count_forms(texts: Sequence[str], *, language: str) -> list[Counter[str]]:
    """The forms of texts with how often each occurs: words as they are written (``=routes``) and pairs of stems that stand
    together (``rout reflector``), whatever stop words are between them."""
    of_texts = [list(_units_of(normalise(text))) for text in texts]
    stemmer = stemmer_of(language)
    words = list(dict.fromkeys(word for units in of_texts for word in units))
    plain = [word for word in words if len(word) <= _LONGEST_STOP_WORD and word.isalpha()]
    dropped = _find_stop_words(plain, language=language) if stemmer and plain else set()
    stems = dict(zip(words, stemmer.stemWords(words) if stemmer else words, strict=True))
    counted = []
    for units in of_texts:
        kept = [word for word in units if word not in dropped]
        forms = Counter("=" + word for word in kept)
        forms.update(f"{stems[one]} {stems[other]}" for one, other in pairwise(kept))
        counted.append(forms)
    return counted


def pack_texts(texts: Sequence[str], *, language: str) -> list[bytes]:
    """``Chunk.terms`` of chunks that are found by these texts."""
    forms = count_forms(texts, language=language)
    return [
        pack_terms(count_terms(text, language=language), forms=each)
        for text, each in zip(texts, forms, strict=True)
    ]


def pack_terms(counts: Mapping[str, int], *, forms: Mapping[str, int] | None = None) -> bytes:
    """Terms, and forms, as ``Chunk.terms`` keeps them."""
    every = [*counts.items(), *(forms or {}).items()]
    packed = np.zeros(len(every), dtype=TERM)
    packed["hash"] = [hash_term(term) for term, _ in every]
    packed["count"] = [min(count, MAX_COUNT) for _, count in every]
    packed["count"][len(counts) :] |= FORM
    return packed.tobytes()


def unpack_terms(blobs: Iterable[bytes]) -> NDArray[np.void]:
    """The terms of many chunks, one behind the other; dtype ``TERM``."""
    return np.frombuffer(b"".join(blobs), dtype=TERM)


# What is longer need not be asked for: no stop list of PostgreSQL's has such a word.
_LONGEST_STOP_WORD = 15
_stop_words: dict[tuple[str, str], bool] = {}


def _find_stop_words(words: Sequence[str], *, language: str) -> set[str]:
    """Those of the words that PostgreSQL's stop list of the language holds; remembered by the process."""
    unknown = [word for word in words if (language, word) not in _stop_words]
    if unknown:
        if len(_stop_words) > 100_000:
            _stop_words.clear()
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT word FROM unnest(%s::text[]) word WHERE ts_lexize(%s::regdictionary, word) = '{}'",
                [unknown, f"{language}_stem"],
            )
            found = {row[0] for row in cursor.fetchall()}
        _stop_words.update({(language, word): word in found for word in unknown})
    return {word for word in words if _stop_words[language, word]}


def question_terms(question: str, *, languages: Iterable[str]) -> dict[str, int]:
    """The terms of a question, with how often each occurs, in every language that the tenant's documents are in, without
    stop words: a long question says its subject more than once. Of more than are looked for the identifiers come first,
    and every language has its share.
    """
    text = normalise(question)
    plain: Counter[str] = Counter()
    found: dict[str, int] = {}
    for term, is_word in _terms_of(text):
        if is_word:
            plain[term] += 1
        else:
            found[term] = found.get(term, 0) + 1
    words = list(plain)
    stems: dict[str, int] = {}
    orders: list[list[str]] = []
    for language in languages:
        stemmer = stemmer_of(language)
        dropped = _find_stop_words(words, language=language) if stemmer and words else set()
        kept = [word for word in words if word not in dropped]
        of_language: Counter[str] = Counter()
        for word, stem in zip(kept, stemmer.stemWords(kept) if stemmer else kept, strict=True):
            of_language[stem] += plain[word]
        stems |= {stem: max(count, stems.get(stem, 0)) for stem, count in of_language.items()}
        orders.append(list(of_language))
    in_turn = dict.fromkeys(stem for each in zip_longest(*orders) for stem in each if stem is not None)
    every = [*found.items(), *((stem, stems[stem]) for stem in in_turn)]
    return dict(every[: MAX_QUESTION_TERMS * _shares(len(orders))])


def question_forms(question: str, *, languages: Iterable[str]) -> dict[str, float]:
    """The forms of a question with what each counts, in every language that the tenant's documents are in."""
    weights: dict[str, float] = {}
    known = list(languages)
    for language in known:
        for form, times in count_forms([question], language=language)[0].items():
            share = WORD_SHARE if form.startswith("=") else PAIR_SHARE
            weights[form] = max(share * times, weights.get(form, 0))
    return dict(list(weights.items())[: 2 * MAX_QUESTION_TERMS * _shares(len(known))])


def _shares(languages: int) -> int:
    """How many languages' terms there is room for: most words have the same stem in several."""
    return min(max(1, languages), 3)


def find_terms(text: str, *, terms: Container[str], language: str) -> list[tuple[int, int]]:
    """Where a text holds one of these terms: ``(start, end)`` of whole words, in characters, in order, none twice."""
    spans = [match.span() for match in _NUMBERED.finditer(text) if normalise(match[1] + match[2]) in terms]
    spans += [
        match.span()
        for match in _TOKEN.finditer(text)
        if any(term in terms for term in count_terms(match[0], language=language))
    ]
    found: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if found and start < found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found
