"""The models that a question is put to."""

from dataclasses import replace

from knowledge.answering.journey import Journey
from knowledge.answering.small_calls import ask_small_model
from knowledge.config import AnswerConfig
from knowledge.llm.base import ProviderError
from knowledge.llm.gateway import Gateway
from knowledge.llm.routing import CLASSIFY, CLASSIFY_TOKENS, classify_by_rules, read_classification
from ragsite.core.problems import Problem


async def route_question(journey: Journey, *, config: AnswerConfig, gateway: Gateway) -> AnswerConfig:
    """The configuration with the small models in front where the question is simple enough for them.

    Where a model is to say so, its call is an attempt of the journey; when it fails or has no money, the rules decide.
    """
    if config.routing == "off" or not config.has_model or config.models == config.small_models:
        return config
    complexity = classify_by_rules(journey.standalone)
    if config.routing == "model":
        try:
            reply, _ = await ask_small_model(
                journey,
                kind="classify",
                system=CLASSIFY,
                text=journey.standalone,
                max_tokens=CLASSIFY_TOKENS,
                config=config,
                gateway=gateway,
            )
            complexity = read_classification(reply) or complexity
        except (ProviderError, Problem):
            pass
    if complexity == "complex":
        return config
    # The large ones stay behind: should the small ones of every provider fail, they may not.
    rest = tuple(model for model in config.models if model not in config.small_models)
    return replace(config, models=(*config.small_models, *rest))
