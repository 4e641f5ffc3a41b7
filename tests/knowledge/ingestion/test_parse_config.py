"""Device configurations, structured data and source code."""

import pytest

from knowledge.ingestion.parse import parse_document


def parse(text: str, filename: str):
    parsed = parse_document(data=text.encode(), filename=filename)
    assert parsed.text == text
    assert parsed.title == filename
    return parsed


def headings_of(parsed):
    return [(heading.level, heading.title) for heading in parsed.headings]


def blocks_of(parsed):
    return [parsed.text[block.start : block.end] for block in parsed.blocks]


IOS = """\
! backup of edge-1
hostname edge-1
!
interface Gi0/0
 description uplink
 ip address 192.0.2.1 255.255.255.0
!
banner motd ^C
Keep out
hostname is not a setting here
^C
router bgp 64512
 neighbor 192.0.2.2 remote-as 64513
!
ip route 0.0.0.0 0.0.0.0 192.0.2.2
ip route 10.0.0.0 255.0.0.0 Null0
end
"""


def test_stanzas_by_indentation():
    parsed = parse(IOS, "edge-1.cfg")
    assert headings_of(parsed) == [
        (1, "hostname"),
        (1, "interface Gi0/0"),
        (1, "banner motd ^C"),
        (1, "router bgp 64512"),
        (1, "ip route"),
    ]
    blocks = blocks_of(parsed)
    assert blocks[1] == "interface Gi0/0\n description uplink\n ip address 192.0.2.1 255.255.255.0\n!"
    assert blocks[2] == "banner motd ^C\nKeep out\nhostname is not a setting here\n^C"
    assert blocks[-1].endswith("Null0\nend")
    assert {block.kind for block in parsed.blocks} == {"config"}


def write_junos(indent: str) -> str:
    ports = [
        f'ge-0/0/{n} {{\ndescription "port {n} {"x" * 80}";\nunit 0 {{\nfamily inet;\n}}\n}}\n'
        for n in range(5)
    ]
    outer = (
        "system {\nhost-name r1;\n}",
        "interfaces {\n" + "".join(ports) + "}",
        "protocols {\nospf {\narea 0;\n}\n}\n",
    )
    text = "\n".join(outer)
    lines, depth = [], 0
    for line in text.split("\n"):
        depth -= line.startswith("}")
        lines.append(indent * depth + line if line else line)
        depth += line.endswith("{")
    return "\n".join(lines)


@pytest.mark.parametrize("indent", ["    ", ""])
def test_long_stanzas_in_braces_are_opened_and_short_ones_are_not(indent):
    parsed = parse(write_junos(indent), "r1.conf")
    assert headings_of(parsed) == [
        (1, "system"),
        (1, "interfaces"),
        *((2, f"ge-0/0/{n}") for n in range(5)),
        (1, "protocols"),
    ]
    blocks = blocks_of(parsed)
    assert "\n".join(blocks) + "\n" == parsed.text
    assert blocks[1] == "interfaces {"
    assert blocks[-1].startswith("protocols {")
    assert blocks[-1].endswith("}")


def test_set_lines_are_grouped_by_their_hierarchy():
    text = (
        "set system host-name r1\nset system services ssh\nset interfaces ge-0/0/0 mtu 9000\n"
        "set interfaces ge-0/0/0 unit 0\nset interfaces ge-0/0/1 mtu 1500\n"
        "set protocols bgp group A type external\n"
    )
    parsed = parse(text, "r1.set")
    assert headings_of(parsed) == [
        (1, "system"),
        (1, "interfaces"),
        (2, "ge-0/0/0"),
        (2, "ge-0/0/1"),
        (1, "protocols"),
        (2, "bgp"),
    ]
    assert blocks_of(parsed)[2] == "set interfaces ge-0/0/0 mtu 9000\nset interfaces ge-0/0/0 unit 0"


def test_ini_sections_with_the_comments_above_them():
    parsed = parse("# head\n\n[web]\nport = 80\n# about db\n[db]\nhost = x\n", "app.ini")
    assert headings_of(parsed) == [(1, "web"), (1, "db")]
    assert blocks_of(parsed) == ["# head", "[web]\nport = 80", "# about db\n[db]\nhost = x"]


def test_yaml_keys_and_named_items():
    long = "".join(f"  - name: play {n}\n    hosts: all\n    note: {'x' * 150}\n" for n in range(4))
    parsed = parse(f"version: 2\nplays:\n{long}", "site.yml")
    assert headings_of(parsed) == [(1, "version"), (1, "plays"), *((2, f"name: play {n}") for n in range(4))]


def test_json_is_opened_below_its_root():
    text = '{\n  "version": 1,\n  "sites": {\n    "fra": {"rack": 1}\n  },\n  "vlans": [\n    10\n  ]\n}\n'
    parsed = parse(text, "a.json")
    assert headings_of(parsed) == [(1, "version"), (1, "sites"), (1, "vlans")]


def test_xml_entities_stay_text():
    text = '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]>\n<a>\n  <b>&x;</b>\n</a>\n'
    assert "&x;" in parse(text, "a.xml").text


@pytest.mark.parametrize(
    "text", ["}\n}\n}\n", "{\n" * 500, " " * 50 + "x\n y\n", "[\n", "!\n!\n", "{}", "- " * 40, "banner motd"]
)
@pytest.mark.parametrize("filename", ["a.conf", "a.json", "a.yaml"])
def test_malformed_configurations_are_still_text(text, filename):
    parsed = parse(text, filename)
    assert all(block.start < block.end for block in parsed.blocks)


PYTHON = '''\
"""Module."""

import os


# About the reader.
@decorated
class Reader(Base):
    x = 1

    def read(self, path):
        return 1


async def main() -> None:
    pass
'''


def test_python_functions_classes_and_methods():
    parsed = parse(PYTHON, "tool.py")
    assert headings_of(parsed) == [(1, "class Reader"), (2, "def read"), (1, "async def main")]
    assert parsed.text[parsed.headings[0].start :].startswith("# About the reader.\n@decorated\nclass")
    assert {block.kind for block in parsed.blocks} == {"code"}


@pytest.mark.parametrize(
    ("filename", "text", "titles"),
    [
        (
            "a.go",
            "package x\n\nfunc (r *Router) Up() {\n}\n\ntype Peer struct {\n}\n",
            ["func (r *Router) Up()", "type Peer struct"],
        ),
        (
            "a.ts",
            "export async function load(a: string) {\n}\n\nconst f = (x) => {\n}\n",
            ["export async function load", "const f = (x)"],
        ),
        ("a.c", "#include <x.h>\n\nstatic int up(int a)\n{\n  return a;\n}\n", ["static int up"]),
        ("a.rs", "pub fn up(a: u8) -> u8 {\n}\n\nimpl Peer {\n}\n", ["pub fn up", "impl Peer"]),
        ("a.sh", "#!/bin/sh\n\nup() {\n  ip link\n}\n", ["up()"]),
        ("a.sql", "CREATE TABLE t (\n  a int\n);\n", ["CREATE TABLE t"]),
        ("Makefile", "CC := gcc\n\ntest: build\n\tpytest\n", ["test: build"]),
        ("Dockerfile", "FROM alpine AS base\nRUN true\n", ["FROM alpine AS base"]),
    ],
)  # fmt: skip
def test_sections_of_other_languages(filename, text, titles):
    assert [title for _, title in headings_of(parse(text, filename))] == titles
