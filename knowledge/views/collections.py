"""Collections: named sets of documents with common defaults."""

from typing import Any
from uuid import UUID

from django.contrib import messages
from django.db.models import Count, Max, Q, Sum
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from django.views.decorators.http import require_GET, require_http_methods, require_POST

from knowledge.access import access_collection
from knowledge.api.shapes import CollectionForm
from knowledge.documents import delete_collection, save_collection, start_reindex
from knowledge.models import Collection, Document, Source
from knowledge.tags import known_tags
from knowledge.views.forms import check_form, chosen_tags, offer_tags, sentences
from ragsite.core.problems import Problem
from tenants.access import Principal
from tenants.models import Ability
from tenants.pages import member_page, render_page, shell_context

MANAGE = Ability.MANAGE.value
FIELDS = "name,slug,description,default_tags,language,content_class,retention_days"

Class = Collection.ContentClass
CONTENT_CLASSES = (
    (
        Class.REFERENCE,
        gettext_lazy("Reference"),
        gettext_lazy("Standards, address plans, data sheets."),
    ),
    (
        Class.DOCUMENTATION,
        gettext_lazy("Documentation"),
        gettext_lazy("Designs, handbooks, policies."),
    ),
    (
        Class.CONFIGURATION,
        gettext_lazy("Configuration"),
        gettext_lazy("Device configurations, rule sets."),
    ),
    (
        Class.TROUBLESHOOTING,
        gettext_lazy("Troubleshooting"),
        gettext_lazy("Runbooks, questions and answers, post-mortems."),
    ),
    (
        Class.STATE,
        gettext_lazy("State"),
        gettext_lazy("What changes by the minute: exports, inventories."),
    ),
)
Language = Collection.Language
LANGUAGES = (
    (Language.ENGLISH, gettext_lazy("English")),
    (Language.GERMAN, gettext_lazy("German")),
    (Language.FRENCH, gettext_lazy("French")),
    (Language.SPANISH, gettext_lazy("Spanish")),
    (Language.ITALIAN, gettext_lazy("Italian")),
    (Language.DUTCH, gettext_lazy("Dutch")),
    (Language.PORTUGUESE, gettext_lazy("Portuguese")),
    (Language.SIMPLE, gettext_lazy("Another, or several")),
)


@require_GET
@member_page
def collections_page(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Every collection, with what is in it."""
    principal.require(MANAGE)
    visible = Document.objects.visible_to(principal.membership)
    figures = {
        row["collection_id"]: row
        for row in visible.order_by()
        .values("collection_id")
        .annotate(
            documents=Count("pk"),
            failed=Count("pk", filter=Q(status=Document.Status.FAILED)),
            size=Sum("size"),
            updated=Max("updated_at"),
        )
    }
    sources = dict(
        Source.objects.order_by()
        .values_list("collection_id")
        .annotate(Count("pk"))
        .values_list("collection_id", "pk__count")
    )
    rows = [
        {"collection": c, "figures": figures.get(c.pk, {}), "sources": sources.get(c.pk, 0)}
        for c in Collection.objects.all()
    ]
    context = {"here": "collections", "rows": rows, "classes": CONTENT_CLASSES}
    return render_page(request, "knowledge/manage/collections.html", shell_context(principal) | context)


@require_http_methods(["GET", "POST"])
@member_page
def collection_new(request: HttpRequest, principal: Principal) -> HttpResponse:
    """A form for a new collection."""
    principal.require(MANAGE)
    collection = Collection()
    if request.method == "GET":
        return _render(request, principal, collection, _stored(collection))
    return _save(request, principal, collection)


@require_http_methods(["GET", "POST"])
@member_page
def collection_page(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """One collection's settings."""
    principal.require(MANAGE)
    collection = access_collection(principal, id)
    if request.method == "GET":
        return _render(request, principal, collection, _stored(collection))
    return _save(request, principal, collection)


def _stored(collection: Collection) -> dict[str, Any]:
    return {name: getattr(collection, name) for name in FIELDS.split(",")}


def _save(request: HttpRequest, principal: Principal, collection: Collection) -> HttpResponse:
    posted = request.POST
    typed: dict[str, Any] = {
        "name": posted.get("name", "").strip(),
        "slug": posted.get("slug", "").strip().lower(),
        "description": posted.get("description", "").strip(),
        "default_tags": chosen_tags(request),
        "language": posted.get("language", ""),
        "content_class": posted.get("content_class", ""),
        "retention_days": posted.get("retention_days", "").strip(),
    }
    given = {name: value for name, value in typed.items() if name != "slug" or value}
    given["retention_days"] = typed["retention_days"] or None
    creating = collection._state.adding
    try:
        saved = save_collection(
            collection=collection, changes=check_form(CollectionForm, given), principal=principal
        )
    except Problem as problem:
        return _render(request, principal, collection, typed, problem=problem)
    words = _("Collection %(name)s created.") if creating else _("Collection %(name)s saved.")
    messages.success(request, words % {"name": saved.name})
    return redirect("collections")


def _render(
    request: HttpRequest,
    principal: Principal,
    collection: Collection,
    form: dict[str, Any],
    *,
    problem: Problem | None = None,
) -> HttpResponse:
    context = {
        "here": "collections",
        "collection": None if collection._state.adding else collection,
        "form": form,
        "tags": offer_tags(known_tags(), form["default_tags"]),
        "languages": LANGUAGES,
        "classes": CONTENT_CLASSES,
        "fields": FIELDS,
    }
    return render_page(
        request, "knowledge/manage/collection.html", shell_context(principal) | context, problem=problem
    )


@require_POST
@member_page
def collection_delete(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Removes an empty collection; refused, and said so, while anything is in it."""
    principal.require(MANAGE)
    collection = access_collection(principal, id)
    name = collection.name
    try:
        delete_collection(collection=collection, principal=principal)
    except Problem as problem:
        messages.error(request, sentences(problem))
    else:
        messages.success(request, _("Collection %(name)s deleted.") % {"name": name})
    return redirect("collections")


@require_POST
@member_page
def collection_reindex(request: HttpRequest, principal: Principal, id: UUID) -> HttpResponse:
    """Indexes all of its documents again."""
    principal.require(MANAGE)
    collection = access_collection(principal, id)
    job = start_reindex(collection=collection, principal=principal)
    messages.success(request, _("The documents of %(name)s are indexed again.") % {"name": collection.name})
    return redirect("job-page", job.pk)
