"""What the forms of the document pages share."""

from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from rest_framework import serializers

from ragsite.core.problems import FieldProblem, Problem
from tenants.pages import own_path
from tenants.rest import problem_of


def check_form(form: type[serializers.Serializer[Any]], data: dict[str, Any]) -> dict[str, Any]:
    """Values as the API's form of the same thing takes them.

    Raises:
        Problem: 400 whose errors name the fields of the page.
    """
    serializer = form(data=data)
    try:
        serializer.is_valid(raise_exception=True)
    except serializers.ValidationError as error:
        problem = problem_of(error)
        assert problem is not None
        problem.errors = [FieldProblem(e.field.partition(".")[0], e.detail) for e in problem.errors]
        raise problem from None
    values: dict[str, Any] = serializer.validated_data
    return values


def chosen_tags(request: HttpRequest) -> list[str]:
    """The tags that were ticked, and those that were typed beside them."""
    typed = request.POST.get("other_tags", "").replace(",", " ").split()
    return list(dict.fromkeys([*(tag for tag in request.POST.getlist("tags") if tag), *typed]))


def offer_tags(offered: Sequence[str], chosen: Sequence[str]) -> list[dict[str, Any]]:
    """Tags to tick: those on offer, and those that are given already."""
    return [{"name": tag, "on": tag in chosen} for tag in sorted({*offered, *chosen})]


def go_back(request: HttpRequest, otherwise: str) -> HttpResponse:
    """To the page of ours that the form names in ``next``, or that it came from."""
    asked = own_path(request.POST.get("next", ""))
    if not asked:
        came_from = urlsplit(request.headers.get("Referer", ""))
        if came_from.netloc == request.get_host():
            asked = own_path(came_from.path + (f"?{came_from.query}" if came_from.query else ""))
    return redirect(asked or otherwise)


def sentences(problem: Problem) -> str:
    """What a problem says, in one line."""
    return " ".join(error.detail for error in problem.errors) or problem.detail
