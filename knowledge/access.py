"""One thing of the knowledge, for one member: 404 in the same words for what is absent and what is not theirs."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from uuid import UUID

from knowledge.hits.records import wait_for_record
from knowledge.models import Answer, Collection, Conversation, Document, Job, Source
from ragsite.core.problems import Problem, not_found
from tenants.access import Principal, access_one
from tenants.models import Membership, Role
from tenants.scope import Scope, scope


def access_document(membership: Membership, pk: UUID | str, *, deleted: bool = False) -> Document:
    """A document that the member's role reads, with its text left in the database.

    Raises:
        Problem: 404.
    """
    documents = (
        Document.objects.restorable_by(membership) if deleted else Document.objects.visible_to(membership)
    )
    related = documents.without_text().select_related("collection", "source")
    document: Document = access_one(related.defer("source__state"), pk)
    return document


def readable_targets(membership: Membership, ids: set[str]) -> set[str]:
    """Of documents, deleted ones too, those that the member's role reads."""
    documents = Document.objects.visible_to(membership) | Document.objects.restorable_by(membership)
    return {str(pk) for pk in documents.filter(pk__in=ids).values_list("pk", flat=True)}


def access_collection(principal: Principal, pk: UUID | str) -> Collection:
    collection: Collection = access_one(Collection.objects.visible_to(principal), pk)
    return collection


def access_collections(principal: Principal, names: Sequence[str]) -> list[Collection]:
    """Collections by slug or id, all of them or none.

    Raises:
        Problem: 404 as soon as one is not there.
    """
    found = []
    collections = list(Collection.objects.visible_to(principal)) if names else []
    by_name = {c.slug: c for c in collections} | {str(c.pk): c for c in collections}
    for name in names:
        if name not in by_name:
            raise not_found()
        found.append(by_name[name])
    return found


def access_source(membership: Membership, pk: UUID | str) -> Source:
    found = Source.objects.filter(tenant_id=membership.tenant_id).select_related("collection")
    source: Source = access_one(found.defer("state"), pk)
    return source


def access_job(principal: Principal, pk: UUID | str) -> Job:
    job: Job = access_one(Job.objects.visible_to(principal), pk)
    return job


def access_answer(membership: Membership, pk: UUID | str) -> Answer:
    """One's own, or one of a conversation that was shared with one; a hit that is not written down yet is waited for."""
    try:
        return _answer_of(membership, pk)
    except Problem:
        if not wait_for_record(pk):
            raise
        return _answer_of(membership, pk)


def _answer_of(membership: Membership, pk: UUID | str) -> Answer:
    own = Answer.objects.visible_to(membership).filter(pk=pk).first()
    if own is not None:
        answer: Answer = own
        return answer
    shared = Answer.objects.filter(
        tenant_id=membership.tenant_id, conversation__shares__membership_id=membership.pk
    )
    found: Answer = access_one(shared, pk)
    return found


def access_conversation(membership: Membership, pk: UUID | str, *, to_change: bool = False) -> Conversation:
    """One's own conversation; one that was shared is for reading alone."""
    conversations = (
        Conversation.objects.visible_to(membership)
        if to_change
        else Conversation.objects.shared_or_own(membership)
    )
    try:
        conversation: Conversation = access_one(conversations, pk)
    except Problem:
        if not wait_for_record(pk):  # it may have begun with a hit that is not written down yet
            raise
        conversation = access_one(conversations, pk)
    return conversation


def may_read_tags(membership: Membership, tags: Sequence[str]) -> bool:
    """Whether a document with these tags would be readable to the member."""
    readable = membership.role.readable_tags
    return readable is None or bool(set(tags) & set(readable))


def as_member(role: Role, membership: Membership) -> Membership:
    """A member as if they had another role of their tenant; never saved."""
    return Membership(
        tenant_id=membership.tenant_id, user=membership.user, role=role, status=Membership.Status.ACTIVE
    )


def eyes_of(role: Role) -> AbstractContextManager[Scope | None]:
    """The database's own wall as it stands for a role."""
    return scope(tenant_id=role.tenant_id, tags=role.readable_tags)
