"""Members, invitations and roles."""

from typing import Any
from uuid import UUID

from drf_spectacular.utils import OpenApiResponse, extend_schema
from rest_framework import serializers
from rest_framework.request import Request
from rest_framework.response import Response

from ragsite.core.problems import FieldProblem, Problem
from tenants.access import access_member, access_role
from tenants.invitations import access_any_invitation, invite, join_link, revoke_invitation
from tenants.mail import site_of
from tenants.models import Ability, Invitation, Membership, Role, validate_tag
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


class InvitationShape(serializers.ModelSerializer[Invitation]):
    role = serializers.CharField(source="role.name")
    invited_by = serializers.SerializerMethodField()
    is_open = serializers.BooleanField(help_text="Whether its link works: not accepted, revoked or expired.")

    class Meta:
        model = Invitation
        fields = (
            "id",
            "email",
            "role",
            "invited_by",
            "is_open",
            "created_at",
            "sent_at",
            "expires_at",
            "accepted_at",
            "revoked_at",
        )

    def get_invited_by(self, row: Invitation) -> str:
        return row.invited_by.username if row.invited_by else ""


class NewInvitationShape(InvitationShape):
    link = serializers.CharField(
        allow_null=True,
        help_text="Where no e-mail is set up: the link to pass on, shown this once. Else null: it has been sent.",
    )

    class Meta(InvitationShape.Meta):
        fields = (*InvitationShape.Meta.fields, "link")  # type: ignore[assignment]


class MemberForm(serializers.Serializer[Any]):
    username = serializers.CharField(
        max_length=150, required=False, help_text="Of a new user. Left out: `email` is invited."
    )
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

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        if attrs.get("username"):
            return attrs
        if not attrs["email"]:
            wrong = "Give a user name, or an e-mail address to invite somebody."
            raise serializers.ValidationError({"username": [wrong]})
        if attrs["service"] or attrs.get("password"):
            wrong = "Who is invited chooses user name and password: leave out password and service."
            raise serializers.ValidationError({"username": [wrong]})
        return attrs


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
        request=MemberForm,
        responses={
            201: OpenApiResponse(MemberShape, description="The new member"),
            202: OpenApiResponse(NewInvitationShape, description="Somebody was invited by e-mail"),
        },
        operation_id="members_create",
        tags=["people"],
    )
    def post(self, request: Request) -> Response:
        """Add a member: a new user, with a password or (a service account) without; or invite somebody by e-mail."""
        form = self.parse(MemberForm)
        role = role_named(form["role"])
        if not form.get("username"):
            return self._invite(email=form["email"], role=role)
        with atomic():
            user = create_user(
                username=form["username"],
                email=form["email"],
                password=form.get("password"),
                is_service=form["service"],
            )
            member = add_member(user=user, role=role, principal=self.principal)
        return Response(MemberShape(member).data, status=201)

    def _invite(self, *, email: str, role: Role) -> Response:
        site = site_of(self.request._request)
        invited = invite(principal=self.principal, emails=[email.lower()], role=role, site=site)
        if invited.members:
            raise Problem(409, "conflict", "A member of this tenant has this address already.")
        (invitation,) = invited.invitations
        invitation.refresh_from_db()
        token = invited.tokens.get(invitation.email)
        link = join_link(site=site, token=token) if token else None
        return Response(InvitationShape(invitation).data | {"link": link}, status=202)


class InvitationsView(TenantView):
    abilities = {"GET": MANAGE}

    @list_schema(InvitationShape, operation_id="invitations_list", tags=["people"])
    def get(self, request: Request) -> Response:
        """Every invitation of the tenant, newest first. `POST /members` without a user name makes one."""
        return self.page(Invitation.objects.select_related("role", "invited_by"), InvitationShape)


class InvitationView(TenantView):
    abilities = {"GET": MANAGE, "DELETE": MANAGE}

    @extend_schema(responses=InvitationShape, operation_id="invitations_read", tags=["people"])
    def get(self, request: Request, id: UUID) -> Response:
        """One invitation."""
        return Response(InvitationShape(access_any_invitation(self.principal.membership, id)).data)

    @extend_schema(responses={204: None}, operation_id="invitations_revoke", tags=["people"])
    def delete(self, request: Request, id: UUID) -> Response:
        """Withdraw an invitation; its link opens nothing any more. Twice is no error."""
        invitation = access_any_invitation(self.principal.membership, id)
        revoke_invitation(principal=self.principal, invitation=invitation)
        return Response(status=204)


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
