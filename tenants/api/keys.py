"""API keys."""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from ragsite.core.problems import FieldProblem, Problem
from tenants.access import access_api_key, access_member
from tenants.api.people import role_named
from tenants.keys import create_api_key, create_service_account, revoke_api_key
from tenants.models import Ability, ApiKey, Membership
from tenants.rest import TenantView, list_schema
from tenants.scope import atomic

MANAGE = Ability.MANAGE.value


class ApiKeyShape(serializers.ModelSerializer[ApiKey]):
    member = serializers.CharField(source="membership.user.username")
    role = serializers.CharField(source="membership.role.name")

    class Meta:
        model = ApiKey
        fields = (
            "id",
            "name",
            "member",
            "role",
            "hint",
            "scopes",
            "expires_at",
            "last_used_at",
            "revoked_at",
            "created_at",
        )


class NewApiKeyShape(ApiKeyShape):
    key = serializers.CharField(help_text="The key itself; shown this once.")

    class Meta(ApiKeyShape.Meta):
        fields = (*ApiKeyShape.Meta.fields, "key")  # type: ignore[assignment]


class ServiceAccountForm(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=150, help_text="Its user name.")
    role = serializers.CharField(max_length=60)


class ApiKeyForm(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=100)
    member = serializers.CharField(
        max_length=150,
        required=False,
        help_text="Id or user name of the member it acts as; yourself if left out.",
    )
    service_account = ServiceAccountForm(required=False)
    scopes = serializers.ListField(
        child=serializers.ChoiceField(choices=Ability.choices), required=False, default=list, max_length=20
    )
    expires_at = serializers.DateTimeField(required=False, allow_null=True, default=None)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("member") and attrs.get("service_account"):
            raise serializers.ValidationError({"member": ["Give a member or a service account, not both."]})
        return attrs


class ApiKeysView(TenantView):
    abilities = {"GET": MANAGE, "POST": MANAGE}

    @list_schema(ApiKeyShape, operation_id="api_keys_list", tags=["people"])
    def get(self, request: Request) -> Response:
        """The tenant's API keys, without the keys themselves."""
        return self.page(ApiKey.objects.select_related("membership__user", "membership__role"), ApiKeyShape)

    @extend_schema(
        request=ApiKeyForm, responses={201: NewApiKeyShape}, operation_id="api_keys_create", tags=["people"]
    )
    def post(self, request: Request) -> Response:
        """Make a key for yourself, for a member, or for a new service account. It is shown this once."""
        form = self.parse(ApiKeyForm)
        with atomic():
            key, secret = create_api_key(
                principal=self.principal,
                member=self._member(form),
                name=form["name"],
                scopes=form["scopes"],
                expires_at=form["expires_at"],
            )
        return Response(ApiKeyShape(key).data | {"key": secret}, status=201)

    def _member(self, form: dict[str, Any]) -> Membership:
        if account := form.get("service_account"):
            return create_service_account(
                principal=self.principal, name=account["name"], role=role_named(account["role"])
            )
        wanted = form.get("member")
        if not wanted:
            return self.principal.membership
        try:
            return access_member(self.principal.membership, UUID(wanted))
        except ValueError:
            member: Membership | None = (
                Membership.objects.select_related("user", "role", "tenant")
                .filter(user__username=wanted)
                .first()
            )
        if member is None:
            raise Problem(
                400,
                "invalid",
                "There is no such member.",
                errors=[FieldProblem("member", "Give the id or user name of a member of this tenant.")],
            )
        return member


class ApiKeyView(TenantView):
    abilities = {"GET": MANAGE, "DELETE": MANAGE}

    @extend_schema(responses=ApiKeyShape, operation_id="api_keys_read", tags=["people"])
    def get(self, request: Request, id: UUID) -> Response:
        """One key, without the key itself."""
        key = access_api_key(self.principal.membership, id)
        return Response(ApiKeyShape(key).data)

    @extend_schema(responses={204: None}, operation_id="api_keys_revoke", tags=["people"])
    def delete(self, request: Request, id: UUID) -> Response:
        """Revoke a key; its next request is refused."""
        key = access_api_key(self.principal.membership, id)
        revoke_api_key(principal=self.principal, key=key)
        return Response(status=204)
