"""Tenants, their people, their keys, what they spent and what happened in them."""

from tenants.models.audit import AuditEvent
from tenants.models.base import TenantModel
from tenants.models.budgets import Budget, Reservation, Spending
from tenants.models.credentials import ApiKey, TokenFamily
from tenants.models.idempotency import IdempotentRequest
from tenants.models.invitations import Invitation
from tenants.models.people import Ability, Membership, Role, User, validate_tag
from tenants.models.tenant import Tenant
from tenants.models.usage import UsageRecord

__all__ = [
    "Ability",
    "ApiKey",
    "AuditEvent",
    "Budget",
    "IdempotentRequest",
    "Invitation",
    "Membership",
    "Reservation",
    "Role",
    "Spending",
    "Tenant",
    "TenantModel",
    "TokenFamily",
    "UsageRecord",
    "User",
    "validate_tag",
]
