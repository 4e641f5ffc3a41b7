"""The secret of a source's webhooks: made, shown once, rotated; the old one holds for a day more."""

import json
from datetime import datetime, timedelta

from django.utils import timezone

from knowledge.models import Source
from knowledge.webhooks.signatures import new_secret
from ragsite.core.problems import Problem
from ragsite.core.secrets import SecretLost, decrypt_secret, encrypt_secret
from tenants.access import Principal
from tenants.audit import record_by
from tenants.scope import atomic

OLD_SECRET_HOLDS = timedelta(hours=24)


def live_secrets(source: Source, *, now: datetime | None = None) -> list[str]:
    """The secrets that sign and verify at this time, the newest first; none where there is none, or none can be read."""
    try:
        text = decrypt_secret(source.hook_secret)
    except SecretLost:
        return []
    stored = json.loads(text) if text else {}
    found = [stored["current"]] if stored.get("current") else []
    if stored.get("previous") and (now or timezone.now()) < datetime.fromisoformat(stored["previous_until"]):
        found.append(stored["previous"])
    return found


def old_secret_until(source: Source) -> datetime | None:
    """When the secret before the present one ends; ``None`` when it has."""
    if len(live_secrets(source)) < 2:
        return None
    return datetime.fromisoformat(json.loads(decrypt_secret(source.hook_secret))["previous_until"])


def rotate_secret(*, source: Source, principal: Principal | None = None) -> str:
    """A new secret, to be shown this once; the one before it holds for 24 hours more.

    Raises:
        Problem: 409 while an older one still does: whoever rotates twice in a day would cut off what signs with it.
    """
    with atomic():
        row = Source.objects.select_for_update().defer("state").get(pk=source.pk)
        live = live_secrets(row)
        until = old_secret_until(row)
        if until is not None:
            raise Problem(
                409,
                "rotating",
                f"The secret was rotated already; the one before it holds until {until:%Y-%m-%d %H:%M} UTC. "
                "Delete the secret first if it has leaked.",
            )
        secret = new_secret()
        stored = {"current": secret}
        if live:
            ends = timezone.now() + OLD_SECRET_HOLDS
            stored |= {"previous": live[0], "previous_until": ends.isoformat()}
        row.hook_secret = source.hook_secret = encrypt_secret(json.dumps(stored))
        row.save(update_fields=["hook_secret"])
        action = "source.hook_rotate" if live else "source.hook_create"
        record_by(principal, action, source, {"name": source.name})
    return secret


def delete_secret(*, source: Source, principal: Principal | None = None) -> None:
    """Ends every secret of a source at once: nothing is received for it, no callback sent."""
    with atomic():
        Source.objects.filter(pk=source.pk).update(hook_secret="")
        source.hook_secret = ""
        record_by(principal, "source.hook_delete", source, {"name": source.name})
