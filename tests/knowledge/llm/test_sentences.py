import pytest
from hypothesis import given
from hypothesis import strategies as st

from knowledge.llm.sentences import STANZA_DEPTH, partition_text, split_sentences, split_units


def cut(text: str) -> list[str]:
    return [text[start:end] for start, end in split_sentences(text)]


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One. Two! Three?", ["One.", "Two!", "Three?"]),
        ("Use e.g. 10.1.0.1 or 10.1.0.2. Then wait.", ["Use e.g. 10.1.0.1 or 10.1.0.2.", "Then wait."]),
        ("Runs Junos 22.4R3. Upgrade it.", ["Runs Junos 22.4R3.", "Upgrade it."]),
        ("See approx. Figure 3, i.e. the rack. Done.", ["See approx. Figure 3, i.e. the rack.", "Done."]),
        ("Open core.conf and edit. ge-0/0/1 is down.", ["Open core.conf and edit.", "ge-0/0/1 is down."]),
        ("It is **off**. `show bgp` tells.", ["It is **off**.", "`show bgp` tells."]),
        ("Wrapped\nline here. Next\none.", ["Wrapped\nline here.", "Next\none."]),
        ("It waits ... then goes on. Ok.", ["It waits ... then goes on.", "Ok."]),
        ("第一句。第二句。", ["第一句。", "第二句。"]),
        ("", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert cut(text) == sentences


MIXED = """# BGP

Timers are set
per group. They are short:

- hold 30 s
- keepalive 10 s,
  never less

| Peer | AS |
|---|---|
| Telvia | 64497 |

```
show bgp summary
```
"""


def test_units_of_mixed_markdown() -> None:
    units = [(u.kind, u.lead, MIXED[u.start : u.end]) for u in split_units(MIXED)]
    assert units == [
        ("heading", False, "# BGP"),
        ("sentence", False, "Timers are set\nper group."),
        ("sentence", True, "They are short:"),
        ("item", False, "- hold 30 s"),
        ("item", False, "- keepalive 10 s,\n  never less"),
        ("row", True, "| Peer | AS |\n|---|---|"),
        ("row", False, "| Telvia | 64497 |"),
        ("code", False, "```\nshow bgp summary\n```"),
    ]


CISCO = """hostname ham3
!
interface Gi0/0
 description uplink
 ip address 10.3.0.1 255.255.255.0
!
router bgp 64500
 neighbor 10.0.0.1 remote-as 64500
!
ntp server 10.1.9.41
"""


def test_configuration_is_cut_into_stanzas() -> None:
    units = split_units(CISCO)
    assert {u.kind for u in units} == {"code"}
    assert [CISCO[u.start : u.end].splitlines()[0] for u in units] == [
        "hostname ham3",
        "interface Gi0/0",
        "router bgp 64500",
        "ntp server 10.1.9.41",
    ]


def test_a_long_stanza_is_cut_into_its_blocks_and_they_know_what_is_above_them() -> None:
    neighbours = "".join(f"        neighbor 10.0.0.{n} {{ description r{n}; }}\n" for n in range(20))
    text = f"protocols {{\n    bgp {{\n{neighbours}    }}\n}}\n"
    last = split_units(text)[-1]
    assert text[last.start : last.end].strip() == "neighbor 10.0.0.19 { description r19; }"
    assert last.above == ("protocols {", "    bgp {")


def test_endless_nesting_is_cut_and_not_followed() -> None:
    text = "".join(" " * n + f"level{n} {{\n" for n in range(3_000))
    units = split_units(text)
    assert max(len(u.above) for u in units) <= STANZA_DEPTH
    assert units[-1].end == len(text) - 1


def test_prose_with_indented_lines_is_no_configuration() -> None:
    text = "The router is in rack 4.\n  It must be reached by console, and the key is in the vault.\n"
    assert {u.kind for u in split_units(text)} == {"sentence"}


PIECES = [
    "# Head\n",
    "\n",
    "A sentence. ",
    "Another one:\n",
    "- item\n",
    "| a | b |\n",
    "|---|---|\n",
    "```\nx\n```\n",
]
PIECES += ["interface x\n", " ip address 1\n", "!\n", "}\n", "a {\n", "   b;\n", "\t", "ü。", "===\n"]


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_partition_keeps_every_character(text: str) -> None:
    spans = partition_text(text)
    assert "".join(text[start:end] for start, end in spans) == (text if text.strip() else "")
    assert all(text[start:end].strip() for start, end in spans)


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_units_are_ordered_apart_and_visible(text: str) -> None:
    end = 0
    for unit in split_units(text):
        assert end <= unit.start < unit.end
        assert text[unit.start : unit.end].strip()
        end = unit.end
