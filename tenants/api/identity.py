"""Sign-in by token, and who one is."""

from typing import Any

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from tenants.authentication import (
    check_credentials,
    choose_membership,
    client_address,
    known_memberships,
    record_sign_in,
)
from tenants.rest import BodyParser, TenantView, forbid_keeping, without_nulls
from tenants.scope import atomic, scope
from tenants.tokens import issue_tokens, revoke_tokens, rotate_tokens


class CredentialsForm(serializers.Serializer[Any]):
    username = serializers.CharField(max_length=150)
    password = serializers.CharField(max_length=500, trim_whitespace=False)
    tenant = serializers.CharField(max_length=40, required=False, allow_blank=True)


class TokenShape(serializers.Serializer[Any]):
    access = serializers.CharField()
    refresh = serializers.CharField()
    tenant = serializers.CharField(help_text="The tenant's slug.")
    role = serializers.CharField()


class RefreshForm(serializers.Serializer[Any]):
    refresh = serializers.CharField(max_length=4000)


class PairShape(serializers.Serializer[Any]):
    access = serializers.CharField()
    refresh = serializers.CharField()


class RevokeForm(serializers.Serializer[Any]):
    refresh = serializers.CharField(max_length=4000, required=False)
    token = serializers.CharField(max_length=4000, required=False, help_text="An access or a refresh token.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if not (attrs.get("refresh") or attrs.get("token")):
            raise serializers.ValidationError({"refresh": ["Give the token to revoke."]})
        return attrs


class OpenView(APIView):
    """A view that needs nobody signed in; a stale credential in a header does not disturb it."""

    authentication_classes = ()
    permission_classes = (AllowAny,)
    parser_classes = (BodyParser,)

    def finalize_response(self, request: Request, response: Any, *args: Any, **kwargs: Any) -> Any:
        return forbid_keeping(super().finalize_response(request, response, *args, **kwargs))

    def read(self, form_class: type[serializers.Serializer[Any]], request: Request) -> dict[str, Any]:
        form = form_class(data=without_nulls(request.data))
        form.is_valid(raise_exception=True)
        data: dict[str, Any] = form.validated_data
        return data


class TokenView(OpenView):
    @extend_schema(
        request=CredentialsForm,
        responses={
            200: TokenShape,
            400: OpenApiResponse(description="Several tenants: name one of “tenants”"),
        },
        operation_id="token_create",
        tags=["sign-in"],
        auth=[],
    )
    def post(self, request: Request) -> Response:
        """Sign in: user name and password for an access and a refresh token."""
        form = self.read(CredentialsForm, request)
        user, memberships = check_credentials(
            request=request._request,
            username=form["username"],
            password=form["password"],
            tenant=form.get("tenant", ""),
        )
        membership = choose_membership(memberships, user=user)
        with scope(tenant_id=membership.tenant_id, tags=()), atomic():
            pair = issue_tokens(membership=membership)
            record_sign_in(membership=membership, method="jwt", address=client_address(request._request))
        return Response(
            {
                "access": pair.access,
                "refresh": pair.refresh,
                "tenant": membership.tenant.slug,
                "role": membership.role.name,
            }
        )


class TokenRefreshView(OpenView):
    @extend_schema(
        request=RefreshForm, responses=PairShape, operation_id="token_refresh", tags=["sign-in"], auth=[]
    )
    def post(self, request: Request) -> Response:
        """A new pair for a refresh token, which may be used once; used again, it ends the sign-in."""
        form = self.read(RefreshForm, request)
        pair = rotate_tokens(refresh=form["refresh"], address=client_address(request._request))
        return Response({"access": pair.access, "refresh": pair.refresh})


class TokenRevokeView(OpenView):
    @extend_schema(
        request=RevokeForm, responses={204: None}, operation_id="token_revoke", tags=["sign-in"], auth=[]
    )
    def post(self, request: Request) -> Response:
        """End a sign-in: its refresh and its access tokens hold no longer."""
        form = self.read(RevokeForm, request)
        revoke_tokens(token=form.get("refresh") or form["token"], address=client_address(request._request))
        return Response(status=204)


class TenantShape(serializers.Serializer[Any]):
    id = serializers.UUIDField()
    slug = serializers.CharField()
    name = serializers.CharField()
    role = serializers.CharField()


class MeShape(serializers.Serializer[Any]):
    id = serializers.IntegerField()
    username = serializers.CharField()
    email = serializers.CharField()
    tenant = serializers.CharField(help_text="The slug of the tenant in force.")
    role = serializers.CharField()
    tags = serializers.ListField(
        child=serializers.CharField(), allow_null=True, help_text="null: all of them"
    )
    abilities = serializers.ListField(child=serializers.CharField())
    method = serializers.CharField(help_text="session, jwt or api_key")
    tenants = TenantShape(many=True)


class MeView(TenantView):
    @extend_schema(responses=MeShape, operation_id="me", tags=["sign-in"])
    def get(self, request: Request) -> Response:
        """Who I am, in which tenant, in which role, and what that role may do."""
        principal = self.principal
        membership = principal.membership
        tags = membership.role.readable_tags
        return Response(
            {
                "id": membership.user_id,
                "username": membership.user.username,
                "email": membership.user.email,
                "tenant": membership.tenant.slug,
                "role": membership.role.name,
                "tags": None if tags is None else list(tags),
                "abilities": sorted(principal.abilities),
                "method": principal.method,
                "tenants": [
                    {"id": m.tenant_id, "slug": m.tenant.slug, "name": m.tenant.name, "role": m.role.name}
                    for m in known_memberships(principal)
                ],
            }
        )
