"""Retrieval alone: the question's vector, and the passages nearest to it."""

from knowledge.config import AnswerConfig
from knowledge.embedding.base import EmbeddingError, Vectors
from knowledge.embedding.batching import embed_question
from knowledge.embedding.factory import load_embedder
from knowledge.embedding.spaces import active_model, embeddings_unavailable
from knowledge.retrieval.base import Filters, FoundPassage
from knowledge.retrieval.search import search_passages
from ragsite.core.hops import run_db
from ragsite.core.observability import Stopwatch
from tenants.access import Principal


async def _embed(text: str) -> tuple[Vectors, str]:
    """The question's vector by the model that the tenant is searched with, and that model's name."""
    name = await run_db(active_model)
    try:
        model = await load_embedder(name)
        return await embed_question(text, embedder=model), model.name
    except EmbeddingError as error:
        raise embeddings_unavailable(error) from error


async def find_passages(
    *, principal: Principal, text: str, k: int, filters: Filters, config: AnswerConfig, watch: Stopwatch
) -> list[FoundPassage]:
    """Retrieval alone: embed, search under the asker's scope."""
    with watch.stage("embed"):
        vector, model = await _embed(text)
    with watch.stage("retrieve"):
        return await run_db(
            search_passages,
            membership=principal.membership,
            question=text,
            vector=vector,
            model=model,
            k=k,
            filters=filters,
            config=config.retrieval,
        )
