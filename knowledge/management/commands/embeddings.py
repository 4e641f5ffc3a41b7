"""``manage.py embeddings --tenant acme [start MODEL | build | compare FILE | switch MODEL | drop MODEL]``"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from knowledge.embedding.base import EmbeddingError
from knowledge.embedding.spaces import (
    KEPT_FOR,
    Compared,
    build_space,
    drop_space,
    is_compared,
    progress_of,
    start_migration,
    switch_space,
)
from knowledge.evaluation.spaces import compare_space, read_comparison
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
        parsers = {}
        for name, words in (
            ("start", "make a space of vectors of this model, and build it"),
            ("build", "go on building a space that was interrupted; the worker does so by itself"),
            ("switch", "search in this model's space from now on"),
            ("drop", "remove this model's space"),
        ):
            parsers[name] = actions.add_parser(name, help=words)
            parsers[name].add_argument("model")
        parsers["switch"].add_argument(
            "--without-comparison",
            action="store_true",
            help="although it was not compared on an evaluation set of the tenant",
        )
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
                self._switch(self._space(options["model"]), without=options["without_comparison"])
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

    def _switch(self, space: EmbeddingSpace, *, without: bool) -> None:
        if is_compared(space) == Compared.MISSING and not without:
            raise CommandError(
                f"{space.model} was not compared with the model in use on an evaluation set of this tenant:"
                f" “embeddings compare {space.model} --set NAME” first, with one of {self._sets()};"
                " or give --without-comparison."
            )
        if switch_space(space=space, without_comparison=without) == Compared.NO_QUESTIONS:
            self.stderr.write(
                "Nothing was compared: this tenant holds no evaluation set. “manage.py evaluate CASES.jsonl"
                " --tenant …” makes one."
            )
        self.stdout.write(
            f"Searched with {space.model} from now on; one can switch back for {KEPT_FOR.days} days."
        )

    def _sets(self) -> str:
        return ", ".join(EvaluationSet.objects.values_list("name", flat=True)) or "none yet"

    def _compare(self, space: EmbeddingSpace, name: str) -> None:
        chosen = EvaluationSet.objects.filter(name=name).first()
        if chosen is None:
            raise CommandError(f"There is no evaluation set “{name}”: choose one of {self._sets()}.")
        compare_space(space=space, evaluation_set=chosen)
        self._tell_comparison(space)

    def _tell_comparison(self, space: EmbeddingSpace) -> None:
        found = read_comparison(space)
        if found is None:
            return
        self.stdout.write(
            f"  compared with {found.old} on “{found.evaluation_set}”, {found.questions} questions,"
            f" {found.at:%Y-%m-%d %H:%M} UTC: old, new, difference, 95 % interval, paired p"
        )
        for each in found.metrics:
            self.stdout.write(
                f"  {each.name:>10} {each.old:.4f} {each.new:.4f} {each.difference:+.4f}"
                f" [{each.low:+.4f}, {each.high:+.4f}] p={each.p:.4f}"
            )

    def _tell(self) -> None:
        for space in EmbeddingSpace.objects.all():
            stands = progress_of(space)
            self.stdout.write(
                f"{space.model}: {space.state}, {space.dimensions} dimensions,"
                f" {stands['texts'] - stands['missing']} of {stands['texts']} texts ({stands['percent']} %)"
            )
            self._tell_comparison(space)
            match is_compared(space):
                case Compared.MISSING:
                    self.stdout.write(f"  not compared yet; evaluation sets: {self._sets()}")
                case Compared.NO_QUESTIONS:
                    self.stdout.write("  nothing to compare it on: the tenant holds no evaluation set")
            if space.retired_at:
                self.stdout.write(f"  dropped after {space.retired_at + KEPT_FOR:%Y-%m-%d}")
