"""Options that several kinds of benchmark share."""

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management.base import CommandError

from ragsite.bench import Say
from ragsite.bench._others import null_server, peer_server
from ragsite.bench._provider import KINDS
from ragsite.bench._stack import Bench, own_stack


def add_stack(parser: ArgumentParser, *, documents: int = 0) -> None:
    parser.add_argument(
        "--data", type=Path, help="the stack's data folder, kept for the next run; default: a new one"
    )
    parser.add_argument("--corpus", type=Path, help="a folder of documents; default: those of the demo")
    parser.add_argument(
        "--documents", type=int, default=documents, help="so many made documents in their place"
    )


def add_provider(
    parser: ArgumentParser, *, first_token: float, tokens_per_second: float = 0.0, answer_tokens: int = 120
) -> None:
    parser.add_argument(
        "--first-token", type=float, default=first_token, help="seconds until the model's first token"
    )
    parser.add_argument(
        "--tokens-per-second", type=float, default=tokens_per_second, help="of the rest; 0: all at once"
    )
    parser.add_argument(
        "--answer-tokens", type=int, default=answer_tokens, help="about how long an answer is"
    )
    parser.add_argument(
        "--fail",
        nargs="*",
        default=[],
        metavar="KIND=SHARE",
        help=f"calls of the model that fail: {', '.join(KINDS)}; for instance 529=0.02",
    )
    parser.add_argument("--provider-port", type=int, default=0, help="of the model's stand-in; default: any")


def add_peer(parser: ArgumentParser) -> None:
    parser.add_argument("--peer", help="another program to compare with: its folder, or its address")
    parser.add_argument("--peer-python", default=sys.executable, help="what runs it")
    parser.add_argument("--peer-workers", type=int, default=1, help="its processes")


def behaviour_of(options: dict[str, Any]) -> dict[str, Any]:
    """How the provider behaves.

    Raises:
        CommandError: a failure that there is not.
    """
    failures = {}
    for word in options["fail"]:
        kind, _, share = word.partition("=")
        if kind not in KINDS or not share.replace(".", "", 1).isdigit():
            raise CommandError(
                f"--fail takes {', '.join(KINDS)} with a share, for instance 529=0.02, not {word}."
            )
        failures[kind] = float(share)
    if sum(failures.values()) > 1:
        raise CommandError("The shares of --fail must be at most 1 together.")
    names = ("first_token", "tokens_per_second", "answer_tokens")
    return {name: options[name] for name in names} | {"failures": failures}


@contextmanager
def stack_of(options: dict[str, Any], *, say: Say, members: int, **settings: str) -> Iterator[Bench]:
    """A stack as the options want it, with the servers to compare with."""
    behaviour_of(options)
    corpus: Path | None = options["corpus"]
    if corpus is not None and not corpus.is_dir():
        raise CommandError(f"{corpus} is no folder.")
    stack = own_stack(
        say=say,
        members=members,
        data=options["data"],
        corpus=corpus,
        documents=options["documents"],
        provider_port=options["provider_port"],
        settings=settings,
    )
    with stack as bench:
        if options.get("peer"):
            with peer_server(bench, options, say=say) as peer:
                bench.others["peer"] = peer
                with _with_null(bench, options):
                    yield bench
        else:
            with _with_null(bench, options):
                yield bench


@contextmanager
def _with_null(bench: Bench, options: dict[str, Any]) -> Iterator[None]:
    if not options.get("null"):
        yield
        return
    with null_server(bench) as server:
        bench.others["null"] = server
        yield
