"""Puts a set's questions to the search as the product runs it, keeps the figures, and compares with the run before."""

from collections.abc import Callable, Mapping, Sequence

from knowledge.config import RetrievalConfig
from knowledge.embedding.base import Embedder
from knowledge.evaluation.measure import (
    DEPTH,
    Question,
    compare_results,
    describe_config,
    fingerprint_of,
    measure_questions,
    rank_documents,
)
from knowledge.models import Corpus, Document, EvaluationRun, EvaluationSet
from knowledge.retrieval.base import Filters
from knowledge.retrieval.search import rank_chunks
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.audit import record_by
from tenants.models import Membership, Role, User
from tenants.scope import atomic, require_tenant_id, scope


def whole_tenant_reader() -> Membership:
    """A membership that nobody holds and that is never stored: it reads everything in the tenant in force."""
    role = Role(name="evaluation", reads_everything=True, abilities=[])
    return Membership(tenant_id=require_tenant_id(), user=User(username="evaluation"), role=role)


def search_arms(
    *,
    membership: Membership,
    embedder: Embedder,
    config: RetrievalConfig,
    names: Mapping[str, str] | None = None,
) -> Callable[[str], dict[str, Sequence[str]]]:
    """A search for ``measure_questions``: the documents of each arm, best first, as the member would find them.

    Args:
        names: what documents are called in the grades, by their id; ids when not given.
    """

    def search(question: str) -> dict[str, Sequence[str]]:
        ranking = rank_chunks(
            membership=membership,
            question=question,
            vector=embedder.embed_queries([question])[0],
            model=embedder.name,
            limit=DEPTH,
            filters=Filters(),
            config=config,
        )

        def documents(arm: Sequence[object]) -> list[str]:
            ids = (str(each.document_id) for each in arm)  # type: ignore[attr-defined]
            return rank_documents(ids if names is None else (names[each] for each in ids))

        return {
            "dense": documents(ranking.dense),
            "keyword": documents(ranking.keyword),
            "fused": documents(ranking.fused),
        }

    return search


def run_evaluation(
    *,
    evaluation_set: EvaluationSet,
    embedder: Embedder,
    config: RetrievalConfig,
    membership: Membership | None = None,
    principal: Principal | None = None,
    against: EvaluationRun | None = None,
) -> EvaluationRun:
    """Measures a set and stores the run, with the paired comparison against the set's last one of the same reader.

    To be called in the scope of the whole tenant, outside of a transaction.

    Args:
        membership: whose view is searched, under the walls that hold for them; the whole tenant when not given.
        against: makes this a trial: compared with that run, and no later one is compared with it.

    Raises:
        Problem: 409 for a set without questions.
    """
    cases = list(evaluation_set.cases.all())
    if not cases:
        raise Problem(409, "empty", "This set holds no question yet: import some first.")
    reader = membership or whole_tenant_reader()
    questions = [Question(case.key, case.question, case.grades) for case in cases]
    with scope(tenant_id=reader.tenant_id, tags=reader.role.readable_tags):
        version = Corpus.current_version()
        documents = Document.objects.visible_to(reader).filter(status=Document.Status.INDEXED).count()
        measured = measure_questions(
            questions=questions,
            search=search_arms(membership=reader, embedder=embedder, config=config),
        )
    name = membership.user.username if membership else ""
    with atomic():
        before = against or last_run(evaluation_set=evaluation_set, reader=name)
        run: EvaluationRun = EvaluationRun.objects.create(
            evaluation_set=evaluation_set,
            reader=name,
            embedder=embedder.name,
            fingerprint=fingerprint_of(config),
            config=describe_config(config),
            corpus_version=version,
            documents=documents,
            queries=len(cases),
            metrics=measured.arms,
            results=measured.results,
            comparison=compare_results(old=before.results, new=measured.results) if before else {},
            compared_with=before,
            trial=against is not None,
            p50_ms=measured.p50_ms,
            p95_ms=measured.p95_ms,
        )
        record_by(
            principal,
            "evaluation_set.run",
            evaluation_set,
            {"name": evaluation_set.name, "ndcg@10": measured.arms["fused"]["ndcg@10"]},
        )
    return run


def last_run(*, evaluation_set: EvaluationSet, reader: str) -> EvaluationRun | None:
    """The set's last run under that reader's name, of what was searched at its time."""
    runs = EvaluationRun.objects.filter(evaluation_set=evaluation_set, reader=reader, trial=False)
    found: EvaluationRun | None = runs.first()
    return found
