"""Which legacy encoding a text is in, by whose letters it would be made of.

Each is tried, and what comes out must be words of one language: its letters, the common ones more often than the rare ones,
capitals where they belong. Detectors that judge by bytes take one encoding for another too often in texts that are short
and half English, as those of engineers are.
"""

from __future__ import annotations

import codecs
import re
from collections import Counter
from collections.abc import Callable

# Escapes that switch between character sets: all bytes are ASCII.
_ESCAPES = (
    (re.compile(rb"\x1b\$(?:[@B]|\([DOQ])"), "iso2022_jp_ext"),
    (re.compile(rb"\x1b\$\)C"), "iso2022_kr"),
)

# The letters beside ASCII of languages that are written in Latin letters; here as below the commonest come first.
_WESTERN = (
    "üäöß", "éèêàçîôûâœùïëüæ", "óíáéñúü", "ãçáéíêóõâúàô", "èàùòéì", "äöåé", "øåæé", "ëéïóöüá", "àéèíóçòïúü", "äõüöšž",
    "íáþéöúóæðý",
)  # fmt: skip
_CENTRAL = (
    "łążęóśćńź", "íáéěřčžýšůúťďňó", "áíéčúýžšôľťňďäóĺŕ", "áéöóíőüúű", "ăţşîâ", "čšžćđ", "üäöß",
)  # fmt: skip
_TURKISH = ("ışğüçöâîû\u0307",)
_BALTIC = ("ėšįųžąūčę", "āīēšūņžļģčķ", "äõüöšž")
# Whole alphabets.
_CYRILLIC = (
    "оеаинтсрвлкмдпуяыьгзбчйхжшюцщэфъё",
    "оанівитресклудмпзьяйбгчхцжюшїщєфґ",
    "аиоентрсвлкдпмзяуъгбчщхжцюшфйь",
    "аоиенрстјувкдлпмзгбцчшхжљњћђфџ",
)
_GREEK = ("αοιετσνηρπκμυλςίωόάγδέήθχύφβώξζψϊϋΐΰ",)
_HEBREW = ("יוהלארתבמשענםדקחפכטגזסןצךףץ\u05b4\u05b7\u05b8\u05bc\u05b6\u05b5\u05b0\u05c1\u05c2\u05b9",)
_ARABIC = ("اليمونرتبةعدسفهكقأحجشطصىخإذثضغئزءظآؤپچژگ\u064b\u064e\u0650\u064f\u0651\u0652ـ",)
_THAI = ("านรอกเง่้มยลวดทสตะปบัีิคห็แจพขใไชโุูำื์ถซณธึศภผๆญฟษฐฉฯฮฎฏฝฬ",)
# Where two make the same of a text, the first is taken.
_ALPHABETS = (
    ("cp1252", _WESTERN), ("cp1251", _CYRILLIC), ("cp1250", _CENTRAL), ("koi8_u", _CYRILLIC), ("cp1253", _GREEK),
    ("cp1254", _TURKISH), ("cp1255", _HEBREW), ("cp1256", _ARABIC), ("cp874", _THAI), ("iso8859_2", _CENTRAL),
    ("cp1257", _BALTIC), ("iso8859_5", _CYRILLIC), ("iso8859_6", _ARABIC), ("iso8859_7", _GREEK), ("iso8859_8", _HEBREW),
    ("cp866", _CYRILLIC), ("mac_roman", _WESTERN), ("mac_cyrillic", _CYRILLIC), ("cp850", _WESTERN), ("cp852", _CENTRAL),
)  # fmt: skip
_ELDER = frozenset(
    ["cp866", "cp850", "cp852", "cp1257", "mac_roman", "mac_cyrillic", "iso8859_5", "iso8859_6", "iso8859_7"]
)
_MARKS = "\u0591-\u05c7\u064b-\u0652\u0e31\u0e34-\u0e3a\u0e47-\u0e4e"
_WORD = re.compile(rf"(?:[^\W\d_µªº²³¹¼½¾]|[{_MARKS}])+")
_ALONE = frozenset("àèéìíòóôöúùüäåæøâêáç")  # as words
_PUNCTUATION = frozenset("\xa0«»–—‘’‚“”„…•€")
_SIGNS = frozenset("\xad‹›·°±×÷§©®™£¥¢µ¿¡²³½¼¾¹´¨¦†‡№׳״،؛؟ªº‰ˆ˜¬¶")
_LETTER = r"[^\W\d_]"
# Signs where nobody writes them: in the midst of a word, or at its wrong end.
_MISPLACED = re.compile(
    rf"(?<={_LETTER})[€£¥¢¿¡„‚]|€(?={_LETTER})|(?<={_LETTER})[“”‘³½¼¾¹´¨¦†‡ªº‰ˆ˜¬¶°±×÷§©®™«»](?={_LETTER})"
)
_DASHED = re.compile(
    rf"(?<={_LETTER})(?:[\xa0–—…]|’(?!(?:[stdm]|ll|re|ve)\b))(?={_LETTER})(?<!\b[LlDdNnSsCcJjMmTtOo]’)(?<!\b[Qq]u’)"
)
_FRAME = re.compile(r"[\u2500-\u25a0]")
_KANA, _HANZI = re.compile(r"[\u3041-\u30ff]"), re.compile(r"[\u3005\u4e00-\u9fff]")
_WIDE_PUNCTUATION = re.compile(
    r"[\u2010-\u203b\u2190-\u22ff\u2460-\u25ff\u3000-\u303f\uff01-\uff5e\uffe0-\uffe6°±×÷§]"
)
_HIGH = bytes(range(128, 256))
_HIGH_BYTE = re.compile(rb"[\x80-\xff]")
_LOOKED_AT, _SAMPLE = 1 << 20, 1 << 13
_ENOUGH, _HARDLY_ANY, _SELDOM = 0.45, 0.003, 0.95

# Now, because the process that parses may read no files later.
for _name in (*(name for _, name in _ESCAPES), *(name for name, _ in _ALPHABETS)):
    codecs.lookup(_name)


def read_escapes(data: bytes) -> str | None:
    """The encoding of a text whose escapes switch between character sets, if it is such a one."""
    for mark, encoding in _ESCAPES:
        if mark.search(data):
            try:
                data.decode(encoding)
            except UnicodeDecodeError:
                continue
            return encoding
    return None


def guess_encoding(data: bytes) -> str | None:
    """The legacy encoding of a text that is not UTF-8; ``None`` where none makes sense of it.

    Where hardly anything in it is not ASCII, little can go wrong, and the likeliest is taken.
    """
    first = _HIGH_BYTE.search(data)
    begin = first.start() if first else 0
    lines = re.split(rb"[\r\n]+", data[max(0, begin - 200) : begin + _LOOKED_AT])
    lines = [line for line in lines if not line.isascii()]
    sample = b"\n".join(lines)[:_SAMPLE]
    scores = {
        encoding: _score_alphabets(sample.decode(encoding, "replace"), alphabets)
        * (_SELDOM if encoding in _ELDER else 1.0)
        for encoding, alphabets in _ALPHABETS
    }
    scores |= {
        encoding: _score_signs(sample.decode(encoding, "replace"), rate) for encoding, rate in _EAST_ASIAN
    }
    best = max(scores, key=lambda encoding: scores[encoding])
    foreign = len(data) - len(data.translate(None, _HIGH))
    return best if scores[best] >= _ENOUGH or foreign < len(data) * _HARDLY_ANY else None


# Letters


def _score_alphabets(text: str, alphabets: tuple[str, ...]) -> float:
    """How well a text reads by the alphabet that fits best: about 0.7 and more, or much less."""
    words = Counter(word for word in _WORD.findall(text) if not word.isascii())
    rest = Counter(character for character in _WORD.sub("", text) if character > "\x7f")
    foreign = rest.total() + sum(n * _count_foreign(word) for word, n in words.items())
    if not foreign:
        return 0.0
    signs = sum(n * _rate_sign(character) for character, n in rest.items())
    signs -= 2 * len(_MISPLACED.findall(text)) + 0.3 * len(_DASHED.findall(text))
    return (
        max(_rate_words(words, each) + signs * (1.0 if _is_latin(each) else 0.7) for each in alphabets)
        / foreign
    )


def _rate_sign(character: str) -> float:
    if character in _PUNCTUATION:
        return 0.8
    if character in _SIGNS:
        return 0.6
    if character == "\ufffd":
        return -2.0
    return 0.6 if _FRAME.match(character) else -1.0


def _rate_words(words: Counter[str], alphabet: str) -> float:
    is_latin = _is_latin(alphabet)
    weights = {
        letter: 0.8 - n / 200 if is_latin else 0.95 - 0.7 * n / len(alphabet)
        for n, letter in enumerate(alphabet)
    }
    rate = 0.0
    for word, n in words.items():
        if _is_word(word, is_latin=is_latin):
            usual = 0.8 if word.isupper() or (len(word) == 1 and not is_latin) else 1.0
            rate += n * usual * sum(weights.get(letter, -1.0) for letter in word.lower() if letter > "\x7f")
        else:
            rate -= n * _count_foreign(word)
    return rate


def _is_latin(alphabet: str) -> bool:
    return len(alphabet) < 20


def _is_word(word: str, *, is_latin: bool) -> bool:
    """Whether letters stand together as people write them: of one kind, and capitals only in the first place or in all."""
    foreign = _count_foreign(word)
    if is_latin and (
        (len(word) > 3 and foreign > 0.75 * len(word)) or (len(word) == 1 and word.lower() not in _ALONE)
    ):
        return False
    if (not is_latin and foreign < len(word)) or (len(word) > 3 and len(set(word)) == 1):
        return False
    return word in (word.lower(), word.upper()) or word[1:] == word[1:].lower()


def _count_foreign(word: str) -> int:
    return sum(letter > "\x7f" for letter in word)


# Signs of East Asia


def _score_signs(text: str, rate: Callable[[Counter[str], float], float]) -> float:
    counts = Counter(character for character in text if character > "\x7f")
    total = counts.total()
    if not total:
        return 0.0
    wide = Counter({each: n for each, n in counts.items() if not _WIDE_PUNCTUATION.match(each)})
    kana = sum(n for each, n in wide.items() if _KANA.match(each)) / total
    return (0.7 * (total - wide.total()) + rate(wide, kana)) / total


def _rate_japanese(counts: Counter[str], kana: float) -> float:
    """Kana everywhere, Chinese characters between them."""
    between = 0.75 if kana > 0.1 else 0.2
    return sum(
        n * (1.0 if _KANA.match(each) else between if _HANZI.match(each) else -1.0)
        for each, n in counts.items()
    )


def _rate_korean(counts: Counter[str], kana: float) -> float:
    """Syllables of the common set; the rest, which would do for any bytes, hardly occurs."""
    return sum(n * (1.0 if _leads(each, "euc_kr", 0xB0, 0xC8) else -1.0) for each, n in counts.items())


def _rate_simplified(counts: Counter[str], kana: float) -> float:
    return sum(n * (0.75 if _leads(each, "gb2312", 0xB0, 0xD7) else -0.5) for each, n in counts.items())


def _rate_traditional(counts: Counter[str], kana: float) -> float:
    return sum(n * (0.75 if _leads(each, "big5", 0xA4, 0xC6) else -0.5) for each, n in counts.items())


def _leads(character: str, encoding: str, first: int, last: int) -> bool:
    """Whether a character is of the rows that an encoding has for the common ones."""
    found = character.encode(encoding, "ignore")
    return len(found) == 2 and first <= found[0] <= last


_EAST_ASIAN = (
    ("cp932", _rate_japanese),
    ("euc_jp", _rate_japanese),
    ("cp949", _rate_korean),
    ("gb18030", _rate_simplified),
    ("cp950", _rate_traditional),
)
