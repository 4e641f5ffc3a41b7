"""A cast that the tests of a module share, and a model that is a local server."""

from collections.abc import Iterator
from typing import Any

import pytest

from tests.stub_embeddings import StubEmbeddings
from tests.stub_provider import StubProvider


@pytest.fixture(scope="module")
def shared(django_db_setup: None, django_db_blocker: Any) -> Iterator[Any]:
    """``cast``, made once for a module whose tests do not disturb each other; such a module has no django_db mark."""
    from tests.cast import make_cast
    from tests.emptying import empty_database

    with django_db_blocker.unblock():
        try:
            yield make_cast()
        finally:
            empty_database()


@pytest.fixture
def shared_site(shared: Any, settings: Any) -> Iterator[str]:
    """A real ASGI server over ``shared``; yields its address."""
    from tests.live import serve

    settings.HOPS_IN_CALLING_THREAD = False
    with serve() as address:
        yield address


@pytest.fixture
def configure() -> Iterator[Any]:
    """``configure(RAGSITE_MAX_UPLOAD_BYTES=2000)`` changes the environment for this test."""
    from knowledge.answering import services
    from ragsite.core.config import config

    def forget() -> None:
        config.cache_clear()
        services._gateways.clear()

    with pytest.MonkeyPatch.context() as patch:

        def change(**variables: object) -> None:
            for name, value in variables.items():
                patch.setenv(name, str(value))
            forget()

        yield change
    forget()


@pytest.fixture
def model(configure: Any) -> Iterator[StubProvider]:
    """Anthropic's client is configured, and talks to this server."""
    with StubProvider() as stub:
        # What a question's words decide would be in the way of tests of something else.
        configure(ANTHROPIC_API_KEY="sk-ant-test", ANTHROPIC_BASE_URL=stub.url, RAGSITE_ROUTING="off")
        yield stub


@pytest.fixture
def other(shared: Any, configure: Any) -> Iterator[str]:
    """Another embedding model than acme's, of more dimensions than an index of pgvector takes; a server of ours.

    In the scope of acme, which is searched with its own model again afterwards, and holds no space of another.
    """
    from knowledge.embedding import factory
    from knowledge.embedding.factory import embedder
    from knowledge.embedding.spaces import build_space, drop_space, switch_space
    from knowledge.models import EmbeddingSpace
    from tenants.scope import scope

    name = "openai:wide@2500"
    with StubEmbeddings() as stub:
        configure(OPENAI_API_KEY="sk-test", OPENAI_BASE_URL=stub.url)
        with scope(tenant_id=shared.acme.pk, tags=None):
            yield name
            active = EmbeddingSpace.objects.filter(model=embedder().name).first()
            if active is not None and active.state != "active":
                build_space(active)
                switch_space(space=active)
            for space in EmbeddingSpace.objects.exclude(state="active"):
                drop_space(space=space)
        factory._loaded.pop(name, None)


@pytest.fixture
def timers(shared: Any) -> Iterator[Any]:
    """An evaluation set of acme, of one question."""
    from knowledge.evaluation.sets import create_set, delete_set, read_cases
    from tenants.scope import scope

    document = shared.documents["acme"]["bgp-session-down.md"]
    case = f'{{"question": "What is the hold timer?", "relevant": [{{"document": "{document.pk}", "grade": 1}}]}}'
    with scope(tenant_id=shared.acme.pk, tags=None):
        made = create_set(name="timers", cases=read_cases([case]))
        yield made
        delete_set(evaluation_set=made)
