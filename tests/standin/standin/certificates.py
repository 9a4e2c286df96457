"""Certificates for `--tls`: a CA of this process, one server certificate, and the four that no client may accept.

Everything that serves TLS takes it from one `Tls`: `server_context()` for servers in this process, `certificate_file` and
`key_file` for servers in processes of their own, `ca_file` for whoever is to trust them.
"""

from __future__ import annotations

import ipaddress
import ssl
import threading
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

# The account of the examples, the two names under which storage hosts lie, and loopback itself. Accounts add theirs.
# Each is spelled out as far as a wildcard may not reach: one directly below a single label is refused by some clients.
NAMES = ("localhost", "acme-demo.localhost", "*.blob.localhost", "*.storage.localhost", "127.0.0.1", "::1")
DEFECTS = ("expired", "self_signed", "wrong_host", "tls_1_1")
_LIFE = timedelta(days=30)
_SKEW = timedelta(hours=1)


@dataclass(frozen=True)
class _Issued:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


class Tls:
    """The certificates of one run. They are made at start and good for nothing but loopback."""

    def __init__(self, directory: Path) -> None:
        self._lock = threading.Lock()
        self._names = list(NAMES)
        self._contexts: list[ssl.SSLContext] = []
        self._folder = directory / "tls"
        self._folder.mkdir(mode=0o700, exist_ok=True)
        self._ca = _authority()
        self.ca_file = directory / "ca.pem"
        self.ca_file.write_bytes(self._ca.certificate.public_bytes(Encoding.PEM))
        self._server = _issue(self._ca, self._names)
        self.certificate_file, self.key_file = self._write("server", self._server)

    def cover(self, accounts: Iterable[str]) -> None:
        """Let the server certificate name the hosts of these accounts too, also for servers that run already."""
        hosts = [f"{account.lower().replace('_', '-')}.localhost" for account in accounts]
        with self._lock:
            missing = [host for host in dict.fromkeys(hosts) if host not in self._names]
            if not missing:
                return
            self._names += missing
            self._server = _issue(self._ca, self._names)
            self._write("server", self._server)
            for context in self._contexts:
                context.load_cert_chain(self.certificate_file, self.key_file)

    def server_context(self) -> ssl.SSLContext:
        """For a server that does everything right."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        with self._lock:
            context.load_cert_chain(self.certificate_file, self.key_file)
            self._contexts.append(context)
        return context

    def client_context(self) -> ssl.SSLContext:
        """For a client that trusts this run's CA and nobody else."""
        return ssl.create_default_context(cafile=self.ca_file)

    def bad_context(self, defect: str) -> ssl.SSLContext:
        """For a server with one of the `DEFECTS`, and no other."""
        if defect == "tls_1_1":
            return self._outdated_context()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        if defect == "expired":
            bad = _issue(self._ca, self._names, until=datetime.now(UTC) - timedelta(days=1))
        elif defect == "self_signed":
            bad = _issue(None, self._names)
        elif defect == "wrong_host":
            bad = _issue(self._ca, ["elsewhere.example"])
        else:
            raise ValueError(f"no such defect: {defect}")
        context.load_cert_chain(*self._write(defect, bad))
        return context

    def _outdated_context(self) -> ssl.SSLContext:
        """A good certificate, but nothing newer than TLS 1.1, which OpenSSL 3 speaks at security level 0 only."""
        context = self.server_context()
        context.set_ciphers("DEFAULT:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
        return context

    def _write(self, name: str, issued: _Issued) -> tuple[Path, Path]:
        certificate, key = self._folder / f"{name}.pem", self._folder / f"{name}.key"
        certificate.write_bytes(issued.certificate.public_bytes(Encoding.PEM))
        key.touch(mode=0o600)
        key.write_bytes(issued.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
        return certificate, key


def _authority() -> _Issued:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Stand-in test CA")])
    usage = _key_usage(signs_certificates=True)
    builder = (
        _builder(key, name, name, datetime.now(UTC) + _LIFE)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(usage, critical=True)
    )
    return _Issued(key, builder.sign(key, hashes.SHA256()))


def _issue(authority: _Issued | None, names: list[str], until: datetime | None = None) -> _Issued:
    """A server certificate for the names, signed by the authority, or by itself where there is none."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0])])
    issuer = authority.certificate.subject if authority else subject
    signer = authority.key if authority else key
    builder = (
        _builder(key, subject, issuer, until or datetime.now(UTC) + _LIFE)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_key_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
    )
    return _Issued(key, builder.sign(signer, hashes.SHA256()))


def _builder(
    key: ec.EllipticCurvePrivateKey, subject: x509.Name, issuer: x509.Name, until: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(min(datetime.now(UTC), until) - _SKEW)
        .not_valid_after(until)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
