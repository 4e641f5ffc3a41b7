"""How the index of a tenant stands."""

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render
from django.views.decorators.http import require_GET

from knowledge.freshness import read_freshness
from knowledge.index_figures import read_index_figures, read_spaces
from tenants.access import Principal
from tenants.models import Ability
from tenants.pages import member_page, shell_context


@require_GET
@member_page
def index_page(request: HttpRequest, principal: Principal) -> HttpResponse:
    """Documents, passages, vectors and how current they are; numbers of the whole tenant, for those who manage."""
    principal.require(Ability.MANAGE.value)
    context = shell_context(principal) | {
        "here": "index",
        "figures": read_index_figures(),
        "spaces": read_spaces(),
        "freshness": read_freshness(),
    }
    return render(request, "knowledge/manage/index.html", context)
