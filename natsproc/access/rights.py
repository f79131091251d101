"""What each right is in subjects: pure, and the same for user JWTs and server configurations. Protocol: section 8.

Whoever may publish into a stream chooses where JetStream answers, with the server's own rights. So no right
but `all` covers a subject that JetStream takes; the others ask the gate, which stores and reads for them.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from natsproc.errors import BadName
from natsproc.protocol.names import DEFAULT_NAMESPACE, DEFAULT_PREFIX, Names, check_name

Right = Literal["watch", "send", "control", "own", "all"]
Grants = dict[str, tuple[str, ...]]
"""Subjects to publish (`pub`) and subscribe to (`sub`), in which `{sender}` is whoever holds them."""

RIGHTS: tuple[Right, ...] = get_args(Right)

FULL: Grants = {
    "pub": (
        "*.*.*.events", "*.*.*.inbox.{sender}", "*.*.*.control.{sender}", "*.*.*.history.{sender}",
        "*.*.*.viewers.{sender}", "$JS.API.>", "$JS.ACK.>", "$JS.FC.>", "$KV.>", "$O.>", "$SRV.>", "_INBOX.>",
        "_NODE.>",
    ),
    "sub": (">",),
}  # fmt: skip
"""`all`: the rights of whoever owns the machine, everything, as itself.

What only the server writes (`live`, `delivered`, `record`, `_nodes`) is nobody's to publish.
"""

_ANY: Grants = {"pub": (), "sub": ("_INBOX.{sender}.>", "_NODE.{sender}.>")}

# @ is each scope, & is the mesh's prefix
_TABLE: dict[str, Grants] = {
    "watch": {
        "pub": ("@.history.{sender}", "@.viewers.{sender}", "&._nodes.*.history.{sender}"),
        "sub": ("@.live", "@.record", "@.viewers.*", "&._nodes.*.lease"),
    },
    "send": {"pub": ("@.send.{sender}",), "sub": ()},
    "control": {"pub": ("@.control.{sender}", "@.hold.{sender}"), "sub": ()},
    "own": {
        "pub": (
            "@.own.{sender}", "@.history.{sender}", "@.control.{sender}", "&._nodes.*.own.{sender}",
            "&._nodes.*.history.{sender}", "_INBOX.*.>",
        ),
        "sub": ("@.control.*", "@.delivered.*", "@.record", "@.live", "@.viewers.*", "&._nodes.*.lease"),
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Scope:
    """The processes that a right is for: one id, a whole namespace, or the mesh, whether they exist yet or not."""

    namespace: str  #: `*` for the mesh
    id: str  #: `*` for all of the namespace

    @classmethod
    def parse(cls, text: str, namespace: str = DEFAULT_NAMESPACE) -> Scope:
        """Read `id`, `namespace/id`, `namespace/*`, `*/*`; a bare `*` is all of `namespace`. Raises: BadName."""
        head, slash, tail = text.partition("/")
        space, name = (head, tail) if slash else (namespace, head)
        if any(part != "*" and ("*" in part or "?" in part) for part in (space, name)):
            raise BadName(
                f"{text!r} cannot be granted: a server tells whole names apart, never parts of them. "
                "Grant one id, all of a namespace ('chat/*'), or the mesh ('*/*')"
            )
        if space == "*" and name != "*":
            raise BadName(f"{text!r} cannot be granted: say in which namespace, or grant the mesh ('*/*')")
        return cls(
            space if space == "*" else check_name(space, "namespace"),
            name if name == "*" else check_name(name),
        )

    def covers(self, other: Scope) -> bool:
        """Whether all of `other` lies in this."""
        return self.namespace in ("*", other.namespace) and self.id in ("*", other.id)

    def __str__(self) -> str:
        return f"{self.namespace}/{self.id}"


def check_rights(can: Iterable[str]) -> tuple[Right, ...]:
    """Return what was asked for as rights, each once, in their order. Raises: BadName."""
    asked = set(can)
    if unknown := asked - set(RIGHTS):
        raise BadName(f"there is no right {sorted(unknown)[0]!r}: there are {', '.join(RIGHTS)}")
    if not asked:
        raise BadName(f"say what is granted: {', '.join(RIGHTS)}")
    return tuple(right for right in RIGHTS if right in asked)


def grants_of(can: Iterable[str], on: Collection[Scope], prefix: str = DEFAULT_PREFIX) -> Grants:
    """Say which subjects these rights come to on these scopes of a mesh. `all` includes every other right.

    Raises: BadName, for rights that do not exist, without a scope, or for `all` on less than the mesh.
    """
    rights = check_rights(can)
    Names(prefix)
    if "all" in rights:
        if set(on) - {Scope("*", "*")}:
            raise BadName(
                "`all` is trust in everything that the account holds, so it is granted on '*/*' only"
            )
        return FULL
    if not on:
        raise BadName("say on what: ids, whole namespaces ('chat/*'), or the mesh ('*/*')")
    widest = [scope for scope in dict.fromkeys(on) if not any(o != scope and o.covers(scope) for o in on)]
    return {
        side: _ANY[side] + tuple(dict.fromkeys(_filled(rights, widest, prefix, side)))
        for side in ("pub", "sub")
    }


def _filled(rights: Iterable[str], scopes: Collection[Scope], prefix: str, side: str) -> Iterable[str]:
    for right in rights:
        for subject in _TABLE[right][side]:
            for scope in scopes:
                yield subject.replace("@", f"&.{scope.namespace}.{scope.id}").replace("&", prefix)


def permissions(sender: str, grants: Grants = FULL) -> dict[str, Any]:
    """Say in a user JWT's terms what `sender` may publish and subscribe to."""
    return {
        direction: {"allow": [subject.format(sender=sender) for subject in subjects]}
        for direction, subjects in grants.items()
    }
