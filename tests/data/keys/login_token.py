"""Prints the login token that the unit tests of key_pair.rs expect, made by PyJWT and cryptography from rsa_2048.p8."""

import base64
import hashlib
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization

KEY = Path(__file__).with_name("rsa_2048.p8").read_bytes()
ISSUED = 1_700_000_000

key = serialization.load_pem_private_key(KEY, password=None)
public = key.public_key().public_bytes(
    serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
)
fingerprint = "SHA256:" + base64.b64encode(hashlib.sha256(public).digest()).decode()
claims = {
    "exp": ISSUED + 60,
    "iat": ISSUED,
    "iss": f"MYORG-MYACCOUNT.JANE@EXAMPLE.COM.{fingerprint}",
    "sub": "MYORG-MYACCOUNT.JANE@EXAMPLE.COM",
}
print(fingerprint)
print(jwt.encode(claims, key, algorithm="RS256"))
