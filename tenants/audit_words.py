"""The audit log in words: what an action is called, and what changed."""

import json
from typing import Any

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from tenants.models import AuditEvent

# Every action that is recorded, in the order in which the log's filter offers them.
ACTIONS: dict[str, str | Promise] = {
    "question.ask": _("asked a question"),
    "document.read": _("read a document"),
    "document.upload": _("uploaded a document"),
    "document.change": _("changed a document"),
    "document.replace": _("replaced a document's content"),
    "document.push": _("pushed a document by webhook"),
    "document.delete": _("deleted a document"),
    "document.restore": _("restored a document"),
    "document.expire": _("deleted a document for its age"),
    "document.move": _("followed a document to its new path"),
    "document.erase": _("erased a document for good"),
    "collection.create": _("made a collection"),
    "collection.change": _("changed a collection"),
    "collection.delete": _("deleted a collection"),
    "models.change": _("changed the language models"),
    "question.batch": _("asked several questions at once"),
    "source.create": _("added a source"),
    "source.change": _("changed a source"),
    "source.check": _("tested a source's connection"),
    "source.sync": _("had a source synchronised"),
    "source.pause": _("paused a source"),
    "source.resume": _("let a source go on"),
    "source.take_again": _("had a source take deleted documents again"),
    "source.delete": _("deleted a source"),
    "source.hook": _("had a source synchronised by webhook"),
    "source.hook_create": _("made a webhook's secret"),
    "source.hook_rotate": _("made a new secret for a webhook"),
    "source.hook_delete": _("ended a webhook's secrets"),
    "embedding.start": _("began vectors of another model"),
    "embedding.compare": _("had two embedding models compared"),
    "embedding.switch": _("changed the embedding model"),
    "embedding.drop": _("dropped a model's vectors"),
    "evaluation_set.create": _("made an evaluation set"),
    "evaluation_set.change": _("changed an evaluation set"),
    "evaluation_set.delete": _("deleted an evaluation set"),
    "evaluation_set.run": _("measured with an evaluation set"),
    "index.rebuild": _("had the index rebuilt"),
    "task.cancel": _("cancelled a job"),
    "task.retry": _("had a job tried again"),
    "cache.clear": _("emptied the cache"),
    "cache.warm": _("had frequent questions answered ahead"),
    "conversation.change": _("renamed or pinned a conversation"),
    "conversation.share": _("shared a conversation"),
    "conversation.unshare": _("stopped sharing a conversation"),
    "conversation.delete": _("deleted a conversation"),
    "document_request.create": _("asked for a document"),
    "document_request.change": _("handled a request for a document"),
    "review.change": _("reviewed an answer"),
    "feedback.create": _("rated an answer"),
    "feedback.change": _("changed a rating"),
    "feedback.delete": _("withdrew a rating"),
    "member.add": _("became a member"),
    "member.change": _("changed a member"),
    "member.remove": _("removed a member"),
    "invitation.create": _("invited somebody"),
    "invitation.resend": _("sent an invitation again"),
    "invitation.revoke": _("withdrew an invitation"),
    "invitation.accept": _("accepted an invitation"),
    "role.create": _("made a role"),
    "role.change": _("changed a role"),
    "role.delete": _("deleted a role"),
    "role.preview": _("looked at what a role sees"),
    "search.explain": _("looked at why something is found"),
    "budget.create": _("set a budget"),
    "budget.change": _("changed a budget"),
    "budget.delete": _("removed a budget"),
    "budget.near": _("a budget is used to 80 %"),
    "budget.spent": _("a budget is used up"),
    "api_key.create": _("made an API key"),
    "api_key.revoke": _("revoked an API key"),
    "session.sign_in": _("signed in"),
    "session.sign_in_failed": _("failed to sign in"),
    "session.sign_out": _("signed out"),
    "session.switch_tenant": _("came over from another tenant"),
    "session.end_all": _("signed out everywhere else"),
    "token.revoke": _("revoked a token"),
    "token.reuse_detected": _("used a refresh token twice: the sign-in was ended"),
    "password.change": _("changed their password"),
    "password.reset": _("set a new password by e-mail"),
    "account.email": _("changed their e-mail address"),
    "tenant.create": _("made the tenant"),
    "tenant.change": _("changed the settings"),
    "tenant.suspended": _("suspended the tenant"),
    "tenant.active": _("let the tenant in again"),
    "admin.export": _("exported a list in the administration"),
    "audit.export": _("exported the audit log"),
    "usage.export": _("exported the costs"),
}


def words_of(event: AuditEvent) -> str | Promise:
    """What happened, after the actor's name. An action without words of its own is told by its name."""
    if event.action == "member.add" and event.detail.get("user") not in (None, event.actor_name):
        return _("added a member")
    return ACTIONS.get(event.action) or event.action.replace(".", " ").replace("_", " ")


def facts_of(event: AuditEvent) -> list[tuple[str, str]]:
    """The detail as pairs of a name and a text; of ``before`` and ``after`` what differs, as “a → b”."""
    detail = event.detail if isinstance(event.detail, dict) else {"detail": event.detail}
    facts = []
    before, after = detail.get("before"), detail.get("after")
    if isinstance(before, dict) and isinstance(after, dict):
        for name in dict.fromkeys([*before, *after]):
            if before.get(name) != after.get(name):
                facts.append((_name(name), _difference(before.get(name), after.get(name))))
    elif "before" in detail or "after" in detail:
        facts.append((_name("change"), f"{_text(before)} → {_text(after)}"))
    facts += [
        (_name(name), _text(value)) for name, value in detail.items() if name not in ("before", "after")
    ]
    return facts


def _difference(before: Any, after: Any) -> str:
    if isinstance(before, list) and isinstance(after, list):
        gained = [f"+{_text(one)}" for one in after if one not in before]
        lost = [f"−{_text(one)}" for one in before if one not in after]
        return ", ".join([*gained, *lost])
    return f"{_text(before)} → {_text(after)}"


def _name(key: str) -> str:
    return key.replace("_", " ")


def _text(value: Any) -> str:
    match value:
        case None | "" | []:
            return "–"
        case bool():
            return str(_("yes")) if value else str(_("no"))
        case list() if all(isinstance(one, str | int) for one in value):
            return ", ".join(str(one) for one in value)
        case dict() | list():
            return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)
