"""The models that a question is put to."""

from dataclasses import replace

from knowledge.answering.journey import Journey
from knowledge.answering.spending import complete_usage, reserve_call
from knowledge.config import AnswerConfig
from knowledge.llm.base import ProviderError
from knowledge.llm.gateway import Gateway
from knowledge.llm.routing import CLASSIFY, CLASSIFY_TOKENS, classify_by_rules, read_classification
from ragsite.core.hops import run_db
from ragsite.core.problems import Problem


async def route_question(journey: Journey, *, config: AnswerConfig, gateway: Gateway) -> AnswerConfig:
    """The configuration with the small models in front where the question is simple enough for them.

    Where a model is to say so, its call is an attempt of the journey; when it fails or has no money, the rules decide.
    """
    if config.routing == "off" or not config.has_model or config.models == config.small_models:
        return config
    complexity = classify_by_rules(journey.standalone)
    if config.routing == "model":
        text = journey.standalone
        models = [replace(model, max_tokens=CLASSIFY_TOKENS) for model in config.small_models]
        chars = len(CLASSIFY) + len(text)
        try:
            journey.reserved = await run_db(
                reserve_call,
                membership=journey.principal.membership,
                request_id=journey.question.request_id,
                chars=chars,
                models=models,
            )
            reply, _ = await gateway.complete(
                system=CLASSIFY,
                text=text,
                models=models,
                on_attempt=lambda attempt: journey.attempts.append(
                    (complete_usage(attempt, chars=chars), "classify")
                ),
            )
            complexity = read_classification(reply) or complexity
        except (ProviderError, Problem):
            pass
    if complexity == "complex":
        return config
    # The large ones stay behind: should the small ones of every provider fail, they may not.
    rest = tuple(model for model in config.models if model not in config.small_models)
    return replace(config, models=(*config.small_models, *rest))
