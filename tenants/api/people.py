"""Members and roles."""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from ragsite.core.problems import FieldProblem, Problem
from tenants.access import access_member, access_role
from tenants.models import Ability, Membership, Role, validate_tag
from tenants.people import add_member, change_member, create_user, delete_role, remove_member, save_role
from tenants.rest import TenantView, list_schema
from tenants.scope import atomic

MANAGE = Ability.MANAGE.value


def role_named(name: str) -> Role:
    """A role of the tenant in force by its name or id.

    Raises:
        Problem: 400 that lists the roles.
    """
    roles: dict[str, Role] = {role.name: role for role in Role.objects.all()}
    role = roles.get(name) or next((r for r in roles.values() if str(r.pk) == name), None)
    if role is None:
        raise Problem(
            400,
            "invalid",
            "There is no such role.",
            errors=[FieldProblem("role", "Name one of: " + ", ".join(sorted(roles)))],
        )
    return role


class MemberShape(serializers.ModelSerializer[Membership]):
    username = serializers.CharField(source="user.username")
    email = serializers.CharField(source="user.email")
    role = serializers.CharField(source="role.name")
    is_service = serializers.BooleanField(source="user.is_service")

    class Meta:
        model = Membership
        fields = ("id", "username", "email", "role", "status", "is_service", "created_at")


class MemberForm(serializers.Serializer[Any]):
    username = serializers.CharField(max_length=150)
    email = serializers.EmailField(required=False, allow_blank=True, default="")
    role = serializers.CharField(max_length=60, help_text="The role's name.")
    password = serializers.CharField(
        max_length=500,
        required=False,
        trim_whitespace=False,
        help_text="Without one, the member cannot sign in with a password yet.",
    )
    service = serializers.BooleanField(
        default=False, help_text="A service account: acts through API keys, cannot sign in."
    )


class MemberChangeForm(serializers.Serializer[Any]):
    role = serializers.CharField(max_length=60, required=False)
    status = serializers.ChoiceField(choices=Membership.Status.choices, required=False)


class MembersView(TenantView):
    abilities = {"GET": MANAGE, "POST": MANAGE}

    @list_schema(MemberShape, operation_id="members_list", tags=["people"])
    def get(self, request: Request) -> Response:
        """The tenant's members."""
        return self.page(Membership.objects.select_related("user", "role"), MemberShape)

    @extend_schema(
        request=MemberForm, responses={201: MemberShape}, operation_id="members_create", tags=["people"]
    )
    def post(self, request: Request) -> Response:
        """Add a member: a new user, with a password or (a service account) without."""
        form = self.parse(MemberForm)
        role = role_named(form["role"])
        with atomic():
            user = create_user(
                username=form["username"],
                email=form["email"],
                password=form.get("password"),
                is_service=form["service"],
            )
            member = add_member(user=user, role=role, principal=self.principal)
        return Response(MemberShape(member).data, status=201)


class MemberView(TenantView):
    abilities = {"GET": MANAGE, "PATCH": MANAGE, "DELETE": MANAGE}

    @extend_schema(responses=MemberShape, operation_id="members_read", tags=["people"])
    def get(self, request: Request, id: UUID) -> Response:
        """One member."""
        return Response(MemberShape(access_member(self.principal.membership, id)).data)

    @extend_schema(
        request=MemberChangeForm, responses=MemberShape, operation_id="members_change", tags=["people"]
    )
    def patch(self, request: Request, id: UUID) -> Response:
        """Give a member another role, suspend them or let them back in."""
        member = access_member(self.principal.membership, id)
        form = self.parse(MemberChangeForm)
        change_member(
            membership=member,
            role=role_named(form["role"]) if "role" in form else None,
            status=form.get("status"),
            principal=self.principal,
        )
        return Response(MemberShape(member).data)

    @extend_schema(responses={204: None}, operation_id="members_remove", tags=["people"])
    def delete(self, request: Request, id: UUID) -> Response:
        """End a membership, with its keys and tokens."""
        remove_member(membership=access_member(self.principal.membership, id), principal=self.principal)
        return Response(status=204)


class RoleShape(serializers.ModelSerializer[Role]):
    class Meta:
        model = Role
        fields = ("id", "name", "tags", "reads_everything", "abilities", "created_at")


class RoleForm(serializers.Serializer[Any]):
    name = serializers.CharField(max_length=60)
    tags = serializers.ListField(
        child=serializers.CharField(max_length=60, validators=[validate_tag]), required=False, max_length=200
    )
    abilities = serializers.ListField(
        child=serializers.ChoiceField(choices=Ability.choices), required=False, max_length=20
    )
    reads_everything = serializers.BooleanField(required=False)


class RolesView(TenantView):
    abilities = {"GET": MANAGE, "POST": MANAGE}

    @list_schema(RoleShape, operation_id="roles_list", tags=["people"])
    def get(self, request: Request) -> Response:
        """The tenant's roles: the tags they read, the things they may do."""
        return self.page(Role.objects.all(), RoleShape)

    @extend_schema(request=RoleForm, responses={201: RoleShape}, operation_id="roles_create", tags=["people"])
    def post(self, request: Request) -> Response:
        """Add a role."""
        role = save_role(role=Role(), changes=self.parse(RoleForm), principal=self.principal)
        return Response(RoleShape(role).data, status=201)


class RoleView(TenantView):
    abilities = {"GET": MANAGE, "PATCH": MANAGE, "DELETE": MANAGE}

    @extend_schema(responses=RoleShape, operation_id="roles_read", tags=["people"])
    def get(self, request: Request, id: UUID) -> Response:
        """One role."""
        return Response(RoleShape(access_role(self.principal.membership, id)).data)

    @extend_schema(request=RoleForm, responses=RoleShape, operation_id="roles_change", tags=["people"])
    def patch(self, request: Request, id: UUID) -> Response:
        """Change a role; holds from its members' next request on."""
        role = access_role(self.principal.membership, id)
        save_role(role=role, changes=self.parse(RoleForm, partial=True), principal=self.principal)
        return Response(RoleShape(role).data)

    @extend_schema(responses={204: None}, operation_id="roles_delete", tags=["people"])
    def delete(self, request: Request, id: UUID) -> Response:
        """Remove a role that no member has."""
        delete_role(role=access_role(self.principal.membership, id), principal=self.principal)
        return Response(status=204)
