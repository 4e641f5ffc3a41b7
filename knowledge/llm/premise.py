"""What a question takes for granted and its passages do not hold."""

import re
from collections.abc import Sequence

from knowledge.llm.base import Passage

# A number of two digits or more with what it counts, or a name with a digit: “90 seconds”, “ERR-4712”, “10.1.0.0/16”.
_NUMBER = re.compile(r"(?<![\w.:/-])(\d{2,}(?:[.,]\d+)*)(?![\w:/-]|\.\d)(?:\s?(%)|\s+([^\W\d_]{1,12}))?")
_NAME = re.compile(r"[^\W_]+(?:[./:_@\-][^\W_]+)*")
_THOUSANDS = re.compile(r"(?<=\d)[.,](?=\d{3}(?!\d))")
_WRITTEN = {
    "10": "ten", "11": "eleven", "12": "twelve", "15": "fifteen", "20": "twenty", "30": "thirty", "40": "forty",
    "50": "fifty", "60": "sixty", "90": "ninety", "100": "hundred",
}  # fmt: skip
_NUMBER_WITH_UNIT = re.compile(r"(\d+)([^\W\d_]{1,3})$")  # 30s, 10ms, 40GB
# Of these the unit is compared too: 90 percent is no sign of 90 seconds.
_UNITS = {
    re.compile(rf"(?:{first})$", re.IGNORECASE): then
    for first, then in (
        ("s|secs?|seconds?|sekunden?", r"[ -]?(?:s|sec|seconds?|sekunden?)\b"),
        ("m|mins?|minutes?|minuten?", r"[ -]?(?:m|min|minutes?|minuten?)\b"),
        ("h|hours?|stunden?", r"[ -]?(?:h|hours?|stunden?)\b"),
        ("d|days?|tagen?", r"[ -]?(?:d|days?|tagen?)\b"),
        ("ms|milliseconds?", r"[ -]?(?:ms|milliseconds?)\b"),
        ("%|percent|prozent", r"[ -]?(?:%|percent|prozent)"),
    )
}
MOST = 3


def find_unconfirmed(question: str, passages: Sequence[Passage]) -> tuple[str, ...]:
    """The names and numbers of a question that none of its passages holds, as the question writes them; with a number its
    unit, where that is compared (“what does code 809 mean” asks for no 809 of anything).

    Small numbers are left out: “two ways”, “step 3” are seldom a premise.
    """
    text = "\n".join(f"{p.title}\n{p.heading}\n{p.uri}\n{p.text}" for p in passages).lower()
    plain = _THOUSANDS.sub("", text)
    found: list[str] = []
    for match in _NUMBER.finditer(question):
        unit = match.group(2) or match.group(3) or ""
        if not _holds_number(text, plain, match.group(1), unit=unit):
            is_compared = any(pattern.match(unit) for pattern in _UNITS)
            found.append(match.group().strip() if is_compared else match.group(1))
    for match in _NAME.finditer(question):
        name = match.group()
        has_digit = any(letter.isdigit() for letter in name)
        is_name = has_digit and (not name.replace(".", "").isdigit() or name.count(".") == 3)
        if not is_name or _holds(text, name.lower()):
            continue
        parts = _NUMBER_WITH_UNIT.fullmatch(name)
        if not (parts and _holds_number(text, plain, parts.group(1), unit=parts.group(2))):
            found.append(name)
    return tuple(dict.fromkeys(found))[:MOST]


def _holds_number(text: str, plain: str, number: str, *, unit: str) -> bool:
    then = next((after for pattern, after in _UNITS.items() if pattern.match(unit)), r"(?!\w|\.\d)")
    if unit and then.startswith("(?!"):
        then = r"(?!\.\d)"  # another unit's word: the number alone is looked for, whatever it is glued to
    wanted = [(text, number), (plain, _THOUSANDS.sub("", number))]
    if number in _WRITTEN:
        wanted.append((text, _WRITTEN[number]))
    return any(re.search(rf"(?<![\w.]){re.escape(what)}{then}", place) for place, what in wanted)


def _holds(text: str, what: str) -> bool:
    return re.search(rf"(?<![\w.]){re.escape(what)}(?!\w|\.\d)", text) is not None
