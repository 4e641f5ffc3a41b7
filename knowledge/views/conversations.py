"""The history, and what is done to one conversation of it."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render
from django.urls import Resolver404, resolve, reverse
from django.utils.translation import gettext as _
from django.views.decorators.http import require_GET, require_http_methods

from knowledge.access import access_conversation
from knowledge.conversations import (
    Cursor,
    change_conversation,
    delete_conversation,
    describe_sharing,
    find_conversations,
    find_pinned,
    share_conversation,
    unshare_conversation,
)
from knowledge.models import Conversation
from knowledge.views.shown import uuid_in
from ragsite.core.problems import FieldProblem, Problem
from tenants.access import Principal
from tenants.models import Ability, Membership
from tenants.pages import is_part, member_page, render_part, shell_context

ASK = Ability.ASK.value
BESIDE = 20
PAGE = 50
QUERY_CHARACTERS = 200
CHANGED = "history-changed"


def side_context(membership: Membership, *, query: str = "", current: UUID | None = None) -> dict[str, Any]:
    """The conversations beside the Ask page, ``current`` marked."""
    return {
        "pinned": find_pinned(membership=membership, query=query),
        "recent": find_conversations(membership=membership, query=query, limit=BESIDE),
        "query": query,
        "current": current,
    }


@require_GET
@member_page
def history(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Every conversation that the member may read; htmx asks for the list beside the Ask page, or for more rows."""
    principal.require(ASK)
    membership = principal.membership
    query = request.GET.get("q", "").strip()[:QUERY_CHARACTERS]
    if is_part(request) and request.headers.get("HX-Target") == "side-list":
        context = side_context(membership, query=query, current=_conversation_shown(request))
        return render(request, "knowledge/_side_list.html", shell_context(principal) | context)
    behind = Cursor.read(request.GET.get("behind", ""))
    found = find_conversations(membership=membership, query=query, behind=behind, limit=PAGE + 1)
    context = {
        "pinned": find_pinned(membership=membership, query=query) if behind is None else [],
        "recent": found[:PAGE],
        "query": query,
        "first": behind is None,
        "next": str(Cursor.behind(found[PAGE - 1])) if len(found) > PAGE else "",
    }
    part = "rows" if behind is None else "more"
    return render_part(request, "knowledge/history.html", part, shell_context(principal) | context)


def _conversation_shown(request: HttpRequest) -> UUID | None:
    """The conversation of the page that htmx asks from."""
    path = getattr(request, "htmx").current_url_abs_path or ""  # noqa: B009 (htmx's middleware is not typed)
    try:
        match = resolve(path.partition("?")[0])
    except Resolver404:
        return None
    found: UUID | None = match.kwargs.get("id") if match.url_name == "conversation-page" else None
    return found


@require_http_methods(["GET", "POST"])
@member_page
def conversation_settings(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Its title, whether it is pinned, who reads it, and its end; a dialog where htmx asks."""
    principal.require(ASK)
    conversation = access_conversation(principal.membership, id, to_change=True)
    if request.method == "GET":
        return _render(request, principal, conversation)
    try:
        done = _change(request, principal, conversation)
    except Problem as problem:
        return _render(request, principal, conversation, problem=problem)
    messages.success(request, done)
    if request.POST["do"] == "delete":
        return _after_deletion(request, id)
    if not is_part(request):
        return redirect("conversation-settings", id)
    response = _render(request, principal, conversation)
    response.headers["HX-Trigger"] = CHANGED
    return response


def _change(request: HttpRequest, principal: Principal, conversation: Conversation) -> str:
    """Does what the form asks for; returns what there is to say about it."""
    match request.POST.get("do"):
        case "rename":
            title = request.POST.get("title", "").replace("\0", "").strip()[:200]
            change_conversation(conversation=conversation, changes={"title": title}, principal=principal)
            return _("Renamed.")
        case "pin" | "unpin" as do:
            changes = {"pinned": do == "pin"}
            change_conversation(conversation=conversation, changes=changes, principal=principal)
            return _("Pinned.") if do == "pin" else _("Not pinned any more.")
        case "share":
            names = request.POST.get("members", "").replace("\0", "").replace(",", " ").split()
            if not names:
                wrong = FieldProblem("members", _("Name at least one member."))
                raise Problem(400, "invalid", wrong.detail, errors=[wrong])
            named = share_conversation(conversation=conversation, members=names[:100], principal=principal)
            return _("Shared with %(names)s.") % {"names": ", ".join(named)}
        case "unshare":
            share = uuid_in(request.POST.get("share", ""))
            unshare_conversation(conversation=conversation, share=share, principal=principal)
            return _("Not shared with them any more.")
        case "delete":
            delete_conversation(conversation=conversation, principal=principal)
            return _("Deleted.")
    raise Problem(400, "invalid", _("The form is incomplete: open it again."))


def _after_deletion(request: HttpRequest, id: UUID) -> HttpResponse:
    if not is_part(request):
        return redirect("history")
    if _conversation_shown(request) == id:
        return HttpResponse(status=204, headers={"HX-Redirect": reverse("ask")})
    response = render(request, "_messages.html", {"beside": True})
    response.headers["HX-Trigger"] = f"{CHANGED}, close-panel"
    return response


def _render(
    request: HttpRequest, principal: Principal, conversation: Conversation, *, problem: Problem | None = None
) -> HttpResponse:
    context = {
        "conversation": conversation,
        "sharing": describe_sharing(conversation=conversation, membership=principal.membership),
        "typed": request.POST if problem else {},
        "in_dialog": is_part(request),
        "is_behind": is_part(request) and _conversation_shown(request) == conversation.pk,
    }
    return render_part(
        request,
        "knowledge/conversation_settings.html",
        "panel",
        shell_context(principal) | context,
        problem=problem,
    )
