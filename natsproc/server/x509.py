"""Making and reading certificates, by `cryptography`: import this only where TLS is asked for."""

from __future__ import annotations

import datetime
import ipaddress
from collections.abc import Collection
from contextlib import suppress

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY_DAYS, SERVER_DAYS = 20 * 365, 365
_EARLIER = datetime.timedelta(days=1)  # other machines' clocks may be behind


def make_authority(name: str) -> str:
    """A new authority, named after the server that it signs for: certificate and key, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    named = _named(f"natsproc, for {name}")
    builder = _begin(named, named, key, AUTHORITY_DAYS).add_extension(
        x509.BasicConstraints(ca=True, path_length=0), critical=True
    )
    return _text(builder.add_extension(_usage(authority=True), critical=True).sign(key, SHA256()), key)


def sign_server(authority: str, name: str, hosts: Collection[str]) -> str:
    """A new certificate for the server of that name at these host names and addresses, and its key, as PEM.

    Raises: ValueError if `authority` is not what `make_authority` made.
    """
    signer = load_pem_private_key(authority.encode(), password=None)
    if not isinstance(signer, ec.EllipticCurvePrivateKey):
        raise ValueError("its key is of another kind")
    issuer = x509.load_pem_x509_certificate(authority.encode())
    above = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    key = ec.generate_private_key(ec.SECP256R1())
    builder = (
        _begin(_named(name), issuer.subject, key, SERVER_DAYS)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(authority=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general(host) for host in hosts]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(above), critical=False)
    )
    return _text(builder.sign(signer, SHA256()), key)


def read(pem: bytes) -> tuple[tuple[str, ...], float]:
    """Host names and addresses of the first certificate, and its end in seconds since 1970. Raises: ValueError."""
    found = x509.load_pem_x509_certificate(pem)
    names: list[str] = []
    with suppress(x509.ExtensionNotFound):
        said = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        names += said.get_values_for_type(x509.DNSName)
        names += map(str, said.get_values_for_type(x509.IPAddress))
    if not names:
        raise ValueError("it names no host (subjectAltName)")
    return tuple(names), found.not_valid_after_utc.timestamp()


def _begin(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _EARLIER)
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:64])])


def _general(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _text(certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> str:
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return (certificate.public_bytes(Encoding.PEM) + private).decode()
