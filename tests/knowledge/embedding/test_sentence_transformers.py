"""Another model of sentence-transformers by the path of its folder: tiny and random, made here, with prompts."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from knowledge.documents import save_collection
from knowledge.embedding import factory
from knowledge.embedding.base import EmbeddingError
from knowledge.embedding.factory import embedder, embedder_for
from knowledge.embedding.spaces import active_model, embed_for_tenant
from knowledge.models import Collection, Embedding
from tenants.models import Role
from tenants.people import add_member, create_tenant, create_user
from tenants.scope import scope
from tests.cast import add_indexed, member_of
from tests.knowledge.helpers import ask
from tests.knowledge.shared import _django_db_helper, on_shared_cast  # noqa: F401
from tests.knowledge.tiny_bert import save_tiny_bert

pytestmark = on_shared_cast

WORDS = ["query", "passage", ":", "hold", "timer", "is", "thirty", "seconds", "router", "the", "what", "lynx"]
TEXTS = ["the hold timer is thirty seconds", "router"]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A tiny model whose configuration has prompts."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    bert, folder = tmp_path_factory.mktemp("bert"), tmp_path_factory.mktemp("sentence-transformer")
    save_tiny_bert(bert, words=WORDS)
    SentenceTransformer(
        modules=[Transformer(str(bert)), Pooling(16)],
        device="cpu",
        prompts={"query": "query: ", "document": "passage: "},
    ).save(str(folder))
    return str(folder)


def test_questions_and_passages_have_the_prompts_of_the_model(tiny: str) -> None:
    from sentence_transformers import SentenceTransformer

    model, plain = embedder_for(tiny), SentenceTransformer(tiny, device="cpu")
    assert (model.name, model.dimensions) == (tiny, 16)
    for vectors, prompt in ((model.embed(TEXTS), "passage: "), (model.embed_queries(TEXTS), "query: ")):
        assert vectors.shape == (2, 16) and vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
        told = plain.encode([prompt + text for text in TEXTS], prompt="", normalize_embeddings=True)
        assert np.allclose(vectors, told, atol=1e-5)
    assert not np.allclose(model.embed(TEXTS), model.embed_queries(TEXTS), atol=1e-3)
    assert model.embed([]).shape == (0, 16)
    assert model.count_tokens("the lynx is  thirty") == 4


def test_a_new_tenant_is_indexed_and_asked_with_the_configured_folder(
    shared: Any, configure: Any, tiny: str
) -> None:
    configure(EMBEDDING_MODEL=tiny)
    assert embedder().name == tiny
    tenant = create_tenant(slug="lynx", name="Lynx")
    with scope(tenant_id=tenant.pk, tags=None):
        user = create_user(username="lea", email="lea@lynx.example", password="", check_password=False)
        add_member(user=user, role=Role.objects.get(name="admin"))
        collection = save_collection(collection=Collection(), changes={"slug": "den", "name": "Den"})
        text = "# Lynx\n\nThe hold timer of router lynx is thirty seconds.\n"
        document = add_indexed(collection=collection, name="lynx.md", tags=[], text=text)
        assert active_model() == tiny
        assert {np.asarray(row.vector).shape for row in Embedding.objects.all()} == {(16,)}
        vector, model = embed_for_tenant("what is the hold timer")
        told = embedder_for(tiny).embed_queries(["what is the hold timer"])[0]
        assert model == tiny and np.allclose(vector, told, atol=1e-5)
    answer = ask(
        member_of(slug="lynx", username="lea"), "What is the hold timer of router lynx?", cache=False
    )
    assert "thirty seconds" in answer["answer"]
    assert [source["document_id"] for source in answer["sources"]] == [str(document.pk)]
    # The others go on with the model that their vectors are of.
    with scope(tenant_id=shared.acme.pk, tags=None):
        assert active_model() != tiny
    assert "30 seconds" in ask(shared.nina, cache=False)["answer"]


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(EmbeddingError, match=r"not on this machine.*EMBEDDING_MODEL") as caught:
        embedder_for(str(tmp_path / "nowhere"))
    assert caught.value.permanent and str(tmp_path / "nowhere") not in factory._loaded
