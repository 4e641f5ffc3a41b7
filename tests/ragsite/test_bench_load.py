"""The benchmarks of the answer path: a few seconds of each, on one stack, whose figures must add up."""

import argparse
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError

from ragsite.bench import acceptance, bench_kinds, capacity, day, load, streams
from ragsite.bench._figures import added_seconds, list_price, percentile, summarise
from ragsite.bench._generator import Record
from ragsite.bench._ledger import count_ledger, read_ledger
from ragsite.bench._options import stack_of
from ragsite.bench._others import null_server, peer_server
from ragsite.bench._questions import (
    distinct_questions,
    draw_day,
    find_subjects,
    make_documents,
    new_questions,
)
from ragsite.bench._stack import Bench

DOCUMENTS = 24
PEER = """
import json
seen = set()
async def app(scope, receive, send):
    body = b""
    while (part := await receive()).get("body") is not None:
        body += part["body"]
        if not part.get("more_body"):
            break
    authorised = any(name == b"authorization" for name, _ in scope["headers"])
    question = json.loads(body)["question"]
    answer = json.dumps({"answer": "42", "cache_hit": question in seen}).encode()
    seen.add(question)
    length = [(b"content-length", str(len(answer)).encode())]
    await send({"type": "http.response.start", "status": 200 if authorised else 401, "headers": length})
    await send({"type": "http.response.body", "body": answer})
"""


def options_of(kind: str, *words: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    bench_kinds()[kind].add_arguments(parser)
    return vars(parser.parse_args(words))


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    options = options_of("load", "--documents", str(DOCUMENTS))
    with stack_of(options, say=lambda line: None, members=6) as bench:
        yield bench


def tokens_of(stats: dict[str, Any]) -> int:
    return sum(sum(usage.values()) for usage in stats["tokens"].values())


def test_load_adds_up(bench: Bench) -> None:
    words = ["--connections", "4", "--seconds", "2", "--known", "10", "--repeats", "0.5", "--streams", "0.4"]
    work = load.Work(bench, options_of("load", *words, "--first-token", "0.01"), say=lambda line: None)
    work._warm(bench.ours, connections=4)  # what it calls is no part of the figures
    before = read_ledger(bench)
    found = work.ask(bench.ours, connections=4)
    stats = bench.provider_stats()
    assert found["requests"] == found["answered"] == sum(found["caches"].values()) > 8
    assert found["errors"] == {} and found["caches"]["exact"] > 0
    # Every miss is a call of the model, but for those of which the documents hold too little.
    assert found["model_calls"] == found["caches"]["miss"] - found["weak"] > 0
    assert found["hit_rate"] == pytest.approx(1 - found["caches"]["miss"] / found["answered"], abs=1e-4)
    assert sum(kind["n"] for kind in found["kinds"].values()) == found["answered"]
    streamed = sum(kind["n"] for name, kind in found["kinds"].items() if name.startswith("stream:"))
    assert 0 < found["sources"]["n"] == streamed < found["answered"]
    ledger = count_ledger(bench, before, calls=stats["calls"])
    assert (ledger["calls"], ledger["tokens"]) == (stats["calls"], tokens_of(stats))
    assert ledger["usd"] == pytest.approx(list_price(stats["tokens"]), abs=2e-6)
    assert found["cpu_ms_per_request"] > 0 and found["peak_rss_mb"] > 50


def test_other_servers_stand_beside_ours(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(PEER)
    (tmp_path / "index.py").write_text("import sys; assert len(open(sys.argv[1]).readlines()) >= 24\n")
    words = [
        "--connections",
        "2",
        "--seconds",
        "0.5",
        "--rounds",
        "3",
        "--known",
        "5",
        "--repeats",
        "0.9",
    ]
    options = options_of("load", *words, "--first-token", "0.01", "--peer", str(tmp_path))
    with null_server(bench) as null, peer_server(bench, options, say=lambda line: None) as peer:
        bench.others.update(peer=peer, null=null)
        try:
            found = load.Work(bench, options, say=lambda line: None).compare()
        finally:
            bench.others.clear()
    assert {name: len(rounds) for name, rounds in found["rounds"].items()} == {
        "ours": 3,
        "peer": 3,
        "null": 3,
    }
    assert found["rounds"]["peer"][0]["errors"] == {} and found["rounds"]["null"][0]["model_calls"] == 0
    # What is repeated was asked before, what is new was not.
    assert found["medians"]["peer"]["caches"]["exact"] > found["medians"]["peer"]["caches"]["miss"] > 0
    rates = {name: sorted(each["rps"] for each in rounds)[1] for name, rounds in found["rounds"].items()}
    assert found["medians"]["ours"]["rps"] == pytest.approx(rates["ours"], abs=0.01)
    assert found["ratio"]["peer"]["rps"] == pytest.approx(rates["ours"] / rates["peer"], rel=0.01)
    table = "\n".join(load.render(found))
    assert "ours beside peer: rps" in table and "ours beside null: rps" in table
    with (
        pytest.raises(CommandError, match="holds no app"),
        peer_server(bench, {"peer": "/"}, say=lambda line: None),
    ):
        pass


def test_users_grow(bench: Bench) -> None:
    words = ["--seconds", "0.5", "--rounds", "1", "--known", "5", "--repeats", "1"]
    found = load.Work(bench, options_of("load", *words), say=lambda line: None).grow([1, 3])
    assert set(found["growth"]) == {"1", "3"} and found["growth"]["3"]["model_calls"] == 0
    assert f"{found['knee']:>7} " in next(line for line in load.render(found) if "knee" in line)
    assert load.find_knee({10: 50.0, 50: 95.0, 100: 100.0, 500: 80.0}) == 50


def test_streams_are_compared_with_what_was_sent(bench: Bench) -> None:
    words = ["--streams", "6", "--alone", "2", "--ramp", "0.2", "--tokens-per-second", "200"]
    found = streams.compare(
        bench, options_of("streams", *words, "--answer-tokens", "60"), say=lambda line: None
    )
    for each, count in ((found["alone"], 2), (found["at_once"], 6)):
        assert each["streams"] == count and each["dropped"] == each["incomplete"] == each["restarts"] == 0
        assert each["whole"] + each["unasked"] == count and each["whole"] > 0
        assert each["sources"]["n"] == count
    assert found["at_once"]["most_at_once"] > 1 == found["alone"]["most_at_once"]
    assert "p99 gap at once ÷ alone" in "\n".join(streams.render(found))

    # It sees a text that lacks something, and a stream that does not end.
    log = [{"question": name, "text": "one two", "seconds": 0.1} for name in "ab"]
    whole = Record("a", True, 0.0, status=200, cache="miss", text="one  two", parts=[0.1, 0.2, 0.5])
    short = Record("b", True, 0.0, status=200, cache="miss", text="one", parts=[0.1])
    lost = Record("c", True, 0.0, problem="no end")
    told = streams.describe([whole, short, lost], {"log": log, "most_open": 2})
    assert (told["whole"], told["incomplete"], told["dropped"], told["problems"]) == (1, 1, 1, ["no end"])
    assert told["gap"]["n"] == 2 and told["gap"]["max"] == 300


def test_a_day_costs_what_was_counted(bench: Bench) -> None:
    words = ["--questions", "40", "--distinct", "12", "--connections", "3"]
    found = day.compare(bench, options_of("day", *words), say=lambda line: None)
    for name in ("with", "without"):
        each = found[name]
        assert each["questions"] == 40 and each["errors"] == 0
        assert sum(each[cache] for cache in ("exact", "semantic", "coalesced", "miss")) == 40
        assert each["model_calls"] == each["ledger_calls"] == each["miss"] - each["weak"]
        assert each["ledger_tokens"] == each["provider_tokens"] > 0
        assert each["ledger_usd"] == pytest.approx(each["provider_usd"], abs=2e-6)
        assert each["cited"] == 1 and each["source_found"] > 0.9
    assert found["without"]["miss"] == 40 > found["with"]["miss"]
    assert len(found["with"]["by_model"]) == 2 and set(found["without"]["by_model"]) == {"claude-sonnet-5-5"}
    assert found["ratio"] == pytest.approx(
        found["with"]["ledger_usd"] / found["without"]["ledger_usd"], abs=1e-4
    )
    assert found["day"]["meanings"] <= 12 and "by the provider's count" in "\n".join(day.render(found))


def test_a_team_is_asked_for_at_its_own_traffic_and_twice_that(bench: Bench) -> None:
    words = ["--engineers", "4", "--questions", "20", "--minutes", "0.04", "--known", "8"]
    words += ["--first-token", "0.01", "--tokens-per-second", "0"]
    options = options_of("acceptance", *words)
    found = acceptance.run_day(bench, options, traffic=[1.0, 2.0], say=lambda line: None)
    rounds = found["servers"]["ours"]
    assert set(rounds) == {"1", "2"} and rounds["2"]["requests"] > rounds["1"]["requests"] > 5
    for each in rounds.values():
        assert each["errors"] == {} and each["ledger"]["calls"] == each["model_calls"]
        assert each["month_usd"] == pytest.approx(30 * each["day_usd"], rel=0.01, abs=1e-3)
        assert each["ledger"]["usd"] == pytest.approx(each["day_usd"], abs=2e-6)
    assert "4 engineers, 20 questions a day" in "\n".join(acceptance.render(found))


def test_failures_are_reported(bench: Bench) -> None:
    """Last: a breaker that opens would be felt by the others."""
    words = [
        "--connections",
        "3",
        "--known",
        "1",
        "--repeats",
        "0",
        "--streams",
        "0",
        "--fail",
        "529=0.3",
    ]
    work = load.Work(bench, options_of("load", *words, "--first-token", "0"), say=lambda line: None)
    before = read_ledger(bench)
    found = work.ask(bench.ours, connections=3, seconds=1.5)
    stats = bench.provider_stats()
    assert set(stats["failures"]) == {"529"} and found["provider"]["failures"] == stats["failures"]
    assert found["model_calls"] == stats["calls"] == stats["answered"] + stats["failures"]["529"]
    assert found["errors"] == {}  # they were asked again
    assert count_ledger(bench, before, calls=stats["calls"])["calls"] == stats["calls"]


def test_what_cannot_be_used_is_said_at_once() -> None:
    wrong = {
        "load": (["--rounds", "0"], ["--growth", "0,5"], ["--fail", "418=0.5"], ["--corpus", "/nowhere"]),
        "streams": (["--streams", "0"], ["--tokens-per-second", "0"], ["--fail", "hang=0.6", "broken=0.6"]),
        "day": (["--questions", "0"],),
        "acceptance": (["--traffic", "much"], ["--minutes", "0"]),
        "capacity": (["--users", "many"], ["--fill", "0"]),
    }
    for kind, cases in wrong.items():
        for words in cases:
            with pytest.raises(CommandError, match=r"must (not )?be|takes|at most|no folder"):
                bench_kinds()[kind].measure(options_of(kind, *words), say=lambda line: None)


def test_errors_are_counted_by_status_and_the_models_time_is_taken_off() -> None:
    log = [{"question": "a", "seconds": 0.6}]
    records = [
        Record("a", False, 0.0, status=200, cache="miss", seconds=0.65),
        Record("b", False, 0.0, status=200, cache="exact", seconds=0.01),
        Record("a", True, 0.1, status=200, cache="coalesced", seconds=0.4),
        Record("c", False, 0.0, status=429, seconds=0.01),
        Record("d", True, 0.0, status=200, problem="no end", seconds=0.2),
        Record("e", False, 1.0, status=0, seconds=1.0),
    ]
    found = summarise(records, log=log, cpu=0.6, peak=2**20, generator=0.06)
    assert found["errors"] == {"429": 1, "stream": 1, "lost": 1}
    assert (found["requests"], found["answered"], found["rps"]) == (6, 3, 1.5)
    assert found["cpu_ms_per_request"] == 100 and found["generator_ms_per_request"] == 10
    assert added_seconds(records, log) == pytest.approx([0.05, 0.01, 0.0])
    assert percentile([4, 1, 3, 2], 0.5) == 2 and percentile([], 0.5) is None


def test_questions_are_the_same_every_time_and_about_their_documents() -> None:
    texts = dict(make_documents(30))
    assert texts == dict(make_documents(30)) and len(texts) == 30
    subjects = find_subjects(texts)
    assert all(name in texts[uri] for name, uri in subjects)
    fresh = list(islice(new_questions(subjects), 2000))
    assert len(set(fresh)) == 2000 and fresh == list(islice(new_questions(subjects), 2000))
    distinct = distinct_questions(subjects, count=50)
    drawn = draw_day(distinct, count=2000)
    assert drawn == draw_day(distinct, count=2000)
    by_meaning = [[each.meaning for each in drawn].count(wordings[0].meaning) for wordings in distinct]
    assert by_meaning[0] > 3 * by_meaning[9] > 0  # by Zipf's law the first is asked ten times as often
    assert len({each.text for each in drawn if each.meaning == distinct[0][0].meaning}) > 3
    with pytest.raises(ValueError, match="identifiers for"):
        distinct_questions(subjects, count=10**6)


def test_machines_are_computed_from_costs() -> None:
    costs = capacity.Costs(
        hit_ms=2,
        miss_ms=50,
        stream_ms_per_s=1,
        database_ms=10,
        model_s=2,
        answer_kb=10,
        stream_kb=10,
        base_mb=50,
    )
    habits = capacity.Habits(questions=40, peak=3, repeats=0.9, kept=43_200, fill=0.5, connections=16)
    few, many = (capacity.plan(users, costs=costs, habits=habits) for users in (50, 500_000))
    assert few["web_processes"] == 2 and few["database_cores"] == 1
    # 20 million questions a day; in the busiest hour 2083.33 a second, of which 208.33 are misses.
    assert many["questions_per_s"] == pytest.approx(2083.33) and many["model_calls_per_s"] == pytest.approx(
        208.33
    )
    assert many["streams_at_once"] == 417
    # (1875 · 2 + 208.33 · 50 + 416.67 · 1) ms a second, at half a core each
    assert many["web_processes"] == 30 and many["database_cores"] == 42
    assert many["database_connections"] == 480
    # A million kept answers and 1.25 million answers' events of 10 KB
    assert many["redis_memory_mb"] == round(50 + 1e6 * 10 / 1024 + 2083.3333 * 600 * 10 / 1024)
    table = list(capacity.render(capacity.measure(options_of("capacity"), say=lambda line: None)))
    assert table[0].split() == ["users", "50", "5000", "500000"] and len(table) == 9
