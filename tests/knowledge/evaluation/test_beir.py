"""What a folder in the form of BEIR may look like, and what is said of one that cannot be used."""

from pathlib import Path

import pytest

from knowledge.evaluation.beir import DataSetError, read_data_set

CORPUS = '{"_id": "d1", "title": "Timers", "text": "The hold timer is 30."}\n{"_id": 2, "text": "Filters."}\n'
QUERIES = (
    '{"_id": "q1", "text": "hold timer?"}\n{"_id": "q2", "text": "filters?"}\n{"_id": "q3", "text": "x"}\n'
)
QRELS = "query-id\tcorpus-id\tscore\nq1\td1\t2\nq2\t2\t1\nq2\td1\t0\nq3\td1\t0\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "qrels").mkdir()
    (tmp_path / "corpus.jsonl").write_text(CORPUS)
    (tmp_path / "queries.jsonl").write_text(QUERIES)
    (tmp_path / "qrels" / "test.tsv").write_text(QRELS)
    return tmp_path


def test_a_folder_is_read_whole(folder: Path) -> None:
    data = read_data_set(folder=folder)
    assert [(each.id, each.title, each.text) for each in data.corpus] == [
        ("d1", "Timers", "The hold timer is 30."),
        ("2", "", "Filters."),
    ]
    # q3 has nothing relevant: it can measure nothing.
    assert data.queries == {"q1": "hold timer?", "q2": "filters?"}
    assert data.qrels == {"q1": {"d1": 2}, "q2": {"2": 1, "d1": 0}}


def test_other_questions_are_another_data_set_on_the_same_corpus(folder: Path) -> None:
    (folder / "typed.jsonl").write_text(QUERIES.replace("hold timer?", "and the timer?"))
    first, second = read_data_set(folder=folder), read_data_set(folder=folder, queries=folder / "typed.jsonl")
    assert second.queries["q1"] == "and the timer?"
    assert first.corpus_hash == second.corpus_hash and first.hash != second.hash
    assert second.name.endswith("/typed")


def test_four_columns_of_trec_without_a_head_are_read(folder: Path) -> None:
    (folder / "qrels" / "test.tsv").write_text("q1\t0\td1\t1\n")
    assert read_data_set(folder=folder).qrels == {"q1": {"d1": 1}}


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("corpus.jsonl", None, "corpus.jsonl cannot be read"),
        ("corpus.jsonl", "", "corpus.jsonl is empty"),
        ("corpus.jsonl", CORPUS + "{oops\n", "corpus.jsonl, line 3 is not JSON"),
        ("corpus.jsonl", "[1]\n", 'line 1: write an object with "_id"'),
        (
            "corpus.jsonl",
            CORPUS + '{"_id": "d1", "text": "again"}\n',
            "line 3: the id d1 has occurred before",
        ),
        ("corpus.jsonl", '{"_id": "d1"}\n', 'line 1: "text" is missing'),
        ("corpus.jsonl", '{"_id": "d1", "text": 4}\n', 'line 1: "text" is missing or not a text'),
        ("corpus.jsonl", b"\xff\xfe", "is not UTF-8"),
        (
            "queries.jsonl",
            '{"_id": "q1", "text": " "}\n{"_id": "q2", "text": "a"}\n{"_id": "q3", "text": "a"}',
            "q1 is empty",
        ),
        ("queries.jsonl", '{"_id": "q9", "text": "a"}\n', "there is no query “q1”"),
        ("qrels/test.tsv", None, "test.tsv cannot be read"),
        ("qrels/test.tsv", QRELS + "q1\td9\t1\n", "line 6: there is no document “d9”"),
        ("qrels/test.tsv", QRELS + "q1 d1 1\n", "line 6: write the query's id"),
        ("qrels/test.tsv", QRELS + "q1\td1\tgood\n", "line 6: write the query's id"),
        ("qrels/test.tsv", "query-id\tcorpus-id\tscore\n", "holds no judgement"),
        ("qrels/test.tsv", "q1\td1\t0\n", "calls no document relevant"),
    ],
)
def test_what_is_wrong_is_named_with_its_line(
    folder: Path, file: str, content: str | bytes | None, told: str
) -> None:
    path = folder / file
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataSetError) as caught:
        read_data_set(folder=folder)
    assert told in str(caught.value)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(DataSetError, match="There is no folder"):
        read_data_set(folder=tmp_path / "nowhere")
