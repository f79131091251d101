"""The keys of a mesh: a local operator with its accounts, and the credentials that they sign. Protocol: section 8."""

from __future__ import annotations

import base64
import getpass
import json
import os
import time
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from natsproc.errors import BadPayload
from natsproc.protocol.names import new_token, sanitize

from .rights import FULL, Grants, permissions

if TYPE_CHECKING:
    from nkeys import KeyPair

Claims = dict[str, Any]


@dataclass(frozen=True)
class Authority:
    """A local operator, the account of the mesh, and the system account: seeds and JWTs.

    The account JWTs are made once: a newer one would undo what was pushed to the server since.
    """

    operator_seed: str = field(repr=False)
    account_seed: str = field(repr=False)
    system_seed: str = field(repr=False)
    operator_jwt: str
    account_jwt: str
    system_jwt: str

    @classmethod
    def create(cls) -> Authority:
        """Make new keys, and sign the two accounts with them."""
        import nkeys

        operator = _new_key(nkeys.PREFIX_BYTE_OPERATOR)
        account, system = _new_key(nkeys.PREFIX_BYTE_ACCOUNT), _new_key(nkeys.PREFIX_BYTE_ACCOUNT)
        claims = {"type": "operator", "system_account": system.public_key.decode()}
        return cls(
            operator.seed.decode(),
            account.seed.decode(),
            system.seed.decode(),
            _sign(operator, operator, "natsproc", claims),
            _sign(operator, account, "natsproc", _account(jetstream=True)),
            _sign(operator, system, "system", _account(jetstream=False)),
        )

    @classmethod
    def load(cls, path: Path) -> Authority | None:
        """Read what `save` wrote, or None. Raises: BadPayload."""
        try:
            return cls(**json.loads(path.read_text()))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise BadPayload(
                f"cannot read the keys in {path} ({error}): restore it, or remove it to begin with new ones"
            ) from None

    def save(self, path: Path) -> None:
        """Write it, for its owner's eyes only."""
        write_private(path, json.dumps(asdict(self), indent=2))

    def credential(
        self, sender: str, grants: Grants = FULL, *, expires: float | None = None, system: bool = False
    ) -> str:
        """Make the text of a .creds file for `sender`; `expires` is in seconds since 1970, UTC.

        With `system` it is one of the system account, which asks the server about itself.
        """
        import nkeys

        user = _new_key(nkeys.PREFIX_BYTE_USER)
        account = nkeys.from_seed((self.system_seed if system else self.account_seed).encode())
        claims = {"type": "user", "subs": -1, "data": -1, "payload": -1, **permissions(sender, grants)}
        return creds_text(_sign(account, user, sender, claims, expires), user.seed.decode())

    @property
    def account(self) -> str:
        """The public key of the mesh's account, which its credentials name as their issuer."""
        return str(claims_of(self.account_jwt)["sub"])

    def revoking(self, revoked: Mapping[str, int], *, forget: Collection[str] = ()) -> Authority:
        """The same with an account JWT that refuses these users' keys, if issued at these seconds or before.

        What it has refused before stays so, but for the keys to `forget`.
        """
        import nkeys

        old = claims_of(self.account_jwt)
        claims = {name: value for name, value in old["nats"].items() if name != "version"}
        refused = {**claims.get("revocations", {}), **revoked}
        claims["revocations"] = {key: since for key, since in refused.items() if key not in forget}
        operator, account = (nkeys.from_seed(s.encode()) for s in (self.operator_seed, self.account_seed))
        # a server keeps the one that was issued last
        jwt = _sign(operator, account, old["name"], claims, issued=int(old["iat"]) + 1)
        return replace(self, account_jwt=jwt)


def creds_text(jwt: str, seed: str) -> str:
    """What a .creds file has."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n"
        "Whoever has this file can act in its name: keep it to yourself.\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


def _account(*, jetstream: bool) -> Claims:
    unlimited = ["subs", "data", "payload", "imports", "exports", "conn", "leaf"]
    if jetstream:
        unlimited += ["mem_storage", "disk_storage", "streams", "consumer"]
    return {"type": "account", "limits": {**dict.fromkeys(unlimited, -1), "wildcards": True}}


def _new_key(prefix: int) -> KeyPair:
    import nkeys

    return nkeys.from_seed(nkeys.encode_seed(os.urandom(32), prefix))


def _sign(
    issuer: KeyPair,
    subject: KeyPair,
    name: str,
    nats: Claims,
    expires: float | None = None,
    *,
    issued: int = 0,
) -> str:
    """Make a JWT as nats-server reads them (version 2), issued now or, if that is later, at `issued`."""
    claims = {
        "jti": new_token(26),
        "iat": max(int(time.time()), issued),
        "iss": issuer.public_key.decode(),
        "sub": subject.public_key.decode(),
        "name": name,
        "nats": nats | {"version": 2},
    }
    if expires is not None:
        claims["exp"] = int(expires)
    parts = [{"typ": "JWT", "alg": "ed25519-nkey"}, claims]
    text = b".".join(_base64(json.dumps(part).encode()) for part in parts)
    return (text + b"." + _base64(issuer.sign(text))).decode()


def _base64(raw: bytes) -> bytes:
    return base64.urlsafe_b64encode(raw).rstrip(b"=")


def claims_of(jwt: str) -> Claims:
    """Read what a JWT says, without checking who signed it. Raises: ValueError, IndexError."""
    body = jwt.split(".")[1]
    claims: Claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims


def local_sender() -> str:
    """The sender that a person on this machine is, unless a credential says otherwise: the OS user's name."""
    try:
        return sanitize(getpass.getuser(), "local")
    except (KeyError, OSError):  # no such user in a container
        return "local"


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner may read (0600), all of it or nothing."""
    scratch = path.with_name(f".{path.name}.{os.getpid()}")
    scratch.unlink(missing_ok=True)
    with open(os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    scratch.replace(path)
