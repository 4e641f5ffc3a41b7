"""What a tenant and its members may spend on model calls, what they have, and what is set aside for calls under way."""

from django.core.validators import MinValueValidator
from django.db import models
from django.db.models import F, Q

from tenants.models.base import TenantModel
from tenants.models.people import User


class Budget(TenantModel):
    """US dollars a day or a month, of the tenant's calendar, for the tenant or for a member.

    Over ``soft_usd`` answers come from the cheaper model and say so; ``hard_usd`` is never gone over.
    """

    class Subject(models.TextChoices):
        TENANT = "tenant", "the whole tenant"
        MEMBERS = "members", "each member"
        MEMBER = "member", "one member"

    class Period(models.TextChoices):
        DAY = "day", "a day"
        MONTH = "month", "a month"

    subject = models.CharField(max_length=10, choices=Subject.choices, default=Subject.TENANT)
    user = models.ForeignKey(
        User,
        null=True,
        blank=True,
        on_delete=models.CASCADE,
        related_name="+",
        help_text="For “one member”: their own, in the place of what each member has.",
    )
    period = models.CharField(max_length=10, choices=Period.choices, default=Period.MONTH)
    soft_usd = models.DecimalField(
        "soft limit in US dollars",
        max_digits=14,
        decimal_places=6,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="Over it the cheaper model answers, and answers carry a warning.",
    )
    hard_usd = models.DecimalField(
        "hard limit in US dollars",
        max_digits=14,
        decimal_places=6,
        null=True,
        blank=True,
        validators=[MinValueValidator(0)],
        help_text="A question whose model calls might go over it is refused.",
    )
    created_at = models.DateTimeField(auto_now_add=True)

    class Meta(TenantModel.Meta):
        ordering = ["subject", "user__username", "period"]
        constraints = [
            models.UniqueConstraint(
                fields=["tenant", "subject", "user", "period"],
                nulls_distinct=False,
                name="one_budget_for_each_period",
                violation_error_message="There is a budget of this kind already: change that one.",
            ),
            models.CheckConstraint(
                condition=Q(subject="member", user__isnull=False)
                | (~Q(subject="member") & Q(user__isnull=True)),
                name="a_members_budget_names_them",
                violation_error_message="Name a member for “one member”, and for that alone.",
            ),
            models.CheckConstraint(
                condition=Q(soft_usd__isnull=False) | Q(hard_usd__isnull=False),
                name="a_budget_has_a_limit",
                violation_error_message="Give a soft limit, a hard limit or both.",
            ),
            models.CheckConstraint(
                condition=Q(soft_usd__isnull=True)
                | Q(hard_usd__isnull=True)
                | Q(soft_usd__lte=F("hard_usd")),
                name="soft_limit_below_the_hard_one",
                violation_error_message="The soft limit must not be above the hard one.",
            ),
        ]

    def __str__(self) -> str:
        whom = self.user.username if self.user else self.get_subject_display()
        return f"{whom}, {self.get_period_display()}"


class Spending(TenantModel):
    """What was spent in one period, the tenant's or (with ``user``) a member's: the ledger's sum, kept up as it grows.

    Made when the first call of a period is reserved under a budget; ``told`` is the highest percentage that was announced.
    """

    user = models.ForeignKey(User, null=True, on_delete=models.CASCADE, related_name="+")
    period = models.CharField(max_length=10, choices=Budget.Period.choices)
    starts_at = models.DateTimeField()
    ends_at = models.DateTimeField()
    spent_usd = models.DecimalField(max_digits=20, decimal_places=12, default=0)
    told = models.PositiveSmallIntegerField(default=0)

    class Meta(TenantModel.Meta):
        constraints = [
            # Also finds the periods that a call counts in.
            models.UniqueConstraint(
                fields=["tenant", "user", "period", "starts_at"],
                nulls_distinct=False,
                name="one_spending_for_each_period",
            )
        ]

    def __str__(self) -> str:
        return f"{self.period} of {self.starts_at:%Y-%m-%d}: {self.spent_usd}"


class Reservation(TenantModel):
    """Set aside for the calls of one question, whose request id is its own; one that a crash left behind expires."""

    user = models.ForeignKey(User, null=True, on_delete=models.CASCADE, related_name="+")
    amount_usd = models.DecimalField(max_digits=20, decimal_places=12)
    expires_at = models.DateTimeField()

    class Meta(TenantModel.Meta):
        indexes = [models.Index(fields=["tenant", "expires_at"], name="reservations_that_hold")]

    def __str__(self) -> str:
        return f"{self.amount_usd} until {self.expires_at:%H:%M:%S}"
