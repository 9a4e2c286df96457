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

from standin.errors import SnowflakeError
from standin.objectstore import ObjectStore
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


def fetch(store: ObjectStore, stages: StageRegistry, stage: Stage, key: str, name: str) -> StagedFile:
    found = store.get(key)
    if found is None:
        raise not_found(name)
    body, metadata, etag = found
    metadata = {field.lower(): value for field, value in metadata.items()}
    content = _decrypt(stages, body, metadata, name) if stage.encrypted else body
    digest = metadata.get("sfc-digest")
    if digest is None:
        raise failure(name, "the object carries no sfc-digest")
    if digest != base64.b64encode(hashlib.sha256(content).digest()).decode():
        raise failure(name, "the digest does not match the decrypted file")
    return StagedFile(name, etag, content)


def _decrypt(stages: StageRegistry, body: bytes, metadata: dict[str, str], name: str) -> bytes:
    """With the master key that was handed out for the PUT which the material descriptor names."""
    envelope, matdesc = _envelope(metadata, name)
    try:
        described = json.loads(matdesc)
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
            envelope,
            SnowflakeFileEncryptionMaterial(material.master_key, material.query_id, material.smk_id),
            io.BytesIO(body),
            out,
        )
    except (ValueError, IndexError, binascii.Error):
        raise failure(name, "the object cannot be decrypted") from None
    return out.getvalue()


def _envelope(metadata: dict[str, str], name: str) -> tuple[EncryptionMetadata, str]:
    """Wrapped key, IV and material descriptor, in the headers of S3 or in those of the presigned (Google) form."""
    if all(field in metadata for field in ("x-amz-key", "x-amz-iv", "x-amz-matdesc")):
        matdesc = metadata["x-amz-matdesc"]
        return EncryptionMetadata(metadata["x-amz-key"], metadata["x-amz-iv"], matdesc), matdesc
    if "encryptiondata" in metadata and "matdesc" in metadata:
        try:
            data = json.loads(metadata["encryptiondata"])
            key, iv = data["WrappedContentKey"]["EncryptedKey"], data["ContentEncryptionIV"]
        except (ValueError, KeyError, TypeError):
            raise failure(name, "the encryption data cannot be read") from None
        return EncryptionMetadata(key, iv, metadata["matdesc"]), metadata["matdesc"]
    raise failure(name, "the stage is encrypted on the client side, the object carries no encryption metadata")
