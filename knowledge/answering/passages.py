"""Retrieval alone: the question's vector, and the passages nearest to it."""

from knowledge.answering.lookups import Lookup, read_lookup, write_lookup
from knowledge.config import AnswerConfig
from knowledge.embedding.base import EmbeddingError, Vectors
from knowledge.embedding.batching import embed_question, remember_question, remembered_question
from knowledge.embedding.factory import load_embedder
from knowledge.embedding.spaces import embeddings_unavailable
from knowledge.retrieval.base import Filters, FoundPassage
from knowledge.retrieval.search import search_passages
from ragsite.core.config import config as settings
from ragsite.core.hops import run_db
from ragsite.core.observability import Stopwatch
from tenants.access import Principal


async def find_passages(
    *,
    principal: Principal,
    text: str,
    k: int,
    filters: Filters,
    config: AnswerConfig,
    watch: Stopwatch,
    model: str,
    corpus_version: int,
    use_cache: bool = True,
) -> list[FoundPassage]:
    """Retrieval alone: embed, search under the asker's scope; or as it was found before, where nothing has changed.

    Args:
        model: the name of the embedder that the tenant is searched with; empty before anything is indexed.
        corpus_version: read before; what is kept goes by it.
        use_cache: whether what was found before will do.
    """
    model = model or settings().embedding_model
    lookup = Lookup(
        membership=principal.membership,
        text=text,
        k=k,
        filters=filters,
        config=config.retrieval,
        model=model,
        version=corpus_version,
    )
    known = remembered_question(text, model=model)
    if use_cache:
        with watch.stage("cache"):
            found, kept = await read_lookup(lookup, has_vector=known is not None)
        if found is not None:
            return found
        if kept is not None:
            known = remember_question(text, model=model, vector=kept)
    with watch.stage("embed"):
        vector = await _embed(text, model=model) if known is None else known
    with watch.stage("retrieve"):
        passages = await run_db(
            search_passages,
            membership=principal.membership,
            question=text,
            vector=vector,
            model=model,
            k=k,
            filters=filters,
            config=config.retrieval,
        )
    await write_lookup(lookup, passages=passages, vector=vector if known is None else None)
    return passages


async def _embed(text: str, *, model: str) -> Vectors:
    try:
        return await embed_question(text, embedder=await load_embedder(model))
    except EmbeddingError as error:
        raise embeddings_unavailable(error) from error
