"""What templates of pages share."""

from typing import Any

from django import template
from django.urls import reverse
from django.utils.html import format_html
from django.utils.safestring import SafeString

from ragsite.core.problems import Problem

register = template.Library()


@register.simple_tag(takes_context=True)
def side_link(context: Any, name: str, words: str) -> SafeString:
    """A link at the side to the page ``name``; the present page (``here`` in the context) is marked."""
    current = SafeString(' aria-current="page"') if context.get("here") == name else ""
    return format_html('<li><a href="{}"{}>{}</a></li>', reverse(name), current, words)


@register.simple_tag
def field_error(problem: Problem | None, field: str) -> SafeString | str:
    """What is wrong with ``field``, to stand under it; its input names ``{field}-error`` in ``aria-describedby``."""
    found = [error.detail for error in problem.errors if error.field == field] if problem else []
    return format_html('<p class="field-error" id="{}-error">{}</p>', field, " ".join(found)) if found else ""


@register.simple_tag
def invalid(problem: Problem | None, field: str) -> SafeString | str:
    """The attributes of an input that says what is wrong with it."""
    wrong = problem is not None and any(error.field == field for error in problem.errors)
    return format_html('aria-invalid="true" aria-describedby="{}-error"', field) if wrong else ""


@register.filter
def of_no_field(problem: Problem | None, fields: str) -> list[str]:
    """What is wrong beside the fields named (comma-separated), which say it themselves."""
    if problem is None:
        return []
    named = set(fields.split(","))
    return [error.detail for error in problem.errors if error.field not in named] or (
        [] if problem.errors else [problem.detail]
    )
