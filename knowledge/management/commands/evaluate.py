"""``manage.py evaluate PATH [--queries FILE] [--json] [--keep]``, ``manage.py evaluate CASES.jsonl --tenant acme``"""

import json
from argparse import ArgumentParser
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from knowledge.config import answer_config
from knowledge.embedding.base import EmbeddingError
from knowledge.embedding.factory import embedder
from knowledge.embedding.spaces import tenant_embedder
from knowledge.evaluation.beir import DataSetError, read_data_set, read_lines
from knowledge.evaluation.history import add_run, read_runs
from knowledge.evaluation.measure import Question, compare_results, fingerprint_of, measure_questions
from knowledge.evaluation.metrics import METRICS
from knowledge.evaluation.place import corpus_tenant
from knowledge.evaluation.run import run_evaluation, search_arms, whole_tenant_reader
from knowledge.evaluation.sets import create_set, read_cases, replace_cases
from knowledge.models import EvaluationSet
from ragsite.core.problems import Problem
from tenants.command_line import find_tenant, whole_tenant
from tenants.models import Membership


class Command(BaseCommand):
    help = (
        "Measures retrieval: nDCG@10, recall@10 and MRR@10 of each arm and of both together, compared with the last run."
        " PATH is a folder in the form of BEIR, searched in a tenant of its own; or, with --tenant, a JSONL file of"
        " questions about that tenant's documents."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("path", type=Path)
        parser.add_argument("--json", action="store_true", help="the figures as JSON on the last line")
        parser.add_argument("--queries", type=Path, help="another file of questions with the same ids")
        parser.add_argument("--keep", action="store_true", help="leave the tenant there, and use it again")
        parser.add_argument("--tenant", help="slug of a tenant whose own documents are to be searched")
        parser.add_argument("--user", help="with --tenant: search as this member; default: the whole tenant")

    def handle(self, *args: Any, **options: Any) -> None:
        if options["tenant"] and (options["queries"] or options["keep"]):
            raise CommandError("--queries and --keep go with a BEIR folder, not with --tenant.")
        if options["user"] and not options["tenant"]:
            raise CommandError("--user goes with --tenant.")
        try:
            if options["tenant"]:
                self._evaluate_tenant(options)
            else:
                self._evaluate_folder(options)
        except (DataSetError, EmbeddingError) as error:
            raise CommandError(str(error)) from None
        except Problem as problem:
            details = "\n".join(f"{error.field}: {error.detail}" for error in problem.errors)
            raise CommandError(details or problem.detail) from None

    def _evaluate_folder(self, options: dict[str, Any]) -> None:
        data = read_data_set(folder=options["path"], queries=options["queries"])
        config = answer_config().retrieval
        with corpus_tenant(
            data=data, embedder=embedder(), keep=options["keep"], on_progress=self._tell_progress
        ) as place:
            search = search_arms(
                membership=whole_tenant_reader(), embedder=embedder(), config=config, names=place.names
            )
            questions = [Question(key, text, data.qrels[key]) for key, text in data.queries.items()]
            search(questions[0].text)  # whatever is made at a first search is none of the questions' time
            measured = measure_questions(questions=questions, search=search)
        before = read_runs(data_hash=data.hash)
        add_run(
            data_hash=data.hash,
            name=data.name,
            measured=measured,
            embedder=embedder().name,
            fingerprint=fingerprint_of(config),
            documents=place.documents,
        )
        figures = {
            "documents": place.documents,
            "queries": len(questions),
            "arms": measured.arms,
            "p50_ms": measured.p50_ms,
            "p95_ms": measured.p95_ms,
        }
        if place.unreadable:
            self.stderr.write(f"{place.unreadable} documents hold no text and were left out.")
        if options["keep"]:
            self.stderr.write(f"The corpus stays in the tenant {place.tenant.slug}.")
        comparison = compare_results(old=before[-1]["results"], new=measured.results) if before else {}
        self._report(
            figures,
            comparison,
            as_json=options["json"],
            name=data.name,
            at=before[-1]["at"] if before else "",
        )

    def _evaluate_tenant(self, options: dict[str, Any]) -> None:
        path: Path = options["path"]
        lines = [line for _, line in read_lines(path)]
        with whole_tenant(find_tenant(options["tenant"])):
            membership = self._member(options["user"]) if options["user"] else None
            cases = read_cases(lines)
            found = EvaluationSet.objects.filter(name=path.stem[:200]).first()
            if found is None:
                found = create_set(name=path.stem[:200], cases=cases)
            else:
                replace_cases(evaluation_set=found, cases=cases)
            run = run_evaluation(
                evaluation_set=found,
                embedder=tenant_embedder(),
                config=answer_config().retrieval,
                membership=membership,
            )
        figures = {
            "documents": run.documents,
            "queries": run.queries,
            "arms": run.metrics,
            "p50_ms": run.p50_ms,
            "p95_ms": run.p95_ms,
        }
        before = run.compared_with
        at = before.created_at.isoformat(timespec="seconds") if before else ""
        self._report(figures, run.comparison, as_json=options["json"], name=found.name, at=at)

    def _member(self, username: str) -> Membership:
        found: Membership | None = (
            Membership.objects.select_related("user", "role")
            .filter(user__username=username, status=Membership.Status.ACTIVE)
            .first()
        )
        if found is None:
            raise CommandError(f"{username} is not an active member of this tenant.")
        return found

    def _tell_progress(self, done: int, total: int) -> None:
        self.stderr.write(f"indexed {done} of {total}")
        self.stderr.flush()

    def _report(
        self, figures: dict[str, Any], comparison: dict[str, Any], *, as_json: bool, name: str, at: str
    ) -> None:
        self.stdout.write(
            f"{name}: {figures['documents']} documents, {figures['queries']} questions,"
            f" p50 {figures['p50_ms']} ms, p95 {figures['p95_ms']} ms"
        )
        self.stdout.write(f"{'arm':10}" + "".join(f"{metric:>12}" for metric in METRICS))
        for arm, values in figures["arms"].items():
            self.stdout.write(f"{arm:10}" + "".join(f"{values[metric]:12.4f}" for metric in METRICS))
        if comparison:
            self.stdout.write(
                f"against the run of {at}: difference, 95 % interval, p (randomisation test), better/worse"
            )
            for arm, metrics in comparison.items():
                for metric in METRICS:
                    each = metrics[metric]
                    self.stdout.write(
                        f"{arm:10}{metric:>12} {each['difference']:+.4f} [{each['low']:+.4f}, {each['high']:+.4f}]"
                        f" p={each['p']:.4f} {each['better']:.0f}/{each['worse']:.0f} of {each['questions']:.0f}"
                    )
        else:
            self.stdout.write("There is no earlier run to compare with.")
        if as_json:
            self.stdout.write(json.dumps(figures))
