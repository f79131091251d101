"""The certificate of the embedded server: one that was given, or one by an authority of the home's own.

The authority signs nothing but this server's certificate, which has the server's own name in it: by that
natsproc's clients know the server, whatever address they reach it by. Browsers and other clients go by addresses.
"""

from __future__ import annotations

import ipaddress
import socket
import ssl
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import ModuleType

from natsproc.access import write_private
from natsproc.errors import Error

from .home import LOOPBACK, Home, State, is_loopback, is_wildcard
from .trust import context_for

_UNKNOWN = (18, 19, 20, 21)  # OpenSSL's verify codes for an authority that it does not know
RENEWED_SECONDS = 180 * 86400.0  #: before its end a certificate of ours, which lasts a year, is made anew


def settle(home: Home, state: State) -> State:
    """Have a certificate for a server with these settings, a new one long before it ends; returns what is known of it.

    Raises: Error if one that was given cannot be used, or `cryptography` is missing.
    """
    if not state.tls:
        return replace(state, tls_name="", certificate_ends=0.0)
    if not state.cert:
        return replace(state, tls_name=state.name, certificate_ends=_own(home, state))
    names, ends = _given(state)
    name = state.host if state.host in names else names[0].replace("*", "natsproc")
    return replace(state, tls_name=name, certificate_ends=ends)


def _given(state: State) -> tuple[tuple[str, ...], float]:
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(state.cert, state.key)
        if state.ca:
            ssl.create_default_context(cafile=state.ca)
        return _x509().read(Path(state.cert).read_bytes())  # type: ignore[no-any-return]
    except (OSError, ValueError) as error:  # ssl's own errors are OSErrors
        files = " ".join(filter(None, (state.cert, state.key, state.ca)))
        raise Error(f"cannot use the certificate and key given ({files}): {error}") from None


def prove(home: Home, state: State) -> None:
    """See whether clients would take a certificate that was given, before anything is started. Raises: Error."""
    if not state.cert:
        return
    there, back = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(state.cert, state.key)
    ends = (
        context_for(home.ca(state)).wrap_bio(back, there, server_hostname=state.tls_name),
        server.wrap_bio(there, back, server_side=True),
    )
    try:
        for end in (*ends, ends[0]):
            with suppress(ssl.SSLWantReadError):
                end.do_handshake()
    except ssl.SSLCertVerificationError as error:
        advice = "make a new one"
        if error.verify_code in _UNKNOWN:
            advice = "give the file of the authority that signed it by --ca"
            advice += "; those between the two belong into the file of --cert" if state.ca else ""
        raise Error(
            f"no client would take the certificate {state.cert} ({error.verify_message}): {advice}"
        ) from None


def strange_to(state: State) -> str:
    """For people: that a certificate that was given is for other names than the address that is listened on; or nothing."""
    if not state.cert:
        return ""
    names = _given(state)[0]
    if {state.host, *(local_names(state) if is_wildcard(state.host) else [])} & set(names):
        return ""
    return (
        f"the certificate is for {', '.join(names)}, not for {state.host}: machines that join go by the name in it, but browsers and "
        "other clients that go by the address refuse it (IP address mismatch), unless they use a name of the certificate"
    )


def _own(home: Home, state: State) -> float:
    x509 = _x509()
    wanted = {state.name, *([] if is_wildcard(state.host) else [state.host]), *local_names(state)}
    try:
        names, ends = x509.read(home.server_pem.read_bytes())
        if home.authority_pem.exists() and wanted <= set(names) and ends - time.time() > RENEWED_SECONDS:
            return float(ends)
    except (OSError, ValueError):
        pass  # there is none yet, or none that can be used
    home.tls.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not home.authority_pem.exists():
        write_private(home.authority_pem, x509.make_authority(state.name))
    try:
        authority = home.authority_pem.read_text()
        made = x509.sign_server(authority, state.name, sorted(wanted))
    except (OSError, ValueError) as error:
        raise Error(
            f"cannot read the authority in {home.authority_pem} ({error}): restore it, or remove {home.tls} to "
            "begin with a new one, and invite the other machines anew"
        ) from None
    write_private(home.ca_pem, authority.partition("-----BEGIN PRIVATE")[0])
    write_private(home.server_pem, made)
    return float(x509.read(made.encode())[1])


def local_names(state: State) -> list[str]:
    """Names and addresses by which a server that listens there may be reached, besides the one that it listens on."""
    names = [socket.gethostname(), "localhost", "127.0.0.1", "::1"]
    return [*names, *machine_addresses()] if is_wildcard(state.host) else names


def hosts_of(state: State) -> list[str]:
    """By what names and addresses a browser may reach it."""
    far = [] if is_loopback(state.host) else local_names(state)
    return list(dict.fromkeys(["localhost", LOOPBACK, state.near, *far]))


def machine_addresses() -> list[str]:
    """The addresses by which other machines might reach this one; those of IPv4 first."""
    import psutil

    up = {name for name, stats in psutil.net_if_stats().items() if stats.isup}
    found = {
        entry.address
        for name, entries in psutil.net_if_addrs().items()
        for entry in entries
        if name in up and entry.family in (socket.AF_INET, socket.AF_INET6) and "%" not in entry.address
    }
    return sorted(
        (text for text in found if not ipaddress.ip_address(text).is_loopback), key=lambda text: ":" in text
    )


def _x509() -> ModuleType:
    try:
        from . import x509
    except ImportError:
        raise Error(
            "TLS needs the package `cryptography` on the machine of the server: pip install 'natsproc[tls]'"
        ) from None
    return x509
