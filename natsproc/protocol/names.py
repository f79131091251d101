"""Names and subjects: what may be one, and where everything lives. Protocol: section 1.

Pure: text in, text out.
"""

from __future__ import annotations

import re
import secrets
from dataclasses import dataclass
from functools import cached_property

from natsproc.errors import BadName

MAX_NAME = 64
#: random characters of a made-up name: with six, two of 10,000 would be the same one time in twenty
UNIQUE = 10
TOKEN = "[A-Za-z0-9][A-Za-z0-9_-]{0,63}"  #: what a name may be, as a regular expression
_TOKEN = re.compile(TOKEN)
_PREFIX = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_PATTERN = re.compile(r"[A-Za-z0-9_*?-]{1,64}")
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_RULE = (
    "letters, digits, '-' and '_' only, beginning with a letter or digit, at most 64 characters "
    "(no dots, spaces, slashes or wildcards)"
)

DEFAULT_NAMESPACE = "default"
DEFAULT_PREFIX = "proc"


def check_name(value: str, what: str = "id") -> str:
    """Return `value` if it can be one NATS token of ours.

    Raises: BadName, naming the rule that it breaks.
    """
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        shown = repr(value if len(str(value)) <= 80 else f"{str(value)[:60]}… ({len(str(value))} characters)")
        raise BadName(f"{shown} cannot be a process {what}: {_RULE}")
    return value


def is_pattern(text: str) -> bool:
    """Whether `text` selects by pattern (`*`, `?`) rather than naming one process."""
    return "*" in text or "?" in text


def check_pattern(value: str) -> str:
    """Return `value` if it can select ids, as `build-*` does. Raises: BadName."""
    if not _PATTERN.fullmatch(value):
        raise BadName(f"{value!r} cannot select processes: a name of {_RULE}, with '*' and '?' as wildcards")
    return value


def new_id(kind: str) -> str:
    """Make an id such as `train-k3f9qa7xbm` for a process of that kind."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "-", kind).strip("-_")[:48] or "process"
    return f"{stem}-{new_token(UNIQUE)}"


def new_token(length: int = 16) -> str:
    """Make a random token: a command id, a message id, a nonce."""
    return "".join([_ALPHABET[byte % len(_ALPHABET)] for byte in secrets.token_bytes(length)])


def sanitize(text: str, fallback: str) -> str:
    """Turn any text (a user name, a program's name) into a valid token."""
    token = re.sub(r"[^A-Za-z0-9_-]+", "-", text).strip("-_")[:MAX_NAME]
    return token if _TOKEN.fullmatch(token) else fallback


def choose_kind(given: str | None, derived: str) -> str:
    """The kind that was given, or one made of a program's or function's name. Raises: BadName."""
    return sanitize(derived, "process") if given is None else check_name(given, "kind")


@dataclass(frozen=True, slots=True)
class Address:
    """Where a process is found: its namespace and id. Written `id`, or `namespace/id`."""

    namespace: str
    id: str

    @classmethod
    def parse(cls, text: str, namespace: str | None = None) -> Address:
        """Read `id` or `namespace/id`; `namespace` is used for the first form. Raises: BadName."""
        head, slash, tail = text.partition("/") if isinstance(text, str) else ("", "", "")
        if not slash:
            return cls(check_name(namespace or DEFAULT_NAMESPACE, "namespace"), check_name(text))
        if namespace is not None and head != namespace:
            raise BadName(f"{text!r} names namespace {head!r}, but {namespace!r} was asked for")
        return cls(check_name(head, "namespace"), check_name(tail))

    def __str__(self) -> str:
        return self.id if self.namespace == DEFAULT_NAMESPACE else f"{self.namespace}/{self.id}"


@dataclass(frozen=True)
class Names:
    """Every subject, stream and bucket of the mesh under one prefix."""

    prefix: str = DEFAULT_PREFIX

    def __post_init__(self) -> None:
        if not _PREFIX.fullmatch(self.prefix):  # else two meshes could come to one stream
            raise BadName(
                f"{self.prefix!r} cannot be a mesh prefix: lower-case letters, digits and '-' only, beginning with a "
                "letter or digit, at most 64 characters"
            )

    def events(self, address: Address) -> str:
        """Where the owner writes; captured by the event stream. Always literal."""
        return f"{self.prefix}.{address.namespace}.{address.id}.events"

    def live(self, address: Address) -> str:
        """Where the server republishes each stored event."""
        return f"{self.prefix}.{address.namespace}.{address.id}.live"

    def inbox(self, address: Address, sender: str) -> str:
        """Where `sender` leaves messages; captured by the inbox stream."""
        return f"{self.prefix}.{address.namespace}.{address.id}.inbox.{sender}"

    def delivered(self, address: Address, sender: str = "*") -> str:
        """Where the server republishes each stored message."""
        return f"{self.prefix}.{address.namespace}.{address.id}.delivered.{sender}"

    def control(self, address: Address, sender: str = "*") -> str:
        """Where `sender` commands the owner; core request and reply."""
        return f"{self.prefix}.{address.namespace}.{address.id}.control.{sender}"

    def viewers(self, address: Address, sender: str = "*") -> str:
        """Where `sender` says that it watches; core, for the owner."""
        return f"{self.prefix}.{address.namespace}.{address.id}.viewers.{sender}"

    def record(self, address: Address) -> str:
        """Where the server republishes each change of the registry record."""
        return f"{self.prefix}.{address.namespace}.{address.id}.record"

    def records(self, namespace: str = "*", id: str = "*") -> str:
        """All registry changes, of one process, one namespace or of the mesh."""
        return f"{self.prefix}.{namespace}.{id}.record"

    def lease(self, node: str = "*") -> str:
        """Where the server republishes a node's lease, its goodbye, and its expiry.

        `_nodes` cannot be a namespace, because a name begins with a letter or digit.
        """
        return f"{self.prefix}._nodes.{node}.lease"

    def address_of(self, subject: str) -> Address:
        """Read the address back from any subject of a process."""
        tokens = subject.split(".")
        return Address(tokens[1], tokens[2])

    @cached_property
    def _upper(self) -> str:
        return self.prefix.upper().replace("-", "_")

    @property
    def event_stream(self) -> str:
        return f"{self._upper}_EVENTS"

    @property
    def inbox_stream(self) -> str:
        return f"{self._upper}_INBOX"

    @property
    def claims(self) -> str:
        """Bucket of claim records."""
        return f"{self._upper}_CLAIMS"

    @property
    def registry(self) -> str:
        """Bucket of the records of what runs."""
        return f"{self._upper}_REGISTRY"

    @property
    def ended(self) -> str:
        """Bucket of the records of what has ended."""
        return f"{self._upper}_ENDED"

    @property
    def states(self) -> str:
        """Bucket of the states that checkpoints have saved, one object each."""
        return f"{self._upper}_STATES"

    @property
    def leases(self) -> str:
        """Bucket of the nodes' leases, with a TTL on each."""
        return f"{self._upper}_LEASES"


def key_of(address: Address) -> str:
    """The bucket key of a process."""
    return f"{address.namespace}.{address.id}"


def address_of_key(key: str) -> Address:
    """The process of a bucket key."""
    namespace, _, name = key.partition(".")
    return Address(namespace, name)


def client_inbox(sender: str) -> str:
    """The prefix of every reply subject that belongs to `sender`."""
    return f"_INBOX.{sender}"


def node_inbox(sender: str) -> str:
    """The prefix of the replies of a node's own requests, to which no client may publish."""
    return f"_NODE.{sender}"


def reply_is_clients(reply: str, sender: str) -> bool:
    """Whether `reply` lies in the inbox of the sender that the subject names.

    An owner answers nothing else: it could be made to publish into API subjects otherwise.
    """
    return _is_below(client_inbox(sender), reply)


def reply_is_own(reply: str, sender: str) -> bool:
    """Whether `reply` lies in an inbox of that sender, a client's or a node's: the gate answers nothing else."""
    return reply_is_clients(reply, sender) or _is_below(node_inbox(sender), reply)


def _is_below(prefix: str, subject: str) -> bool:
    rest = subject.removeprefix(f"{prefix}.")
    return rest != subject and rest != "" and not re.search(r"[\s*>]", rest)
