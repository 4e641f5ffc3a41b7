"""A tiny data set in the form of BEIR: four documents, of which one is empty, and three questions."""

import json
from pathlib import Path
from typing import Any

CORPUS = [
    {"_id": "timer", "title": "Timers", "text": "The hold timer towards carriers is 30 seconds."},
    {"_id": "filter", "title": "Filters", "text": "Prefix filters drop bogons at the border."},
    {"_id": "mtu", "title": "", "text": "Jumbo frames want an MTU of 9216 on every leaf."},
    {"_id": "empty", "title": "Nothing", "text": ""},
]
QUERIES = {"q1": "How long is the hold timer?", "q2": "What drops bogons?", "q3": "MTU of leaf switches"}
QRELS = [("q1", "timer", 2), ("q2", "filter", 1), ("q3", "mtu", 1)]


def lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def write_beir(folder: Path) -> Path:
    (folder / "qrels").mkdir(parents=True)
    (folder / "corpus.jsonl").write_text(lines(CORPUS))
    (folder / "queries.jsonl").write_text(
        lines([{"_id": key, "text": text} for key, text in QUERIES.items()])
    )
    rows = "".join(f"{query}\t{document}\t{grade}\n" for query, document, grade in QRELS)
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + rows)
    return folder
