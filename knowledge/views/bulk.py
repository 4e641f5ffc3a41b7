"""What is done with several documents at once: one action for each, and one that fails fails alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from django.utils.translation import gettext as _
from django.utils.translation import ngettext
from django.views.decorators.http import require_POST

from knowledge.access import access_collections
from knowledge.documents import change_document, delete_document, restore_document, start_reindex
from knowledge.models import Document
from knowledge.views.documents import show_list
from knowledge.views.forms import chosen_tags, sentences
from knowledge.views.shown import uuid_in
from ragsite.core.problems import Problem, not_found
from tenants.access import Principal
from tenants.models import Ability
from tenants.pages import member_page

UPLOAD, MANAGE = Ability.UPLOAD.value, Ability.MANAGE.value
MOST_AT_ONCE = 500
MOST_UNDONE = 100  # an address with more ids is longer than some proxies let through
SHOWN_ERRORS = 5


@dataclass(frozen=True)
class Work:
    """What is done to each document, and how it is told of ``n`` of them."""

    do: Callable[[Document], object]
    words: Callable[[int], str]


@require_POST
@member_page
def documents_bulk(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Does what was chosen to every document that is ticked."""
    principal.require(UPLOAD)
    chosen = request.POST.getlist("document")
    try:
        _do(request, principal, chosen, request.POST.get("action", ""))
    except Problem as problem:
        # What is wrong with the request as a whole: the list stays, and says so.
        messages.error(request, sentences(problem))
    return show_list(request, principal)


@require_POST
@member_page
def documents_restore(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Brings deleted documents back: those that the address names, which is how a deletion of several is undone."""
    principal.require(UPLOAD)
    try:
        _do(request, principal, request.GET.getlist("document"), "restore")
    except Problem as problem:
        messages.error(request, sentences(problem))
    return show_list(request, principal)


def _do(request: HttpRequest, principal: Principal, chosen: Sequence[str], action: str) -> None:
    if not chosen:
        raise Problem(400, "invalid", _("Tick the documents first."))
    if len(chosen) > MOST_AT_ONCE:
        raise Problem(400, "too-many", _("Do at most %(most)d documents at once.") % {"most": MOST_AT_ONCE})
    work = _work_of(request, principal, action)
    done, failed = _each(principal, chosen, work, deleted=action == "restore")
    if done:
        words, undo = work.words(len(done)), ""
        if action == "delete" and len(done) <= MOST_UNDONE:
            undo = f"{reverse('documents-restore')}?{urlencode([('document', d.pk) for d in done])}"
        elif action == "delete":
            words += " " + _("They can be restored among the deleted ones.")
        messages.success(request, words, extra_tags=undo)
    for reason in failed[:SHOWN_ERRORS]:
        messages.error(request, reason)
    if (more := len(failed) - SHOWN_ERRORS) > 0:
        words = ngettext("%(n)d more could not be done.", "%(n)d more could not be done.", more)
        messages.error(request, words % {"n": more})


def _each(
    principal: Principal, chosen: Sequence[str], work: Work, *, deleted: bool
) -> tuple[list[Document], list[str]]:
    membership = principal.membership
    visible = (
        Document.objects.restorable_by(membership) if deleted else Document.objects.visible_to(membership)
    )
    ids = list(dict.fromkeys(uuid_in(pk) for pk in chosen))
    rows = visible.filter(pk__in=ids).without_text().select_related("collection")
    found: dict[Any, Document] = {document.pk: document for document in rows}
    done, failed = [], []
    for pk in ids:
        document = found.get(pk)
        try:
            if document is None:
                raise not_found()
            work.do(document)
            done.append(document)
        except Problem as problem:
            name = f"{document.title}: " if document else ""
            failed.append(name + sentences(problem))
    return done, failed


def _work_of(request: HttpRequest, principal: Principal, action: str) -> Work:
    match action:
        case "add-tags" | "remove-tags" | "set-tags":
            return _tagging(principal, action, chosen_tags(request))
        case "move":
            name = request.POST.get("collection", "")
            if not name:
                raise Problem(400, "invalid", _("Choose the collection to move to."))
            collection = access_collections(principal, [name])[0]

            def moved(n: int) -> str:
                words = ngettext("%(n)d document moved to %(name)s.", "%(n)d documents moved to %(name)s.", n)
                return words % {"n": n, "name": collection.name}

            return Work(
                lambda document: change_document(
                    document=document, collection=collection, principal=principal
                ),
                moved,
            )
        case "reindex":
            principal.require(MANAGE)
            return Work(
                lambda document: start_reindex(document=document, principal=principal),
                lambda n: (
                    ngettext("%(n)d document is indexed again.", "%(n)d documents are indexed again.", n)
                    % {"n": n}
                ),
            )
        case "delete":
            return Work(
                lambda document: delete_document(document=document, principal=principal),
                lambda n: ngettext("%(n)d document deleted.", "%(n)d documents deleted.", n) % {"n": n},
            )
        case "restore":
            return Work(
                lambda document: restore_document(document=document, principal=principal),
                lambda n: ngettext("%(n)d document restored.", "%(n)d documents restored.", n) % {"n": n},
            )
    raise Problem(400, "invalid", _("Choose what to do with the documents."))


def _tagging(principal: Principal, action: str, tags: list[str]) -> Work:
    if not tags:
        raise Problem(400, "invalid", _("Choose the tags first."))

    def tag(document: Document) -> None:
        present = set(document.tags)
        wanted = {"add-tags": present | set(tags), "remove-tags": present - set(tags)}.get(action, set(tags))
        if wanted != present:
            change_document(document=document, tags=sorted(wanted), principal=principal)

    return Work(
        tag,
        lambda n: (
            ngettext("Tags of %(n)d document changed.", "Tags of %(n)d documents changed.", n) % {"n": n}
        ),
    )
