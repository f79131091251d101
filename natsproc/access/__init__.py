"""Who may do what: keys, rights, and credentials in which the sender is pinned.

A credential names its sender, and the server lets it publish under that name only, so a receiver can trust
the last token of a subject. Protocol: section 8.
"""

from .credential import Credential, parts_of, to_line
from .keys import Authority, claims_of, local_sender, write_private
from .ledger import Grant
from .rights import FULL, RIGHTS, Grants, Right, Scope, grants_of, permissions

__all__ = [
    "FULL",
    "RIGHTS",
    "Authority",
    "Credential",
    "Grant",
    "Grants",
    "Right",
    "Scope",
    "claims_of",
    "grants_of",
    "local_sender",
    "parts_of",
    "permissions",
    "to_line",
    "write_private",
]
