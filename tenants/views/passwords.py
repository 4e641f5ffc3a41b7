"""A forgotten password, and a new one by the link from an e-mail."""

from django.contrib import messages
from django.contrib.auth import logout
from django.core.exceptions import ValidationError
from django.core.validators import validate_email
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils.translation import gettext as _
from django.views.decorators.cache import never_cache
from django.views.decorators.http import require_http_methods

from ragsite.core.problems import FieldProblem, Problem
from tenants.authentication import client_address
from tenants.mail import mail_is_set_up, site_of
from tenants.pages import render_page
from tenants.passwords import request_reset, reset_password, tell_of_new_password, user_of_link

FORGOTTEN = "tenants/forgotten.html"
NEW = "tenants/new_password.html"


@never_cache
@require_http_methods(["GET", "POST"])
def forgotten(request: HttpRequest) -> HttpResponse:
    """Asks for the address, and has a link sent to it."""
    context = {"mail": mail_is_set_up(), "email": "", "sent": False}
    if request.method == "GET" or not mail_is_set_up():
        return render_page(request, FORGOTTEN, context)
    email = request.POST.get("email", "").strip()
    try:
        validate_email(email)
        request_reset(email=email, site=site_of(request), address=client_address(request))
    except ValidationError:
        words = _("Give an e-mail address.")
        problem = Problem(400, "invalid", words, errors=[FieldProblem("email", words)])
        return render_page(request, FORGOTTEN, context | {"email": email[:254]}, problem=problem)
    except Problem as problem:
        return render_page(request, FORGOTTEN, context | {"email": email}, problem=problem)
    return render_page(request, FORGOTTEN, context | {"sent": True})


@never_cache
@require_http_methods(["GET", "POST"])
def new_password(request: HttpRequest) -> HttpResponse:
    """Sets a new password by a link; ends every sign-in of its owner."""
    link = request.POST.get("link", "") or request.GET.get("link", "")
    context = {"link": link, "mail": mail_is_set_up(), "account": None}
    try:
        context["account"] = user_of_link(link)
        if request.method == "GET":
            return render_page(request, NEW, context)
        password = request.POST.get("password", "")[:500]
        if not password or "\0" in password:
            words = _("Choose a password.")
            raise Problem(400, "invalid", words, errors=[FieldProblem("password", words)])
        user = reset_password(link=link, password=password, address=client_address(request))
    except Problem as problem:
        return render_page(request, NEW, context, problem=problem)
    tell_of_new_password(user)
    logout(request)
    messages.success(request, _("Your password is new. Sign in with it."))
    return redirect("sign-in")
