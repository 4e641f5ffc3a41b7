"""The gateway of this process, built from the environment."""

import asyncio
from collections.abc import Sequence
from weakref import WeakKeyDictionary

from knowledge.config import configured_providers
from knowledge.embedding.base import Vectors
from knowledge.embedding.batching import embed_texts
from knowledge.embedding.factory import load_embedder
from knowledge.llm.base import Provider
from knowledge.llm.extractive import ExtractiveProvider
from knowledge.llm.gateway import Gateway
from ragsite.core.config import config

# A client's connections belong to the event loop that opened them.
_gateways: WeakKeyDictionary[asyncio.AbstractEventLoop, Gateway] = WeakKeyDictionary()


async def _embed(texts: Sequence[str]) -> Vectors:
    return await embed_texts(texts, embedder=await load_embedder())


def gateway() -> Gateway:
    """The running event loop's gateway: every provider that is configured, the extractive answerer last."""
    loop = asyncio.get_running_loop()
    if loop not in _gateways:
        providers: list[Provider] = [_make_provider(name) for name in configured_providers()]
        providers.append(ExtractiveProvider(embed=_embed))
        _gateways[loop] = Gateway(providers)
    return _gateways[loop]


def _make_provider(name: str) -> Provider:
    # Importing a client costs seconds, which those without a key need not wait.
    settings = config()
    if name == "anthropic":
        from knowledge.llm.anthropic import AnthropicProvider

        return AnthropicProvider(
            api_key=settings.anthropic_api_key, base_url=settings.anthropic_base_url or None
        )
    from knowledge.llm.openai import AzureProvider, OpenAIProvider

    if name == "openai":
        return OpenAIProvider(api_key=settings.openai_api_key, base_url=settings.openai_base_url or None)
    return AzureProvider(
        api_key=settings.azure_openai_api_key,
        endpoint=settings.azure_openai_endpoint,
        api_version=settings.azure_openai_api_version,
    )
