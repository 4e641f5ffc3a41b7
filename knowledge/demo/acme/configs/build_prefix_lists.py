"""Build the inbound prefix lists of the edge routers from registry data.

Runs on tools-fra1-02 every night at 02:30 UTC (systemd timer ``prefix-lists.timer``). It reads the list of
neighbours from ``peers.json``, resolves each neighbour's AS-SET, aggregates the result and writes one Junos
``prefix-list`` per neighbour, ready for ``load replace``. Nothing is committed automatically when a list
changes by more than a fifth: see :data:`MAX_CHANGE`.

Owner: network engineering. Error codes printed by this tool are explained in :class:`BuildError`.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

# A list that grows or shrinks by more than 20 % is held for a person. The value follows the route leak of
# 2025-03-11, where a doubled AS-SET would have been accepted silently.
MAX_CHANGE = 0.20
# Never accept anything longer than these from a neighbour, whatever the registry says.
MAX_LENGTH = {4: 24, 6: 48}
# Our own space and what must not come in from outside.
REJECT = [
    ipaddress.ip_network(text)
    for text in (
        "0.0.0.0/8",
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "169.254.0.0/16",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "203.0.113.0/24",
        "224.0.0.0/3",
        "2001:db8:ac00::/40",
    )
]


class BuildError(Exception):
    """A neighbour's list cannot be built.

    Codes: PFX-101 the registry answered nothing; PFX-102 the AS-SET does not exist;
    PFX-103 the list changed by more than MAX_CHANGE;
    PFX-104 the list would exceed the neighbour's maximum-prefix limit.
    """

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(f"{code}: {detail}")
        self.code = code


@dataclass(frozen=True)
class Neighbour:
    """One eBGP neighbour of an edge router, as read from peers.json."""

    name: str
    asn: int
    as_set: str
    router: str
    maximum_prefixes: int


def resolve_as_set(*, as_set: str, family: int, server: str = "irr.net.acme.example") -> list[str]:
    """Ask the local registry mirror for the prefixes of an AS-SET.

    The mirror is used rather than the public registries, because a night's run over 212 neighbours was
    rate-limited in January 2025.
    """
    completed = subprocess.run(  # noqa: S603 (a fixed program, arguments from our own file)
        ["/usr/bin/bgpq4", "-h", server, f"-{family}", "-j", "-l", "prefixes", as_set],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if completed.returncode != 0:
        raise BuildError("PFX-102", f"{as_set} could not be resolved: {completed.stderr.strip()}")
    rows = json.loads(completed.stdout)["prefixes"]
    if not rows:
        raise BuildError("PFX-101", f"{as_set} resolves to no prefix in IPv{family}")
    return [row["prefix"] for row in rows]


def clean_prefixes(*, prefixes: list[str], family: int) -> list[str]:
    """Drop what must never come in, then aggregate; the result is sorted, so that a diff is readable."""
    kept: list[ipaddress.IPv4Network | ipaddress.IPv6Network] = []
    for text in prefixes:
        network = ipaddress.ip_network(text, strict=False)
        if network.version != family or network.prefixlen > MAX_LENGTH[family]:
            continue
        if any(bad.prefixlen <= network.prefixlen and network.network_address in bad for bad in REJECT):
            continue
        kept.append(network)
    if family == 4:
        only4 = [network for network in kept if isinstance(network, ipaddress.IPv4Network)]
        return [str(network) for network in sorted(ipaddress.collapse_addresses(only4))]
    only6 = [network for network in kept if isinstance(network, ipaddress.IPv6Network)]
    return [str(network) for network in sorted(ipaddress.collapse_addresses(only6))]


def check_change(*, old: list[str], new: list[str], neighbour: Neighbour) -> None:
    """Hold a list that changed too much or that would trip the neighbour's own limit."""
    if old:
        change = len(set(old) ^ set(new)) / len(old)
        if change > MAX_CHANGE:
            raise BuildError("PFX-103", f"{neighbour.name} changed by {change:.0%}; ask the on-call engineer")
    if len(new) > neighbour.maximum_prefixes:
        limit = neighbour.maximum_prefixes
        raise BuildError("PFX-104", f"{neighbour.name} has {len(new)} prefixes, limit {limit}")


def write_junos(*, neighbour: Neighbour, prefixes: list[str], family: int, folder: Path) -> Path:
    """Write one list in the form that ``load replace`` takes."""
    name = f"AS{neighbour.asn}-IN-V{family}"
    lines = ["policy-options {", f"    replace: prefix-list {name} {{"]
    lines += [f"        {prefix};" for prefix in prefixes]
    lines += ["    }", "}", ""]
    path = folder / f"{neighbour.router}.{name}.conf"
    path.write_text("\n".join(lines))
    return path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--peers", type=Path, default=Path("/etc/prefix-lists/peers.json"))
    parser.add_argument("--out", type=Path, default=Path("/var/lib/prefix-lists"))
    options = parser.parse_args()
    failed = 0
    for row in json.loads(options.peers.read_text()):
        neighbour = Neighbour(**row)
        for family in (4, 6):
            previous = options.out / f"{neighbour.router}.AS{neighbour.asn}-IN-V{family}.json"
            old = json.loads(previous.read_text()) if previous.exists() else []
            try:
                new = clean_prefixes(
                    prefixes=resolve_as_set(as_set=neighbour.as_set, family=family), family=family
                )
                check_change(old=old, new=new, neighbour=neighbour)
            except BuildError as error:
                sys.stderr.write(f"{neighbour.router} {neighbour.name}: {error}\n")
                failed += 1
                continue
            write_junos(neighbour=neighbour, prefixes=new, family=family, folder=options.out)
            previous.write_text(json.dumps(new))
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
