"""Pairs of questions that are the same in other words, and pairs that only look so: what a semantic cache is measured with.

Both sets come from the demonstration data and are the same each time they are made.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import permutations
from pathlib import Path
from typing import Any

import yaml

PARAPHRASES = Path(__file__).resolve().parent.parent / "demo" / "paraphrases.yaml"


@dataclass(frozen=True)
class Pair:
    """Two questions. ``kind`` says how the second was made from the first, ``tuned`` whether the lexicon of
    ``answering/wording.py`` was written with it in sight."""

    first: str
    second: str
    kind: str
    tuned: bool


@dataclass(frozen=True)
class Asked:
    """A question of the demonstration data and other words for it."""

    text: str
    others: tuple[str, ...]
    tenant: str
    role: str
    tuned: bool


@cache
def _read() -> Any:
    return yaml.safe_load(PARAPHRASES.read_text(encoding="utf-8"))


def read_questions() -> list[Asked]:
    rows = _read()["questions"]
    return [
        Asked(row["question"], tuple(row["paraphrases"]), row["tenant"], row["role"], row["tuned"])
        for row in rows
    ]


FRAMES = (
    "Could you please tell me {}?", "Please, {}?", "Can you tell me {}?", "Quick question: {}?", "I need to know {}.",
    "Hi, {}? Thanks!", "Do you know {}?", "Does anyone know {}?", "Hello, {}, please?", "I would like to know {}.",
)  # fmt: skip
SHORT = {
    "What is ": "What's ", "do not ": "don't ", "must not ": "mustn't ", "firewall": "fw", "maximum": "max",
    "configured": "configd", "session": "sess.", "configuration": "config", "password": "pw", "address": "addr",
    "neighbours": "nbrs", "number": "no.", "interface": "intf",
}  # fmt: skip


def paraphrase_pairs() -> list[Pair]:
    """Ten of each question: six written by hand, two of them put politely, one shortened, one with a slip of the fingers."""
    pairs = []
    for at, asked in enumerate(read_questions()):
        made = [
            *(("written", other) for other in asked.others),
            ("polite", FRAMES[at % len(FRAMES)].format(_inner(asked.text))),
            ("polite", FRAMES[(at + 3) % len(FRAMES)].format(_inner(asked.others[at % 5]))),
            ("short", _shorten(asked.others[(at + 1) % 5])),
            ("typo", _mistype(asked.text)),
        ]
        pairs += [Pair(asked.text, other, kind, asked.tuned) for kind, other in made]
    return pairs


def _inner(question: str) -> str:
    return question[0].lower() + question[1:].rstrip("?.")


def _shorten(question: str) -> str:
    for long, short in SHORT.items():
        if long in question:
            question = question.replace(long, short, 1)
            break
    return re.sub(r"\b(?:the|a|an) ", "", question.lower().rstrip("?"))


def _mistype(question: str) -> str:
    """Two letters in the middle of the longest plain word change places."""
    word = max(re.findall(r"(?<![\w-])[a-z]{4,}(?![\w-])", question), key=len)
    at = len(word) // 2
    wrong = word[: at - 1] + word[at] + word[at - 1] + word[at + 1 :]
    return question.replace(word, wrong, 1)


# Words of which each stands for something else than its neighbours in the row.
RIVALS = (
    "maximum|minimum|average|default", "first|last|second|third", "both|all|neither of the|only the main",
    "down|up|slow|flapping", "wrong|expired|correct", "locked|unlocked|deleted", "long|often", "still|no longer|already",
    "before|after", "secondary|primary|guest|wireless", "external|internal", "next|previous|last|first",
    "critical|medium|low|informational", "open|closed|fixed|ignored", "receive|transmit|launch", "allow|deny|log",
    "connected|disconnected", "configured|recommended|supported|measured", "planned|configured|abandoned|rejected",
    "announced|cancelled|started|finished", "triggers|removes|prevents", "frozen|learned|flushed|moved",
    "used|reserved|forbidden|deprecated", "approve|reject|announce|test", "rebuilt|deleted|checked|signed",
    "forgotten|expired|shared|default", "reset|change|share|delete", "find|change|hide|print", "cleaned|ordered|labelled",
    "fail over|restart|upgrade|isolate", "call|e-mail|avoid", "hold time|keepalive|connect retry time|graceful restart time",
    "prefix limit|burst limit|path limit|MED", "range|name|gateway|priority", "IP MTU|OSPF cost|LDP label|MPLS MTU",
    "root cause|customer impact|duration|cost", "signal strength|channel width|battery life|roaming threshold",
    "serial number|asset tag|MAC address|PIN", "budget|bandwidth|staff|floor space", "cluster IDs|router IDs|AS numbers",
    "hosts|switches|VLANs|controllers", "segment routing|traffic engineering|EVPN", "global block|local block",
    "full-table|default-only|partial", "transit|peering|customer|backup", "eBGP|iBGP|OSPF|BFD", "BGP|OSPF|LDP|IPsec|HSRP",
    "OSPF|IS-IS|RIP", "VLAN|VXLAN|VRF|subnet", "EVPN|VPLS|MPLS", "MAC|IP|IPv6", "totally stubby|not-so-stubby|backbone",
    "session|tunnel|adjacency", "neighbours|static routes|filters", "route servers|route reflectors|members",
    "Telvia|Northwave|RhineIX", "RhineIX|DE-CIX|Telvia", "community|next hop|prefix|password", "blackhole|prepend|failover",
    "blackhole|graceful shutdown", "route leak|hijack|power failure|fibre cut", "WMS|ERP|backup|VPN",
    "replication|login|export",
    "firewall|switch|load balancer", "warehouse|office|data centre", "scanners|printers|cameras|phones",
    "scanner|printer|laptop", "jump host|VPN|console server", "production|test|office", "cell|line|hall",
    "press|paint|assembly", "Plant B|Plant A|Plant C", "Plant C|Plant A|Plant D", "wave A|wave B|wave C",
    "Project Harbour|Project Lantern|Project Beacon", "Acme|Globex|Baltica Freight", "Gdańsk|Poznań|Hamburg|Fiége",
    "ISO 27001|ISO 9001|PCI DSS|NIS2", "audit|training|renewal", "surveillance|certification", "capacity report|budget plan",
    "account|certificate|door", "passwords|PINs|user names", "loop|update|storm|fire", "attacker|auditor|administrator",
    "second factor|firewall|bastion|lockout", "optic|cable|line card", "power|error rate|temperature",
    "company|site|product",
    "take over|sell|audit", "closing|opening|sale", "customer|supplier|peer", "prefix list|AS path list|access list",
    "change|removal|review", "policy|invoice|diagram", "mean|cost|trigger", "solve|reproduce|report", "root|secondary",
    "leak|flap", "two|three|four", "handheld|vehicle|fixed", "vulnerability|patch|exception", "talk|listen|lie",
)  # fmt: skip
# The question itself becomes another.
TURNS = (
    (r"^What is ", "Why is "), (r"^What is ", "Who set "), (r"^What is ", "Where is "), (r"^What does ", "Why does "),
    (r"^Which ", "Why which "), (r"^Which ", "How many "), (r"^Which ", "Who chose which "), (r"^How do I ", "Who may "),
    (r"^How do I ", "Why do I "), (r"^How do I ", "Can I "), (r"^How do I ", "When do I "), (r"^How do I ", "How do I not "),
    (r"^How long ", "How often "), (r"^How many ", "Which "), (r"^How much ", "Why "), (r"^When ", "Why "),
    (r"^When ", "Who decides when "), (r"^When ", "How "), (r"^Why ", "When "), (r"^Why ", "How often "),
    (r"^Who ", "When "),
    (r"^Who ", "Why "), (r"^Where ", "When "), (r"^How did ", "When did "), (r"^How did ", "Why did "),
    (r"^How often ", "How "), (r"^Whom ", "When "), (r" may ", " must "), (r" may ", " may not "), (r" must ", " may "),
    (r" must not ", " must "), (r" is ", " is not "), (r" are ", " are not "), (r" does ", " does not "),
    (r" do I ", " do I never "), (r" do ", " do not "), (r" did ", " did not "), (r" was ", " was not "),
    (r" will ", " will not "),
    (r" has to ", " may "), (r" has to ", " does not have to "), (r"\?$", " in IPv6?"), (r"\?$", " on the backup site?"),
    (r"\?$", " for contractors?"), (r"\?$", " without a ticket?"), (r"\?$", " at night?"),
    (r"\?$", " before the migration?"),
    (r"\?$", " in version 2?"), (r"\?$", " at Globex?"), (r"\?$", " as an administrator?"), (r"\?$", " on Cisco devices?"),
    (r"\?$", " except in emergencies?"), (r"\?$", " in minutes?"), (r"\?$", " and why?"), (r"\?$", " in the lab?"),
)  # fmt: skip
# Each of a row instead of another: questions that share all words but one.
TEMPLATES = (
    ("What is the upgrade procedure for {}?",
     "IOS-XE 17.9|IOS-XE 17.10|IOS-XR 7.9|Junos 21.4R3|Junos 22.4R3|EOS 4.30|EOS 4.31"),
    ("How do I configure {} on the core routers?", "BGP|OSPF|IS-IS|BFD|LDP|VRRP|NTP|SNMPv2|SNMPv3|syslog|PIM"),
    ("How do I {} an interface on leaf-fra1-101?", "enable|disable|shut down|rename|mirror|rate-limit"),
    ("Which vendor makes the {} in fra1?", "routers|switches|firewalls|access points|optics|UPSs"),
    ("How do we back up a {} switch?", "Cisco|Juniper|Arista|Nokia|Huawei|Extreme"),
    ("What is the status of {}?", "CHG-20418|CHG-20533|CHG-20534|INC-5512|INC-5513|CR-0817|CR-0818"),
    ("Which interface connects {} to the core?", "fra1|fra2|ams1|ham3|poz1|gdn1|leaf-fra1-101|leaf-fra1-102"),
    ("Who is allowed to read the {}?", "firewall rules|incident reports|capacity reports|runbooks|vulnerability scans"),
    ("What may the {} change in production?",
     "helpdesk|network engineers|security analysts|management|contractors|auditors"),
    ("Where does traffic to {} go?", "10.1.0.0/16|10.1.0.0/24|10.10.0.0/16|10.77.0.0/16|192.168.1.0/24|2001:db8::/32"),
    ("Does the firewall {} SSH from the office?", "allow|block|log|inspect|encrypt"),
    ("What happens {} the session is cleared?", "before|after|unless|while"),
    ("Is TCP port {} open on the jump host?", "22|23|80|443|2222|8443"),
    ("Is {} port 53 open on the resolver?", "TCP|UDP"),
    ("How do I {} a prefix from the blackhole list?", "remove|hide|export"),
    ("How do I add a prefix {} the blackhole list?", "to|via|without"),
    ("What is the latency from {}?", "fra1 to ams1|ams1 to fra1|fra1 to ham3|ham3 to fra1|ams1 to ham3|ham3 to ams1"),
    ("How are routes redistributed from {}?", "OSPF into BGP|BGP into OSPF|OSPF into IS-IS|static into BGP"),
    ("Can {} network?", "guests reach the office|the office reach guests|scanners reach the guest|guests reach the scanner"),
    ("Does {} the route reflector?", "core-rtr-01 monitor|core-rtr-02 monitor|core-rtr-01 replace|core-rtr-01 trust"),
    ("When is traffic moved {}?", "from wave A to wave B|from wave B to wave A|off wave A|off wave B"),
    ("Why does the VPN client show {}?", "ERR-4711|ERR-4712|ERR-4171|code 809|code 908|code 890"),
    ("How many {} does a leaf have?", "uplinks|downlinks|10G ports|25G ports|100G ports|power supplies|fans"),
    ("What is the limit of {}?", "30 seconds|30 minutes|30 hours|90 seconds|300 seconds|30 sessions"),
    ("How do we roll {}?", "back CHG-20533|back CHG-20418|out CHG-20533|out CHG-20418"),
    ("Which metric does the {} link to ams1 use?", "primary|secondary|third|10G|100G|old|new"),
    ("Which routes are {} at the edge?", "accepted|rejected|exported|imported|dampened|aggregated|leaked|filtered"),
    ("How do I {} two-factor sign-in?", "enrol in|disable|bypass|require|reset|test"),
    ("Which packets leave {} the tunnel?", "through|outside|before|inside"),
    ("Is the change allowed {} the freeze?", "before|after|during|despite|outside"),
    ("Does Telvia prefer {}?", "Northwave over RhineIX|RhineIX over Northwave"),
    ("Which traffic is {}bound on the WAN interface?", "in|out"),
    ("Which group {} administrators?", "includes|excludes|names|audits"),
    ("Are jumbo frames {} on the fabric?", "enabled|disabled|required|forbidden|counted"),
    ("Which firewall filters are {}?", "stateful|stateless|inherited|unused|used|read-only|writable"),
    ("Which backups are {}?", "encrypted|unencrypted|complete|incomplete|secure|insecure|on site|off site"),
    ("How do I {} the uplink?", "turn on|turn off|bring up|bring down|set up|tear down"),
    ("Should I {} first?", "drain the link and call Telvia|call Telvia and drain the link"),
    ("Who {} the change?", "approved|requested|reverted|tested|wrote|forgot"),
    ("What does the {} do?", "router|route|routing policy|root|router server|route server"),
    ("Which {} are encrypted?", "HTTP connections|HTTPS connections|IP addresses|IPS alerts|logs|logins"),
    ("How {} is the maintenance window?", "long|often|early|late|safe"),
    ("Who {} the jump host VLAN?", "uses|configures|gets|owns|assigns|has|deletes|finds"),
    ("{} we upgrade core-rtr-01 before the freeze?", "Can|Should|Must|Do|Did"),
    ("What {} I change on the jump host without approval?", "can|should|must|did"),
    ("Which hosts {} be restarted on Sundays?", "can|should|must|will|cannot"),
    ("How many desk {} does the Hamburg site have?", "phones|calls|lines|numbers|users"),
    ("What is {} AS number at the exchange?", "our|their|his|Telvia's"),
    ("Who {} access to the jump host?", "gets|gives|has|loses|requests|approves"),
    ("Which packets are {}?", "not tagged and dropped|tagged and not dropped|tagged and dropped"),
    ("Which host {}?", "of the guest network may scan the office|may scan the office of the guest network|may scan"),
    ("Is the {} policy of the board in force?", "approval|removal|review|backup"),
    ("How do I {} the serial number of a switch?", "find|change|print|use|have shown|set"),
    ("Where do I {} the serial number of a switch?", "find|change|enter|report"),
    ("When {} the maintenance of wave B?", "does Telvia do|do we do|does Telvia announce|does Telvia cancel"),
    ("Which router {} core-rtr-01?", "replaces|is replaced by|peers with|backs up|is backed up by"),
    ("Which company {} Globex?", "buys|is bought by|sues|supplies|is supplied by"),
    ("What is on {}?", "port 22 of leaf-1|port 1 of leaf-22|port 2 of leaf-21"),
    ("What is the {} of the tunnel to ham3?", "MTU|MTU mismatch|status|start|start time|source|destination|key"),
    ("Which rule is matched {} the default rule?", "before|after|by|instead of|under"),
    ("Is {} cheaper than the other?", "wave A|wave B|Telvia|Northwave"),
)  # fmt: skip
_NUMBER = re.compile(r"\d+")


def adversarial_pairs() -> list[Pair]:
    """Pairs with different answers, most of them one word or one digit apart."""
    questions = read_questions()
    pairs: list[Pair] = []
    for asked in questions:
        for wording in (asked.text, *asked.others):
            for kind, other in _mutate(wording):
                pairs.append(Pair(asked.text, other, kind, asked.tuned))
                if wording != asked.text and kind in ("rival", "number"):
                    pairs.append(Pair(wording, other, kind, asked.tuned))
    for at, (template, slot) in enumerate(TEMPLATES):
        filled = [template.format(value) for value in slot.split("|")]
        pairs += [Pair(one, two, "template", at % 2 == 0) for one, two in permutations(filled, 2)]
    pairs += [Pair(one, two, "sibling", False) for one, two in _read()["different"]]
    for one, two in permutations(questions, 2):
        if {one.text, two.text} != {
            "What does ERR-4711 mean and how do I solve it?",
            "What does ERR-4711 mean?",
        }:
            pairs.append(Pair(one.text, two.others[0], "another", one.tuned and two.tuned))
    return list(dict.fromkeys(pair for pair in pairs if pair.first.casefold() != pair.second.casefold()))


def _mutate(question: str) -> Iterator[tuple[str, str]]:
    for row in RIVALS:
        words = row.split("|")
        for word in words:
            pattern = rf"(?<![\w-]){re.escape(word)}(?![\w-])"
            if re.search(pattern, question):
                for rival in words:
                    if rival != word:
                        yield "rival", re.sub(pattern, rival, question, count=1)
    for match in _NUMBER.finditer(question):
        for changed in _other_numbers(match.group()):
            yield "number", question[: match.start()] + changed + question[match.end() :]
    for pattern, turned in TURNS:
        if re.search(pattern, question):
            yield "turn", re.sub(pattern, turned, question, count=1)


def _other_numbers(number: str) -> Sequence[str]:
    width = len(number)
    more = str(int(number) + 1).zfill(width)
    return [
        more,
        str(int(number) + 10).zfill(width),
        *([number[::-1]] if number[::-1] not in (number, more) else []),
    ]
