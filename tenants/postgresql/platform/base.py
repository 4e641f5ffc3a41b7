"""The backend of the roles that row-level security lets through."""

from tenants.postgresql.gated import GatedWrapper


class DatabaseWrapper(GatedWrapper):
    """The platform role's connection, or the owner's."""
