"""The shapes of questions, answers, searches, model settings and conversations."""

from typing import Any

from django.http import HttpRequest
from rest_framework import serializers

from knowledge.answering.journey import Question, new_question_id
from knowledge.models import Conversation
from tenants.models import validate_tag
from tenants.rates import Grant

MOST_CACHE_SECONDS = 30 * 86400


class SearchForm(serializers.Serializer[Any]):
    question = serializers.CharField(min_length=3, max_length=1000)
    k = serializers.IntegerField(min_value=1, max_value=20, required=False)
    collections = serializers.ListField(
        child=serializers.CharField(max_length=60), required=False, max_length=50, help_text="Slugs or ids."
    )
    tags = serializers.ListField(
        child=serializers.CharField(max_length=60, validators=[validate_tag]), required=False, max_length=50
    )


class QuestionForm(SearchForm):
    conversation = serializers.UUIDField(required=False, allow_null=True)
    cache = serializers.BooleanField(required=False, default=True)


def question_of(form: dict[str, Any], *, request: HttpRequest, endpoint: str, grant: Grant) -> Question:
    """The question of a valid ``QuestionForm``; the request's id becomes the answer's."""
    return Question(
        request_id=new_question_id(request),
        text=form["question"],
        endpoint=endpoint,
        k=form.get("k"),
        collections=tuple(form.get("collections", ())),
        tags=tuple(form.get("tags", ())),
        conversation=form.get("conversation"),
        use_cache=form["cache"],
        grant=grant,
    )


class BatchForm(serializers.Serializer[Any]):
    questions = serializers.ListField(
        child=serializers.CharField(min_length=3, max_length=1000), min_length=1, max_length=100
    )
    k = serializers.IntegerField(min_value=1, max_value=20, required=False)
    collections = serializers.ListField(
        child=serializers.CharField(max_length=60), required=False, max_length=50, help_text="Slugs or ids."
    )
    tags = serializers.ListField(
        child=serializers.CharField(max_length=60, validators=[validate_tag]), required=False, max_length=50
    )
    cache = serializers.BooleanField(required=False, default=True)


class ModelChoiceShape(serializers.Serializer[Any]):
    provider = serializers.CharField(max_length=20)
    model = serializers.CharField(max_length=100, required=False, allow_blank=True)
    small_model = serializers.CharField(max_length=100, required=False, allow_blank=True)


class CacheSecondsShape(serializers.Serializer[Any]):
    """Seconds by content class; 0: not at all."""

    reference = serializers.IntegerField(min_value=0, max_value=MOST_CACHE_SECONDS, required=False)
    documentation = serializers.IntegerField(min_value=0, max_value=MOST_CACHE_SECONDS, required=False)
    configuration = serializers.IntegerField(min_value=0, max_value=MOST_CACHE_SECONDS, required=False)
    troubleshooting = serializers.IntegerField(min_value=0, max_value=MOST_CACHE_SECONDS, required=False)
    state = serializers.IntegerField(min_value=0, max_value=MOST_CACHE_SECONDS, required=False)


class ModelSettingsShape(serializers.Serializer[Any]):
    order = ModelChoiceShape(many=True, help_text="Empty: the environment's. `extractive` ends it: no model.")
    routing = serializers.ChoiceField(
        choices=["", "off", "rules", "model"],
        help_text="Which questions the small models get; empty: the environment's.",
    )
    prompt_tokens = serializers.IntegerField(
        min_value=0,
        max_value=100_000,
        allow_null=True,
        help_text="The passages of a prompt are cut down to so many tokens; 0: not, null: the environment's.",
    )
    cache_seconds = CacheSecondsShape(
        help_text="How long an answer may be shown again, by the content class of what it cites; left out: the default."
    )
    semantic_cache = serializers.BooleanField(
        help_text="Whether an answer is shown for other words that ask the same, where the environment allows it."
    )
    semantic_threshold = serializers.FloatField(
        read_only=True,
        allow_null=True,
        help_text="How alike two questions must be, 0.9–0.99, as readers' ratings have moved it; null: 0.95.",
    )


class WarmForm(serializers.Serializer[Any]):
    most = serializers.IntegerField(min_value=1, max_value=100, default=20, help_text="Questions at most.")


class WarmShape(serializers.Serializer[Any]):
    status = serializers.ChoiceField(choices=["started"])
    questions = serializers.IntegerField(help_text="So many will be answered that are not cached.")


class SourceShape(serializers.Serializer[Any]):
    n = serializers.IntegerField()
    document_id = serializers.UUIDField()
    title = serializers.CharField()
    uri = serializers.CharField()
    collection = serializers.CharField(help_text="Its slug.")
    chunk_id = serializers.UUIDField()
    heading = serializers.CharField()
    text = serializers.CharField()
    score = serializers.FloatField(help_text="0–1")
    page = serializers.IntegerField(allow_null=True)
    start = serializers.IntegerField(help_text="Offset in the document's extracted text, in characters.")
    end = serializers.IntegerField()
    updated_at = serializers.DateTimeField()


class CitationShape(serializers.Serializer[Any]):
    source = serializers.IntegerField(help_text="A source's n.")  # type: ignore[assignment]
    start = serializers.IntegerField(help_text="Offset in the answer, in characters.")
    end = serializers.IntegerField()


class MarkShape(serializers.Serializer[Any]):
    start = serializers.IntegerField(help_text="Offset in the answer, in characters.")
    end = serializers.IntegerField()
    reason = serializers.ChoiceField(
        choices=["unsupported", "names", "negation", "cut_off"],
        help_text="unsupported: the passages do not say it; names: it holds a name or number that they do not; negation: "
        "it denies what they say, or the reverse; cut_off: the answer broke off here, as at its length limit",
    )


class UsageShape(serializers.Serializer[Any]):
    input_tokens = serializers.IntegerField()
    output_tokens = serializers.IntegerField()
    cost_usd = serializers.DecimalField(max_digits=20, decimal_places=12, allow_null=True)


class AnswerShape(serializers.Serializer[Any]):
    request_id = serializers.UUIDField()
    question = serializers.CharField()
    answer = serializers.CharField()
    sources = SourceShape(many=True)
    citations = CitationShape(many=True)
    marks = MarkShape(many=True)
    cache = serializers.ChoiceField(choices=["miss", "exact", "semantic", "coalesced"])
    cache_hit = serializers.BooleanField()
    stale = serializers.BooleanField()
    confidence = serializers.FloatField(
        help_text="0–1: of the evidence, times the share of the answer that its passages support"
    )
    grounded = serializers.BooleanField(
        help_text="It cites, each citation points into a passage shown, and no sentence is marked (but as cut off)."
    )
    answered = serializers.BooleanField(help_text="false: not in your documents")
    model = serializers.CharField()
    provider = serializers.CharField()
    fallback = serializers.BooleanField()
    variant = serializers.CharField(allow_null=True)
    usage = UsageShape()
    latency_ms = serializers.FloatField()
    timings = serializers.DictField(child=serializers.FloatField(), help_text="Milliseconds by stage.")
    conversation = serializers.UUIDField(allow_null=True)
    timestamp = serializers.DateTimeField()
    withheld = serializers.BooleanField(
        required=False, help_text="true: it rests on a document that you may not read (any more)"
    )
    interrupted = serializers.ChoiceField(
        choices=["cancelled", "error"],
        required=False,
        help_text="It broke off: its reader left or stopped it, or it failed. What is there is not all of it.",
    )
    warnings = serializers.ListField(
        child=serializers.CharField(),
        required=False,
        help_text="With an answer just given: a budget is over its soft limit.",
    )


class SearchShape(serializers.Serializer[Any]):
    sources = SourceShape(many=True)
    timings = serializers.DictField(child=serializers.FloatField())


class ConversationShape(serializers.ModelSerializer[Conversation]):
    own = serializers.SerializerMethodField()

    class Meta:
        model = Conversation
        fields = ("id", "title", "pinned", "own", "created_at", "updated_at")

    def get_own(self, conversation: Conversation) -> bool:
        return bool(conversation.user_id == self.context["user_id"])


class ConversationDetailShape(ConversationShape):
    answers = AnswerShape(many=True)

    class Meta(ConversationShape.Meta):
        fields = (*ConversationShape.Meta.fields, "answers")  # type: ignore[assignment]


class ConversationForm(serializers.Serializer[Any]):
    title = serializers.CharField(max_length=200, required=False)
    pinned = serializers.BooleanField(required=False)


class ShareForm(serializers.Serializer[Any]):
    members = serializers.ListField(
        child=serializers.CharField(max_length=150),
        min_length=1,
        max_length=100,
        help_text="Ids or user names of members.",
    )


class ShareShape(serializers.Serializer[Any]):
    shared_with = serializers.ListField(child=serializers.CharField())
