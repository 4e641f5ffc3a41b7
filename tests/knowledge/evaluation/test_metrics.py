import random

import ir_measures
import pytest
from scipy import stats

from knowledge.evaluation.metrics import compare_paired, ndcg, recall, reciprocal_rank, score_ranking


def test_figures_equal_those_of_trec_eval() -> None:
    dice = random.Random(3)
    qrels, run = [], []
    expected: dict[str, dict[str, float]] = {}
    for question in map(str, range(60)):
        pool = [f"d{number}" for number in range(40)]
        dice.shuffle(pool)
        grades = {each: dice.choice([0, 0, 1, 1, 2, 3]) for each in dice.sample(pool, 12)}
        grades["d-not-retrieved"] = 2
        ranked = pool[: dice.randint(1, 30)]
        qrels += [ir_measures.Qrel(question, each, grade) for each, grade in grades.items()]
        run += [ir_measures.ScoredDoc(question, each, 100.0 - place) for place, each in enumerate(ranked)]
        expected[question] = score_ranking(ranked, grades)
    measures = {"ndcg@10": "nDCG@10", "recall@10": "R@10", "mrr@10": "RR@10"}
    parsed = {name: ir_measures.parse_measure(text) for name, text in measures.items()}
    names = {measure: name for name, measure in parsed.items()}
    seen = 0
    for each in ir_measures.iter_calc(list(parsed.values()), qrels, run):
        assert expected[each.query_id][names[each.measure]] == pytest.approx(each.value, abs=1e-9), each
        seen += 1
    assert seen == 180


def test_nothing_relevant_or_nothing_found_is_nought() -> None:
    for figure in (ndcg, recall, reciprocal_rank):
        assert figure(["a"], {}) == 0
        assert figure(["a"], {"a": 0}) == 0
        assert figure([], {"a": 1}) == 0
        assert figure(["x"] * 10 + ["a"], {"a": 1}) == 0
        assert figure(["a"], {"a": 1}) == 1


def test_few_differences_are_tested_exactly() -> None:
    # All five better: 2 of 32 sign assignments are as extreme.
    found = compare_paired([0.1] * 5 + [0.4] * 20, [0.3] * 5 + [0.4] * 20)
    assert found.p == pytest.approx(2 / 32)
    assert (found.questions, found.better, found.worse) == (25, 5, 0)
    assert found.difference == pytest.approx(0.04)
    assert found.low <= found.difference <= found.high
    assert not found.is_significant


def test_many_differences_agree_with_the_t_test() -> None:
    dice = random.Random(5)
    old = [dice.random() for _ in range(200)]
    for shift in (0.0, 0.01, 0.03):
        new = [value + dice.gauss(shift, 0.15) for value in old]
        found = compare_paired(old, new)
        test = stats.ttest_rel(new, old)
        assert found.p == pytest.approx(test.pvalue, abs=0.02)
        interval = test.confidence_interval()
        assert found.low == pytest.approx(interval.low, abs=0.006)
        assert found.high == pytest.approx(interval.high, abs=0.006)
        assert compare_paired(old, new) == found


def test_the_same_twice_is_no_difference_and_other_questions_are_refused() -> None:
    assert compare_paired([0.5, 0.7], [0.5, 0.7]).p == 1.0
    assert compare_paired([], []).questions == 0
    with pytest.raises(ValueError, match="same questions"):
        compare_paired([0.1], [0.1, 0.2])
