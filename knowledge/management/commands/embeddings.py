"""``manage.py embeddings --tenant acme [start MODEL | build | compare FILE | switch MODEL | drop MODEL]``"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from knowledge.config import answer_config
from knowledge.embedding.base import EmbeddingError
from knowledge.embedding.factory import embedder_for
from knowledge.embedding.spaces import (
    build_space,
    drop_space,
    progress_of,
    start_migration,
    switch_space,
)
from knowledge.evaluation.measure import compare_results
from knowledge.evaluation.run import run_evaluation
from knowledge.models import EmbeddingSpace, EvaluationSet
from ragsite.core.problems import Problem
from tenants.command_line import find_tenant, whole_tenant


class Command(BaseCommand):
    help = (
        "Changes the embedding model of a tenant while questions go on: start builds vectors of another model beside those"
        " in use, compare measures both on one of the tenant's evaluation sets, switch puts one in place of the other (and"
        " back), drop removes what is not in use. Without an action: how things stand."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--tenant", required=True, help="the tenant's slug")
        actions = parser.add_subparsers(dest="action")
        for name, words in (
            ("start", "make a space of vectors of this model, and build it"),
            ("build", "go on building a space that was interrupted; the worker does so by itself"),
            ("switch", "search in this model's space from now on"),
            ("drop", "remove this model's space"),
        ):
            actions.add_parser(name, help=words).add_argument("model")
        compare = actions.add_parser("compare", help="measure a space beside the one in use")
        compare.add_argument("model")
        compare.add_argument("--set", required=True, help="the name of an evaluation set of the tenant")

    def handle(self, *args: Any, **options: Any) -> None:
        with whole_tenant(find_tenant(options["tenant"])):
            try:
                self._act(options)
            except (Problem, EmbeddingError) as error:
                raise CommandError(getattr(error, "detail", "") or str(error)) from None

    def _act(self, options: dict[str, Any]) -> None:
        match options["action"]:
            case "start":
                space = start_migration(model=options["model"])
                self._build(space)
            case "build":
                self._build(self._space(options["model"]))
            case "switch":
                switch_space(space=self._space(options["model"]))
                self.stdout.write(f"Searched with {options['model']} from now on.")
            case "drop":
                drop_space(space=self._space(options["model"]))
                self.stdout.write(f"{options['model']} is dropped.")
            case "compare":
                self._compare(self._space(options["model"]), options["set"])
            case _:
                self._tell()

    def _space(self, model: str) -> EmbeddingSpace:
        space: EmbeddingSpace | None = EmbeddingSpace.objects.filter(model=model).first()
        if space is None:
            known = ", ".join(EmbeddingSpace.objects.values_list("model", flat=True)) or "none yet"
            raise CommandError(f"There is no space of {model}: choose one of {known}, or start one.")
        return space

    def _build(self, space: EmbeddingSpace) -> None:
        texts = progress_of(space)["missing"]
        build_space(space, on_progress=lambda made: self.stdout.write(f"{made} of {texts} texts embedded"))
        self.stdout.write(f"{space.model} is whole: compare it, then switch to it.")

    def _compare(self, space: EmbeddingSpace, name: str) -> None:
        chosen = EvaluationSet.objects.filter(name=name).first()
        if chosen is None:
            known = ", ".join(EvaluationSet.objects.values_list("name", flat=True)) or "none yet"
            raise CommandError(f"There is no evaluation set “{name}”: choose one of {known}.")
        active = EmbeddingSpace.objects.get(state=EmbeddingSpace.State.ACTIVE)
        runs = {
            each.model: run_evaluation(
                evaluation_set=chosen, embedder=embedder_for(each.model), config=answer_config().retrieval
            )
            for each in (active, space)
        }
        for model, run in runs.items():
            figures = ", ".join(f"{key} {value:.4f}" for key, value in run.metrics["fused"].items())
            self.stdout.write(f"{model}: {figures}")
        paired = compare_results(old=runs[active.model].results, new=runs[space.model].results)["fused"]
        for metric, each in paired.items():
            self.stdout.write(
                f"{metric}: {each['difference']:+.4f} [{each['low']:+.4f}, {each['high']:+.4f}], p={each['p']:.4f}"
            )

    def _tell(self) -> None:
        for space in EmbeddingSpace.objects.all():
            stands = progress_of(space)
            self.stdout.write(
                f"{space.model}: {space.state}, {space.dimensions} dimensions,"
                f" {stands['texts'] - stands['missing']} of {stands['texts']} texts ({stands['percent']} %)"
            )
