"""The metadata of a staged object: digest, wrapped key, IV and material descriptor, in the form of each cloud."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Literal

Form = Literal["s3", "azure", "gcs"]

DIGEST = {"s3": "sfc-digest", "azure": "sfcdigest", "gcs": "sfc-digest"}  # Azure allows no hyphen in a name
_S3_NAMES = ("x-amz-key", "x-amz-iv", "x-amz-matdesc")
_JSON_NAMES = ("encryptiondata", "matdesc")
_AGENT_ALGORITHMS = {"AES_CBC_128", "AES_CBC_256"}  # drivers differ, whatever the size of the key


class Unreadable(ValueError):
    """Encryption metadata that the form of the cloud does not know."""


@dataclass(frozen=True)
class Sealing:
    """How the file was encrypted."""

    key: str
    iv: str
    matdesc: str


@dataclass(frozen=True)
class Envelope:
    digest: str | None
    sealing: Sealing | None


def read(form: Form, metadata: dict[str, str]) -> Envelope:
    metadata = {name.lower(): value for name, value in metadata.items()}
    names = _S3_NAMES if form == "s3" else _JSON_NAMES
    present = [name for name in names if name in metadata]
    digest = metadata.get(DIGEST[form])
    if not present:
        return Envelope(digest, None)
    if len(present) < len(names):
        raise Unreadable(f"the encryption metadata lacks {', '.join(sorted(set(names) - set(present)))}")
    if form == "s3":
        return Envelope(digest, Sealing(*(metadata[name] for name in names)))
    key, iv = _encryption_data(metadata["encryptiondata"])
    return Envelope(digest, Sealing(key, iv, metadata["matdesc"]))


def write(form: Form, envelope: Envelope) -> dict[str, str]:
    metadata = {} if envelope.digest is None else {DIGEST[form]: envelope.digest}
    sealing = envelope.sealing
    if sealing is None:
        return metadata
    if form == "s3":
        return metadata | dict(zip(_S3_NAMES, (sealing.key, sealing.iv, sealing.matdesc), strict=True))
    data = {
        "EncryptionMode": "FullBlob",
        "WrappedContentKey": {"KeyId": "symmKey1", "EncryptedKey": sealing.key, "Algorithm": "AES_CBC_256"},
        "EncryptionAgent": {"Protocol": "1.0", "EncryptionAlgorithm": "AES_CBC_256"},
        "ContentEncryptionIV": sealing.iv,
        "KeyWrappingMetadata": {"EncryptionLibrary": "Java 5.3.0"},
    }
    return metadata | {"encryptiondata": json.dumps(data), "matdesc": sealing.matdesc}


def _encryption_data(text: str) -> tuple[str, str]:
    """Wrapped key and IV of the JSON that Azure's and Google's objects carry."""
    try:
        data = json.loads(text)
        wrapped, agent = data["WrappedContentKey"], data["EncryptionAgent"]
        key, iv = wrapped["EncryptedKey"], data["ContentEncryptionIV"]
        members = {
            "EncryptionMode": data["EncryptionMode"] == "FullBlob",
            "WrappedContentKey.KeyId": wrapped["KeyId"] == "symmKey1",
            "WrappedContentKey.Algorithm": wrapped["Algorithm"] == "AES_CBC_256",
            "EncryptionAgent.Protocol": agent["Protocol"] == "1.0",
            "EncryptionAgent.EncryptionAlgorithm": agent["EncryptionAlgorithm"] in _AGENT_ALGORITHMS,
            "KeyWrappingMetadata.EncryptionLibrary": _is_text(data["KeyWrappingMetadata"]["EncryptionLibrary"]),
        }
    except KeyError as missing:
        raise Unreadable(f"the encryption data has no member {missing.args[0]}") from None
    except (ValueError, TypeError):
        raise Unreadable("the encryption data cannot be read") from None
    wrong = [member for member, right in members.items() if not right]
    if wrong or not _is_text(key) or not _is_text(iv):
        raise Unreadable(f"the encryption data has another {', '.join(wrong) or 'key or IV'} than any driver writes")
    return key, iv


def _is_text(value: Any) -> bool:
    return isinstance(value, str)
