import re

from django.contrib.auth.models import AbstractUser
from django.contrib.postgres.fields import ArrayField
from django.core.exceptions import ValidationError
from django.db import models, router, transaction

from tenants.models.base import TenantModel

TAG = re.compile(r"^[a-z0-9][a-z0-9_.-]{0,59}$")


def validate_tag(tag: str) -> None:
    """A tag is 1–60 lower-case letters, digits, ``_``, ``.`` or ``-`` (no comma: the database splits at it)."""
    if not TAG.match(tag):
        raise ValidationError(
            f"“{tag}” is not a tag: use 1 to 60 lower-case letters, digits, underscores, dots or dashes."
        )


class Ability(models.TextChoices):
    """What a role may do."""

    ASK = "ask", "ask questions"
    UPLOAD = "upload", "upload documents"
    MANAGE = "manage", "manage the tenant"
    REVIEW = "review", "review answers"
    SEE_COSTS = "see_costs", "see costs"


class User(AbstractUser):
    """A person, or a service account. What they may do is decided by their memberships alone."""

    is_service = models.BooleanField(
        default=False, help_text="A service account: acts through API keys, cannot sign in."
    )

    class Meta(AbstractUser.Meta):
        pass

    def __str__(self) -> str:
        return self.username

    def delete(self, using: str | None = None, keep_parents: bool = False) -> tuple[int, dict[str, int]]:
        """With all that is theirs; what is being written for them at this moment fails."""
        using = using or router.db_for_write(User, instance=self)
        with transaction.atomic(using=using):
            # Nobody commits a row that refers to a locked one: what goes with the user is looked up once, and is all.
            list(User.objects.using(using).select_for_update().filter(pk=self.pk))
            return super().delete(using=using, keep_parents=keep_parents)


class Role(TenantModel):
    """A name, the document tags it may read, and the things it may do."""

    name = models.CharField(max_length=60)
    tags = ArrayField(models.CharField(max_length=60, validators=[validate_tag]), default=list, blank=True)
    reads_everything = models.BooleanField(
        default=False, help_text="Reads every document, those without a tag too."
    )
    abilities = ArrayField(models.CharField(max_length=20, choices=Ability.choices), default=list, blank=True)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(TenantModel.Meta):
        ordering = ["name"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "name"],
                name="role_name_once_per_tenant",
                violation_error_message="A role of this name exists already.",
            )
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def readable_tags(self) -> tuple[str, ...] | None:
        """The tags this role reads, sorted; ``None`` for all of them and untagged documents."""
        return None if self.reads_everything else tuple(sorted(set(self.tags)))

    def may(self, ability: str) -> bool:
        return ability in self.abilities


class Membership(TenantModel):
    """One user in one tenant, in one role."""

    class Status(models.TextChoices):
        ACTIVE = "active"
        SUSPENDED = "suspended"

    user = models.ForeignKey(User, on_delete=models.CASCADE, related_name="memberships")
    role = models.ForeignKey(Role, on_delete=models.PROTECT, related_name="memberships")
    status = models.CharField(max_length=10, choices=Status.choices, default=Status.ACTIVE)
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(TenantModel.Meta):
        ordering = ["created_at", "id"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "user"],
                name="member_once_per_tenant",
                violation_error_message="This person is a member already.",
            )
        ]

    def __str__(self) -> str:
        return f"{self.user} ({self.role})"

    @property
    def is_active(self) -> bool:
        return self.status == self.Status.ACTIVE
