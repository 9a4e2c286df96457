"""The cloud that an account lives in, and what of its PUT answers a test wants otherwise."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

_NAMES = {"s3", "azure", "gcs", "gcs_presigned"}
_KEY_BITS = {128, 256}
_OPTIONS = {"virtual_url", "sas_question_mark", "official_clients", "threshold", "stage_info"}
_WAYS = {"signed_url", "native"}
_QUESTION_MARKS = {"never", "always", "alternate"}


@dataclass(frozen=True)
class Cloud:
    """`stage_info` is laid over that of every PUT answer, for forms that differ in a member only."""

    name: str = "s3"
    key_bits: int = 128
    virtual_url: bool = False
    sas_question_mark: str = "never"
    official_clients: str = "signed_url"
    threshold: int = 209_715_200  # bytes from which drivers upload in parts, as in recorded PUT answers
    stage_info: dict[str, Any] = field(default_factory=dict)


def from_json(spec: dict[str, Any], present: Cloud) -> Cloud:
    """From the account's members `cloud`, `client_encryption_key_size` and `cloud_options`; what none names, stays."""
    name, bits = spec.get("cloud", present.name), spec.get("client_encryption_key_size", present.key_bits)
    options = spec.get("cloud_options", {})
    if name not in _NAMES or bits not in _KEY_BITS or set(options) - _OPTIONS:
        raise ValueError(f"no such cloud: {name!r}, {bits!r}, {sorted(options)}")
    if options.get("sas_question_mark", "never") not in _QUESTION_MARKS:
        raise ValueError(f"sas_question_mark is one of {sorted(_QUESTION_MARKS)}")
    if options.get("official_clients", "signed_url") not in _WAYS:
        raise ValueError(f"official_clients is one of {sorted(_WAYS)}")
    return replace(present, name=name, key_bits=bits, **options)
