"""A tenant's own evaluation sets: made by hand, or imported from JSONL."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from knowledge.models import Document, EvaluationCase, EvaluationSet
from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.scope import atomic

MAX_CASES = 10_000
MAX_QUESTION = 1000
MAX_GRADE = 10
_SHAPE = (
    'write {"question": "…", "relevant": [{"document": "its id or path", "grade": 1, "passage": "…"}]},'
    " grade and passage may be left out"
)


@dataclass(frozen=True)
class Relevant:
    """A document that a question should find: ``grade`` 1–10, and the passage that answers it, which may be empty."""

    document_id: UUID
    grade: int = 1
    passage: str = ""


@dataclass(frozen=True)
class NewCase:
    """``key`` names the question from run to run; each once in a set."""

    key: str
    question: str
    relevant: tuple[Relevant, ...]


def create_set(
    *, name: str, cases: Sequence[NewCase] = (), description: str = "", principal: Principal | None = None
) -> EvaluationSet:
    """A new set with its cases.

    Raises:
        Problem: 400 for values that cannot be used, 409 for a name that is taken.
    """
    name = name.strip()
    if not 1 <= len(name) <= 200:
        raise Problem(400, "invalid", "Give the set a name of 1 to 200 characters.")
    with atomic():
        if EvaluationSet.objects.filter(name=name).exists():
            raise Problem(409, "conflict", f"A set named {name} exists already.")
        made: EvaluationSet = EvaluationSet.objects.create(name=name, description=description)
        _write_cases(evaluation_set=made, cases=cases)
        record_by(principal, "evaluation_set.create", made, {"name": name, "cases": len(cases)})
    return made


def replace_cases(
    *, evaluation_set: EvaluationSet, cases: Sequence[NewCase], principal: Principal | None = None
) -> None:
    """The cases of a set, all of them anew. Its runs stay: questions are compared by their keys.

    Raises:
        Problem: 400 for values that cannot be used.
    """
    with atomic():
        EvaluationCase.objects.filter(evaluation_set=evaluation_set).delete()
        _write_cases(evaluation_set=evaluation_set, cases=cases)
        record_by(
            principal,
            "evaluation_set.change",
            evaluation_set,
            {"name": evaluation_set.name, "cases": len(cases)},
        )


def delete_set(*, evaluation_set: EvaluationSet, principal: Principal | None = None) -> None:
    """Removes a set with its cases and runs."""
    with atomic():
        record_by(principal, "evaluation_set.delete", evaluation_set, {"name": evaluation_set.name})
        evaluation_set.delete()


def _write_cases(*, evaluation_set: EvaluationSet, cases: Sequence[NewCase]) -> None:
    problems = list(_check_cases(cases))
    if problems:
        raise Problem(400, "invalid", "Some cases cannot be used; see errors.", errors=problems[:50])
    EvaluationCase.objects.bulk_create(
        [
            EvaluationCase(
                evaluation_set=evaluation_set,
                key=case.key,
                question=case.question.strip(),
                relevant=[
                    {"document": str(each.document_id), "grade": each.grade, "passage": each.passage}
                    for each in case.relevant
                ],
            )
            for case in cases
        ],
        batch_size=500,
    )


def _check_cases(cases: Sequence[NewCase]) -> Iterable[FieldProblem]:
    if len(cases) > MAX_CASES:
        yield FieldProblem("cases", f"{len(cases)} cases: a set holds at most {MAX_CASES}.")
        return
    wanted = {each.document_id for case in cases for each in case.relevant}
    known = set(Document.objects.filter(pk__in=wanted).values_list("pk", flat=True))
    keys: set[str] = set()
    for number, case in enumerate(cases, start=1):
        where = f"cases.{number}"
        if not 1 <= len(case.key) <= 200 or case.key in keys:
            yield FieldProblem(f"{where}.key", "Give each question a key of its own, 1 to 200 characters.")
        keys.add(case.key)
        if not 3 <= len(case.question.strip()) <= MAX_QUESTION:
            yield FieldProblem(f"{where}.question", "A question has 3 to 1,000 characters.")
        if not case.relevant:
            yield FieldProblem(f"{where}.relevant", "Name at least one document that answers it.")
        for each in case.relevant:
            if each.document_id not in known:
                yield FieldProblem(f"{where}.relevant", f"There is no document {each.document_id}.")
            if not 1 <= each.grade <= MAX_GRADE:
                yield FieldProblem(f"{where}.relevant", f"A grade is 1 to {MAX_GRADE}.")


def read_cases(lines: Iterable[str]) -> list[NewCase]:
    """Cases from JSONL, one a line; documents are named by their id or their path (``uri``).

    Raises:
        Problem: 400 with every wrong line by its number.
    """
    rows: list[tuple[int, dict[str, Any]]] = []
    problems: list[FieldProblem] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            reason = _find_fault(row)
        except ValueError as error:
            reason = f"not JSON ({error})"
        if reason:
            problems.append(FieldProblem(f"line {number}", f"{reason}: {_SHAPE}."))
        else:
            rows.append((number, row))
    if not rows and not problems:
        problems.append(FieldProblem("line 1", f"There is no question: {_SHAPE}."))
    names = {_name_of(each) for _, row in rows for each in row["relevant"]}
    found = _find_documents(names)
    cases = []
    for number, row in rows:
        relevant = []
        for each in row["relevant"]:
            document_id = found.get(_name_of(each))
            if document_id is None:
                problems.append(
                    FieldProblem(
                        f"line {number}",
                        f"There is no document “{_name_of(each)}”, or several of that path: name it by its id.",
                    )
                )
                continue
            parts = each if isinstance(each, dict) else {}
            relevant.append(Relevant(document_id, parts.get("grade", 1), parts.get("passage", "")))
        cases.append(NewCase(str(row.get("id", number)), row["question"], tuple(relevant)))
    if problems:
        raise Problem(400, "invalid", "Some lines cannot be used; see errors.", errors=problems[:50])
    return cases


def _find_fault(row: Any) -> str:
    if not isinstance(row, dict):
        return "not an object"
    if not isinstance(row.get("question"), str):
        return "question is missing or not a text"
    if "id" in row and not isinstance(row["id"], str | int):
        return "id is neither a text nor a number"
    relevant = row.get("relevant")
    if not isinstance(relevant, list) or not relevant:
        return "relevant is missing or empty"
    for each in relevant:
        if isinstance(each, str):
            continue
        if not isinstance(each, dict) or not isinstance(_name_of(each), str):
            return "a relevant document is neither a text nor an object with “document”"
        grade = each.get("grade", 1)
        if not isinstance(grade, int) or isinstance(grade, bool) or not 1 <= grade <= MAX_GRADE:
            return f"a grade is not a whole number from 1 to {MAX_GRADE}"
        if not isinstance(each.get("passage", ""), str):
            return "a passage is not a text"
    return ""


def _name_of(each: Any) -> Any:
    return each.get("document", each.get("uri")) if isinstance(each, dict) else each


def _find_documents(names: set[str]) -> Mapping[str, UUID]:
    """Documents by id or path; a path that several documents have leads to none."""
    rows = Document.objects.filter(deleted_at__isnull=True).values_list("pk", "uri")
    by_name: dict[str, set[UUID]] = {}
    for pk, uri in rows.iterator(chunk_size=5000):
        for name in (str(pk), uri):
            if name in names:
                by_name.setdefault(name, set()).add(pk)
    return {name: next(iter(ids)) for name, ids in by_name.items() if len(ids) == 1}
