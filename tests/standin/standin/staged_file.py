"""A staged file as COPY sees it: fetched, decrypted by the official connector's own code, its digest checked."""

from __future__ import annotations

import base64
import binascii
import hashlib
import io
import json
from dataclasses import dataclass

from snowflake.connector.encryption_util import EncryptionMetadata, SnowflakeEncryptionUtil
from snowflake.connector.storage_client import SnowflakeFileEncryptionMaterial

from standin import envelope
from standin.envelope import Sealing, Unreadable
from standin.errors import SnowflakeError
from standin.stage_objects import StageObjects
from standin.stage_store import Stage, StageRegistry


@dataclass(frozen=True)
class StagedFile:
    name: str
    etag: str
    content: bytes


def failure(name: str, cause: str) -> SnowflakeError:
    return SnowflakeError("091003", "22000", f"Failure using stage area. Cause: [{cause} (file '{name}')]")


def not_found(name: str) -> SnowflakeError:
    return SnowflakeError(
        "091016",
        "22000",
        f"Remote file '{name}' was not found. There are several potential causes. The file might not exist. The required "
        "credentials may be missing or invalid. If you are running a copy command, please make sure files are not deleted "
        "when they are being loaded or files are not being loaded into two different tables concurrently with auto purge "
        "option.",
    )


def fetch(objects: StageObjects, stages: StageRegistry, stage: Stage, key: str, name: str) -> StagedFile:
    found = objects.get(key)
    if found is None:
        raise not_found(name)
    try:
        sealed = envelope.read(objects.form, found.metadata)
    except Unreadable as error:
        raise failure(name, str(error)) from None
    if stage.encrypted:
        content = _decrypt(stages, found.body, sealed.sealing, name)
    elif sealed.sealing is None:
        content = found.body
    else:
        raise failure(name, "the stage is encrypted on the server side only, the object carries encryption metadata")
    if sealed.digest is None:
        raise failure(name, f"the object carries no {envelope.DIGEST[objects.form]}")
    if sealed.digest != base64.b64encode(hashlib.sha256(content).digest()).decode():
        raise failure(name, "the digest does not match the decrypted file")
    return StagedFile(name, found.etag, content)


def _decrypt(stages: StageRegistry, body: bytes, sealing: Sealing | None, name: str) -> bytes:
    """With the master key that was handed out for the PUT which the material descriptor names."""
    if sealing is None:
        raise failure(name, "the stage is encrypted on the client side, the object carries no encryption metadata")
    try:
        described = json.loads(sealing.matdesc)
    except ValueError:
        raise failure(name, "the material descriptor is not JSON") from None
    if not isinstance(described, dict) or not all(isinstance(value, str) for value in described.values()):
        raise failure(name, "the values of the material descriptor are not strings")
    material = stages.material(described.get("queryId", ""), described.get("smkId", ""))
    if material is None:
        raise failure(name, "the material descriptor names no key that was issued")
    key_bits = str(len(base64.b64decode(material.master_key)) * 8)
    if described.get("keySize") != key_bits:
        raise failure(name, f"the material descriptor does not say keySize {key_bits}")
    if not body or len(body) % 16:
        raise failure(name, "the object is not a whole number of AES blocks")
    out = io.BytesIO()
    try:
        SnowflakeEncryptionUtil.decrypt_stream(
            EncryptionMetadata(sealing.key, sealing.iv, sealing.matdesc),
            SnowflakeFileEncryptionMaterial(material.master_key, material.query_id, material.smk_id),
            io.BytesIO(body),
            out,
        )
    except (ValueError, IndexError, binascii.Error):
        raise failure(name, "the object cannot be decrypted") from None
    return out.getvalue()
