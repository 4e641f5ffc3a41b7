"""Passwords: forgotten ones by e-mail, new ones by their owner, and what a new one ends.

A reset answers the same in about the same time whether or not an address is known: whom it belongs to is looked up in
the task that sends the e-mail.
"""

from typing import Any

import structlog
from django.contrib.auth.password_validation import validate_password
from django.contrib.auth.tokens import default_token_generator
from django.core.exceptions import ValidationError
from django.urls import reverse
from django.utils import timezone
from django.utils.encoding import force_bytes
from django.utils.http import urlencode, urlsafe_base64_decode, urlsafe_base64_encode
from django.utils.translation import gettext as _
from kombu.exceptions import OperationalError as BrokerError

from ragsite.core.problems import FieldProblem, Problem
from tenants.audit import record_event
from tenants.authentication import own_memberships
from tenants.limits import begin_attempt, end_attempt, throttle
from tenants.mail import mail_is_set_up, send_mail
from tenants.models import TokenFamily, User
from tenants.people import invalid
from tenants.scope import atomic, enter, scope

PER_ADDRESS = (10, 600)  # requests for a reset from one client, seconds
PER_ACCOUNT = (3, 600)  # e-mails to one address, seconds


def request_reset(*, email: str, site: str, address: str | None) -> None:
    """Has a link sent to whoever has this address. Says nothing about whether anybody has it.

    Raises:
        Problem: 429 after too many, whoever is asked for; 503 when nothing can be sent now.
    """
    from tenants.tasks import send_password_reset

    throttle(what="reset-from", key=address or "", most=PER_ADDRESS[0], seconds=PER_ADDRESS[1])
    throttle(what="reset-of", key=email, most=PER_ACCOUNT[0], seconds=PER_ACCOUNT[1])
    try:
        send_password_reset.apply_async(kwargs={"email": email, "site": site}, expires=1800)
    except BrokerError:
        raise Problem(
            503,
            "mail-unavailable",
            _("No e-mail can be sent at the moment. Try again in a minute."),
            headers={"Retry-After": "60"},
        ) from None


def mail_reset(*, email: str, site: str) -> None:
    """One e-mail with a link for each account of the address that a person may sign in to; else nothing."""
    users = [
        user
        for user in User.objects.filter(email__iexact=email, is_active=True, is_service=False).order_by("pk")
        # The database compares more loosely than a mail server: only what is the same to both is the same.
        if user.email.lower() == email.lower()
    ]
    if not users:
        return
    send_mail(
        to=users[0].email,
        subject=_("A new password for ragsite"),
        template="password_reset",
        context={
            "accounts": [{"username": user.username, "link": f"{site}{_reset_path(user)}"} for user in users],
            "site": site,
        },
    )


def _reset_path(user: User) -> str:
    link = f"{urlsafe_base64_encode(force_bytes(user.pk))}.{default_token_generator.make_token(user)}"
    return f"{reverse('new-password')}?{urlencode({'link': link})}"


def user_of_link(link: str, *, lock: bool = False) -> User:
    """Whose link this is.

    Raises:
        Problem: 410 for one that is unknown, used or too old, in the same words.
    """
    encoded, _dot, token = link.partition(".")
    users = User.objects.filter(is_active=True, is_service=False)
    try:
        pk = int(urlsafe_base64_decode(encoded).decode())
        user = (users.select_for_update() if lock else users).filter(pk=pk).first()
    except (ValueError, OverflowError):
        user = None
    if user is None or not default_token_generator.check_token(user, token):
        raise Problem(
            410,
            "link-used",
            _("This link was used already, is more than an hour old, or is incomplete. Ask for a new one."),
        )
    return user


def reset_password(*, link: str, password: str, address: str | None) -> User:
    """Sets a new password by a link from an e-mail, which works once.

    Raises:
        Problem: 410 for a link that does not hold, 400 for a password that cannot be used.
    """
    with atomic():
        # Locked, so that of two that come at once the second meets the new password.
        user = user_of_link(link, lock=True)
        _set_password(user, password)
        record_for_person(user=user, action="password.reset", address=address)
    end_attempt(account=user.username, address=None)
    return user


def change_password(*, user: User, old: str, new: str, address: str | None) -> None:
    """Sets a new password by somebody who knows the old one; ends every other sign-in.

    Raises:
        Problem: 400 for a wrong old password or a new one that cannot be used, 429 after too many wrong ones.
    """
    check_own_password(user=user, password=old, address=address, field="old")
    with atomic():
        _set_password(user, new, field="new")
        record_for_person(user=user, action="password.change", address=address)


def change_email(*, user: User, email: str, password: str, address: str | None) -> None:
    """Where a person is written to, and where a link to a new password would go: so the password is asked for.

    Raises:
        Problem: 400 for a wrong password or what is no address, 429 after too many wrong passwords.
    """
    check_own_password(user=user, password=password, address=address, field="password")
    before, user.email = user.email, email
    try:
        user.full_clean(exclude=["password"], validate_unique=False)
    except ValidationError as error:
        raise invalid(error) from None
    with atomic():
        user.save(update_fields=["email"])
        record_for_person(
            user=user, action="account.email", address=address, detail={"before": before, "after": email}
        )


def end_other_sign_ins(*, user: User, password: str, address: str | None) -> None:
    """Ends every session and token of a user. The session that asks goes on when it takes the new hash.

    The password is asked for, and stored again under a new salt: sessions and tokens hang on its hash. Whoever found
    an open browser can so not lock its owner out.

    Raises:
        Problem: 400 for a wrong password, 429 after too many.
    """
    check_own_password(user=user, password=password, address=address, field="current")
    with atomic():
        user.set_password(password)
        user.save(update_fields=["password"])
        _end_tokens(user, because="signed out everywhere")
        record_for_person(user=user, action="session.end_all", address=address)


def check_own_password(*, user: User, password: str, address: str | None, field: str) -> None:
    """Whether somebody who is signed in knows their password; counted like a sign-in.

    Raises:
        Problem: 400 for ``field``, 429 after too many.
    """
    begin_attempt(account=user.username, address=address)
    if not password or not user.check_password(password):
        wrong = _("This is not your password.")
        raise Problem(400, "invalid", wrong, errors=[FieldProblem(field, wrong)])
    end_attempt(account=user.username, address=address)


def _set_password(user: User, password: str, *, field: str = "password") -> None:
    try:
        validate_password(password, user)
    except ValidationError as error:
        problem = invalid(error)
        errors = [FieldProblem(field, one.detail) for one in problem.errors]
        raise Problem(400, "invalid", _("The password cannot be used."), errors=errors) from None
    user.set_password(password)
    user.save(update_fields=["password"])
    _end_tokens(user, because="new password")


def _end_tokens(user: User, *, because: str) -> None:
    """Token families end by the password's hash already; this says so in their rows."""
    for membership in own_memberships(user=user):
        with scope(tenant_id=membership.tenant_id, tags=()):
            TokenFamily.objects.filter(membership=membership, revoked_at=None).update(
                revoked_at=timezone.now(), revoked_because=because
            )


def record_for_person(
    *, user: User, action: str, address: str | None, detail: dict[str, Any] | None = None
) -> None:
    """An event of a person, not of one tenant: into the log of each of theirs, else into the platform's."""
    memberships = own_memberships(user=user)
    for membership in memberships:
        with scope(tenant_id=membership.tenant_id, tags=()):
            record_event(
                action=action, membership=membership, method="session", detail=detail, address=address
            )
    if not memberships:
        with enter(None):
            record_event(action=action, actor=user, method="session", detail=detail, address=address)


def tell_of_new_password(user: User) -> None:
    """An e-mail to the owner, so that they learn of it when it was not them. A broker that is away hurts nobody."""
    from tenants.tasks import send_password_changed

    if not user.email or not mail_is_set_up():
        return
    try:
        send_password_changed.apply_async(kwargs={"user_id": user.pk}, expires=24 * 3600)
    except BrokerError as error:
        structlog.get_logger(__name__).warning("no e-mail of a new password", error=type(error).__name__)


def mail_password_changed(*, user_id: int) -> None:
    user = User.objects.filter(pk=user_id).first()
    if user is not None and user.email:
        send_mail(
            to=user.email,
            subject=_("Your password for ragsite was changed"),
            template="password_changed",
            context={"username": user.username},
        )
