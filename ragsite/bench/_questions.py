"""Questions made from documents: always the same ones from the same texts, each about one document, in several wordings.

What a document is asked for are its identifiers (names of devices, ports, addresses, numbers of changes), which tell
documents apart as engineers tell them apart.
"""

import itertools
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

# One thing asked for, in words that mean the same; the first is how it is asked most. Two in seven ask for reasons, which
# is what the large models are for.
WORDINGS = (
    ("What do the documents say about {0}?", "What is written about {0}?", "Tell me what we have on {0}"),
    ("Where is {0} used?", "In which place is {0} in use?", "where do we use {0}"),
    ("How is {0} configured?", "What is the configuration of {0}?", "Show me how {0} is set up."),
    ("What is {0} for?", "What purpose does {0} have?", "which purpose has {0}"),
    (
        "Why is {0} set up as it is?",
        "Explain why {0} is set up this way",
        "What is the reason, explain: why is {0} so?",
    ),
    (
        "What should we do if {0} fails?",
        "Recommend what to do if {0} fails.",
        "if {0} fails, what should we do?",
    ),
    ("Which values belong to {0}?", "What values go with {0}?", "the values that belong to {0}?"),
)
PAIRS = (
    "What is said about {0} and {1}?",
    "Where are {0} and {1} used?",
    "Which values belong to {0} and {1}?",
    "How are {0} and {1} configured?",
    "What are {0} and {1} for?",
)
CANONICAL = 0.6  # of the questions, so many are asked in the first wording
_IDENTIFIER = re.compile(r"(?<![\w-])(?=[\w./:-]*\d)[A-Za-z][A-Za-z0-9]*(?:[-./:][A-Za-z0-9]+)*(?![\w-])")
_WORD = re.compile(r"\b[A-Z][a-z]{3,}(?: [a-z]{4,}){1,2}\b")
_TEXTS = (".md", ".txt", ".rst", ".conf", ".cfg", ".yaml", ".csv", ".py")


@dataclass(frozen=True)
class Asked:
    """A question and the document that it is about, by its address in its source."""

    text: str
    uri: str
    meaning: int


def read_texts(folder: Path) -> dict[str, str]:
    """The plain texts below a folder, by their relative paths."""
    paths = sorted(path for path in folder.rglob("*") if path.suffix in _TEXTS)
    return {str(path.relative_to(folder)): path.read_text(errors="replace") for path in paths}


def find_subjects(texts: dict[str, str], *, most: int = 40) -> list[tuple[str, str]]:
    """Pairs of an identifier and the one document that holds it most often, in an order without meaning.

    Args:
        most: of one document.
    """
    found: dict[str, Counter[str]] = {}
    for uri, text in texts.items():
        names = [match.group() for match in _IDENTIFIER.finditer(text)]
        names += [match.group() for match in _WORD.finditer(text)] if len(set(names)) < 3 else []
        for name in names:
            if 4 <= len(name) <= 40:
                found.setdefault(name, Counter())[uri] += 1
    of: Counter[str] = Counter()
    subjects = []
    for name in sorted(found, key=lambda name: (len(found[name]), name)):
        # Told apart by it: the fewest documents first.
        uri = min(found[name], key=lambda uri: (-found[name][uri], uri))
        if of[uri] < most:
            of[uri] += 1
            subjects.append((name, uri))
    random.Random(7).shuffle(subjects)  # noqa: S311
    return subjects


def distinct_questions(subjects: Sequence[tuple[str, str]], *, count: int) -> list[list[Asked]]:
    """So many things to ask for, each in its wordings.

    Raises:
        ValueError: the documents hold too few identifiers.
    """
    pairs = [(wordings, subject) for subject in subjects for wordings in WORDINGS]
    if len(pairs) < count:
        raise ValueError(
            f"The documents hold identifiers for {len(pairs)} different questions, not for {count}."
        )
    random.Random(11).shuffle(pairs)  # noqa: S311
    return [
        [Asked(wording.format(name), uri, number) for wording in wordings]
        for number, (wordings, (name, uri)) in enumerate(pairs[:count])
    ]


def new_questions(subjects: Sequence[tuple[str, str]]) -> Iterator[str]:
    """Questions about two identifiers of one document, each another; of neighbouring ones each about another document."""
    of: dict[str, list[str]] = {}
    for name, uri in subjects:
        of.setdefault(uri, []).append(name)
    longest = max((len(names) for names in of.values()), default=0)
    for distance in range(1, (longest + 1) // 2):
        for wording in PAIRS:
            for first in range(longest):
                for names in of.values():
                    # Nearer the other way round, and asked for already.
                    if first < len(names) and 2 * distance < len(names):
                        yield wording.format(names[first], names[(first + distance) % len(names)])


def draw_day(
    distinct: Sequence[Sequence[Asked]], *, count: int, zipf: float = 1.0, seed: int = 1
) -> list[Asked]:
    """A day of questions: what is asked for by Zipf's law, in its first wording mostly, sometimes typed otherwise."""
    dice = random.Random(seed)  # noqa: S311
    weights = list(itertools.accumulate(1 / n**zipf for n in range(1, len(distinct) + 1)))
    day = []
    for wordings in dice.choices(distinct, cum_weights=weights, k=count):
        asked = wordings[0] if dice.random() < CANONICAL else dice.choice(wordings[1:])
        typed = asked.text.upper() if dice.random() < 0.02 else asked.text
        day.append(Asked(typed.rstrip("?.") if dice.random() < 0.1 else typed, asked.uri, asked.meaning))
    return day


# Documents for those who have none at hand

_SITES = ("fra1", "ham3", "muc2", "ber4", "cgn5", "dus6", "lej7", "str8")
_ROLES = ("core", "edge", "leaf", "spine", "wan", "fw", "lb", "oob")
_SENTENCES = (
    "{device} stands in {site} and carries {count} customers of the {team} team.",
    "Its loopback is 10.{a}.{b}.{c} and its management address 172.{d}.{b}.{c}.",
    "The uplink of {device} is {port} towards {peer}, with an MTU of {mtu} bytes.",
    "Change CHG-{change} moved VLAN {vlan} to {device} on {day} {month} 2026.",
    "When {port} of {device} flaps more than {few} times in an hour, drain it with profile DRAIN-{change} first.",
    "The BGP session with {peer} uses AS {asn} and a hold timer of {hold} seconds.",
    "Firmware {few}.{b}.{c} is approved for {device}; older releases lose sessions after {hold} minutes.",
    "Escalate outages of {device} to the {team} team under ticket queue NET-{vlan} within {few} minutes.",
    "Spare optics for {port} are kept in shelf S-{asn} of {site}.",
    "Access to {device} is by the bastion jump-{site}-{few} with role ROLE-{vlan} alone.",
)
_TEAMS = ("backbone", "access", "security", "voice", "datacentre", "warehouse")
_MONTHS = ("January", "February", "March", "April", "May", "June", "July", "August")


def make_documents(count: int) -> Iterator[tuple[str, str]]:
    """So many short documents of a network team, the same ones every time: address and text."""
    for number in range(count):
        dice = random.Random(number)  # noqa: S311
        site, role = _SITES[number % len(_SITES)], _ROLES[number // len(_SITES) % len(_ROLES)]
        device = f"{role}-{site}-{number:05}"
        values = {
            "device": device, "site": site, "team": dice.choice(_TEAMS),
            "peer": f"{role}-{site}-{(number * 7 + 3) % count:05}",
            "count": dice.randrange(10, 900), "a": dice.randrange(256), "b": dice.randrange(256),
            "c": dice.randrange(1, 255),
            "d": dice.randrange(16, 32), "port": f"ge-{dice.randrange(8)}/{dice.randrange(4)}/{dice.randrange(48)}",
            "mtu": dice.choice((1500, 1600, 9000, 9216)), "change": 20000 + number, "vlan": dice.randrange(100, 4000),
            "day": dice.randrange(1, 29), "month": dice.choice(_MONTHS), "few": dice.randrange(2, 9),
            "asn": 64512 + dice.randrange(1000), "hold": dice.choice((30, 90, 180)),
        }  # fmt: skip
        sentences = [sentence.format(**values) for sentence in dice.sample(_SENTENCES, 7)]
        yield f"{site}/{device}.md", f"# {device}\n\n{' '.join(sentences[:4])}\n\n{' '.join(sentences[4:])}\n"
