"""Key pairs for key-pair authentication, made when a test needs one."""

from __future__ import annotations

from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa


@dataclass(frozen=True)
class KeyPair:
    """A private key in PKCS#8, encrypted if a passphrase was given, and its public key, both in PEM."""

    private: str
    public: str


def generate(passphrase: str | None = None) -> KeyPair:
    """A new RSA key of 2048 bits, Snowflake's minimum."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    protection = (
        serialization.BestAvailableEncryption(passphrase.encode()) if passphrase else serialization.NoEncryption()
    )
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    return KeyPair(private.decode(), public.decode())
