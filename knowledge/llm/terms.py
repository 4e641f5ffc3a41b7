"""Words of technical text made comparable: identifiers kept whole, plain words cut to a light stem."""

import re
from functools import lru_cache

_TOKEN = re.compile(r"[^\W_]+(?:[./:_@\-][^\W_]+)*")
_DIGIT = re.compile(r"\d")
_PIECE = re.compile(r"[./:_@\-]")

STOPWORDS = frozenset(
    re.findall(
        r"\S+",
        "a about above after again all also am an and any are as at be because been before being below "
        "between both but by can could did do does doing done down during each else few for from "
        "further get give got had has have having he her here hers him his how i if in into is it its "
        "just let like make many may me might more most much must my need no nor not now of off on once "
        "one only or other our out over own per please same shall she should show so some such tell "
        "than that the their them then there these they this those through to too under until up us use "
        "used uses using very via want was way we were what when where whether which while who whom "
        "whose why will with within without would you your explain describe list mean means aber als "
        "auch auf aus bei bin bis das dass dem den der des die doch ein eine einem einen einer eines er "
        "es für hat haben ich im ist ja kann man mit muss nach nicht noch nur ob oder sich sie sind "
        "über um und uns unser vom von vor war welche welcher welches wenn wer werden wie wir wird wo "
        "zu zum zur",
    )
)
_SUFFIXES = ("ations", "ation", "ings", "ing", "edly", "ers", "er", "ed", "ies", "es", "s", "ly")


@lru_cache(maxsize=20_000)
def stem_word(word: str) -> str:
    """A light stem for matching, not for reading: `configured`, `configuring` and `configuration` agree."""
    for suffix in _SUFFIXES:
        if word.endswith(suffix) and len(word) - len(suffix) >= 3 and not word.endswith("ss"):
            word = word[: -len(suffix)] + ("y" if suffix == "ies" else "")
            break
    if len(word) > 4 and word[-1] == word[-2] and word[-1] not in "sleo":
        word = word[:-1]
    if len(word) > 3 and word.endswith("e"):
        word = word[:-1]
    return word


def is_identifier(term: str) -> bool:
    """Whether a term names one thing (`ge-0/0/1`, `10.1.0.0/16`, `err-4711`) rather than a notion."""
    return _DIGIT.search(term) is not None


def extract_terms(text: str) -> list[str]:
    """The comparable terms of a text in their order, without stop words.

    An identifier comes whole and in its named pieces (`core-rtr-01.fra1` gives `core-rtr-01` and `fra1`
    too, as people ask for those), a network also without its mask; other compounds come in their pieces.
    """
    terms: list[str] = []
    for match in _TOKEN.finditer(text):
        token = match.group().lower()
        pieces = _PIECE.split(token)
        if is_identifier(token):
            terms.append(token)
            if "/" in token and pieces[0].isdigit():
                terms.append(token.split("/")[0])
            dotted = [p for p in token.split(".") if p != token and "-" in p and is_identifier(p)]
            terms.extend(p for p in dotted if not p.replace("-", "").isdigit())
            named = [p for p in pieces if len(pieces) > 1 and len(p) > 1 and not p.isdigit()]
        else:
            named = pieces
        for piece in named:
            if piece not in STOPWORDS and (len(piece) > 1 or not piece.isascii()):
                terms.append(piece if is_identifier(piece) else stem_word(piece))
    return terms
