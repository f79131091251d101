"""Who may do what: keys, rights, and credentials in which the sender is pinned.

A credential names its sender, and the server lets it publish under that name only, so a receiver can trust
the last token of a subject. Protocol: section 8.
"""

from .credential import Credential
from .keys import Authority, claims_of, local_sender, write_private
from .rights import FULL, Grants, Scope, grants_of, permissions

__all__ = [
    "FULL",
    "Authority",
    "Credential",
    "Grants",
    "Scope",
    "claims_of",
    "grants_of",
    "local_sender",
    "permissions",
    "write_private",
]
